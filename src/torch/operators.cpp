#include "operators.h"

#include <torch/library.h>

namespace spgrad {

template <class Structure, class Operation, class... Before, class... Values, class... After,
          class... Dense>
auto Operator<Structure, Operation, Types<Before...>, Types<Values...>, Types<After...>,
              Types<Dense...>>::call(std::optional<c10::DispatchKeySet> keys,
                                     const Structure& structure, Values... values, Dense... dense)
    -> Result {
  static const auto op = find_operator<Result(Before..., Values..., After..., Dense...)>(name());
  // Takes all arguments of the structure. The last one is left out where an operand tells it.
  const auto invoke = [&](Before... before, After... after, const auto&...) {
    return keys ? op.redispatch(*keys, before..., values..., after..., dense...)
                : op.call(before..., values..., after..., dense...);
  };
  return std::apply(invoke, structure.arguments());
}

template <class Structure, class Operation, class... Before, class... Values, class... After,
          class... Dense>
void Operator<Structure, Operation, Types<Before...>, Types<Values...>, Types<After...>,
              Types<Dense...>>::add(torch::Library& m, Function& function) {
  m.impl(name().c_str(), &function);
}

template struct Operator<CsrStructure, Mm>;
template struct Operator<CsrStructure, MmTransposed>;
template struct Operator<CsrStructure, Sddmm>;
template struct Operator<CsrStructure, MmBackward>;
template struct Operator<CsrStructure, MmExtremum>;
template struct Operator<CsrStructure, SelectedMm>;
template struct Operator<CsrStructure, SelectedMmTransposed>;
template struct Operator<CsrStructure, SelectedSddmm>;
template struct Operator<CsrStructure, MakePattern>;

template struct Operator<CooStructure, Mm>;
template struct Operator<CooStructure, MmTransposed>;
template struct Operator<CooStructure, Sddmm>;
template struct Operator<CooStructure, MmBackward>;
template struct Operator<CooStructure, MmExtremum>;
template struct Operator<CooStructure, SelectedMm>;
template struct Operator<CooStructure, SelectedMmTransposed>;
template struct Operator<CooStructure, SelectedSddmm>;
template struct Operator<CooStructure, MakePattern>;
template struct Operator<CooStructure, MakeMovedPattern>;

template struct Operator<PatternStructure, Mm>;
template struct Operator<PatternStructure, MmInto>;
template struct Operator<PatternStructure, SddmmInto>;
template struct Operator<PatternStructure, MmBackwardInto>;
template struct Operator<PatternStructure, MmTransposed>;
template struct Operator<PatternStructure, Sddmm>;
template struct Operator<PatternStructure, MmBackward>;
template struct Operator<PatternStructure, MmExtremum>;
template struct Operator<PatternStructure, SelectedMm>;
template struct Operator<PatternStructure, SelectedMmTransposed>;
template struct Operator<PatternStructure, SelectedSddmm>;
template struct Operator<PatternStructure, Indices>;
template struct Operator<PatternStructure, PinvMm>;
template struct Operator<PatternStructure, PinvWithMultipliers>;
template struct Operator<PatternStructure, GramAnalysis>;
template struct Operator<PatternStructure, GramFactor>;

}  // namespace spgrad
