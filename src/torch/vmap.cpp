// Batching rules: the products of all v items of a vmap in one call.
//
// Where B alone differs from item to item and is narrow, the items stand side by side in a wider B,
// (m, v · p). Where all have one structure, they are heads of it (heads.h). Otherwise they become
// items of the structure's batch. A rule deals with one level of
// vmap and then calls the operator again: the next level, autograd and autocast come after it.
#include <ATen/functorch/DynamicLayer.h>
#include <ATen/functorch/PlumbingHelper.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <initializer_list>

#include "autocast.h"
#include "backend.h"
#include "check.h"
#include "heads.h"
#include "solvers/reports.h"
#include "spgrad/sparse_mm.h"

namespace spgrad {
namespace {

using at::Tensor;
using c10::SymInt;
using Tensors = std::vector<Tensor>;

at::functorch::DynamicLayer current_layer() {
  const auto layer = at::functorch::maybeCurrentDynamicLayer();
  TORCH_CHECK(layer.has_value(),
              "tensors of a function under vmap must be used inside that function, but one was "
              "kept and used outside of it");
  return *layer;
}

// The level of vmap that a rule deals with. What is called while the object lives belongs to the
// levels further out.
class Level {
 public:
  Level() : Level(current_layer()) {}

  bool has(const Tensor& tensor) const { return at::functorch::isBatchedAtLevel(tensor, number_); }
  template <class Structure>
  bool has_structure(Structure structure) const {
    return std::ranges::any_of(structure.tensors(), [&](const Tensor* x) { return has(*x); });
  }

  const SymInt& items() const { return items_; }

  // `size` for all items.
  Size all(c10::SymIntArrayRef size) const {
    Size sizes{items_};
    sizes.insert(sizes.end(), size.begin(), size.end());
    return sizes;
  }

  // The tensor with the items as its first dimension: expanded, without a copy, where all have the
  // same.
  Tensor in_front(const Tensor& tensor) const {
    const auto [value, dim] = at::functorch::unwrapTensorAtLevel(tensor, number_);
    return dim ? value.movedim(*dim, 0) : value.expand_symint(all(value.sym_sizes()));
  }

  // The same with the items before the last `dims` dimensions, and behind the heads.
  Tensor behind_heads(const Tensor& tensor, int64_t dims) const {
    return in_front(tensor).movedim(0, -dims - 1);
  }

  // The same as one more leading dimension of an operand, before so many others.
  Tensor before_heads(const Tensor& tensor, int64_t dims, int64_t heads) const {
    Tensor items = in_front(tensor);
    for (int64_t i = tensor.dim() - dims; i < heads; ++i) items = items.unsqueeze(1);
    return items;
  }

  Tensor item(const Tensor& tensor, int64_t i) const {
    const auto [value, dim] = at::functorch::unwrapTensorAtLevel(tensor, number_);
    return dim ? value.select(*dim, i) : value;
  }

  Tensor wrap(const Tensor& result, int64_t dim = 0) const {
    return at::functorch::makeBatched(result, dim, number_);
  }

  // product(B) for a linear product, with the items side by side in the columns.
  template <class Product>
  Tensor widen(const Tensor& B, const Product& product) const {
    const auto [value, dim] = at::functorch::unwrapTensorAtLevel(B, number_);
    if (!dim) return product(value);
    const Tensor result = product(value.movedim(*dim, -2).flatten(-2));
    return wrap(result.unflatten_symint(-1, {items_, B.sym_size(-1)}), result.dim() - 1);
  }

 private:
  explicit Level(const at::functorch::DynamicLayer& layer)
      : number_(layer.layerId()), items_(layer.batchSize()) {}

  c10::impl::ExcludeDispatchKeyGuard guard_{c10::DispatchKey::FuncTorchBatched};
  int64_t number_;
  SymInt items_;
};

// The structures of all items as one batch.

CsrStructure join(const Level& level, const CsrStructure& s) {
  const auto joined = [&](const Tensor& indices) {
    const Tensor items = level.in_front(indices);
    return items.dim() > 2 ? items.flatten(0, 1) : items;
  };
  return {joined(s.crow_indices), joined(s.col_indices), s.columns()};
}

CooStructure join(const Level& level, const CooStructure& s) {
  const Tensor indices = level.in_front(s.indices).to(at::kLong);
  const Tensor column = indices.select(1, -1);
  const SymInt batch = level.items() * s.items();
  Tensor item = at::arange(level.items(), indices.options()).mul(s.items()).unsqueeze(1);
  if (s.batched()) {
    const Tensor given = indices.select(1, 0);
    // An item out of bounds must not become one of the next structure: it moves past the end.
    item = item.add(given.masked_fill(given.lt(0).logical_or(given.ge(s.items())), batch));
  }
  return {
      at::stack({item.expand_symint(column.sym_sizes()), indices.select(1, -2), column}).flatten(1),
      {batch, s.rows(), s.columns()}};
}

// A dense matrix, or values.
struct Operand {
  const Tensor& tensor;
  bool dense;
};

template <class Structure>
int64_t dims_of(const Structure& s, bool dense) {
  return dense ? dense_dims(s) : values_dims(s);
}

// Whether the items of a joined batch take the place of a dimension: of COO's entries, or of a
// batch of each item.
bool merges(const CsrStructure& s, bool) { return s.batched(); }
bool merges(const CooStructure& s, bool dense) { return s.batched() || !dense; }

// A tensor of results: its size for one item, and what it is.
struct Result {
  Size size;
  bool dense;
};

// product(structure, operands) for each item, where structures differ.
//
// One call for the whole batch, which copies the indices for each item: 24 bytes an entry for COO,
// what it has for CSR. A loop over the items would copy the results instead, and takes longer.
template <class Structure, class Product>
Tensors multiply_structures(const Level& level, const Structure& s,
                            std::initializer_list<Operand> operands,
                            const std::vector<Result>& expected, const Product& product) {
  Tensors joined;
  for (const auto& [tensor, dense] : operands) {
    const int64_t dims = dims_of(s, dense);
    const Tensor items = level.behind_heads(tensor, dims);
    joined.push_back(merges(s, dense) ? items.flatten(-dims - 1, -dims) : items);
  }
  Tensors results = product(join(level, s), joined);
  for (size_t i = 0; i < results.size(); ++i) {
    const auto& [size, dense] = expected[i];
    const auto heads = static_cast<int64_t>(size.size()) - dims_of(s, dense);
    Size all = size;
    all.insert(all.begin() + heads, level.items());
    results[i] = level.wrap(results[i].reshape_symint(all), heads);
  }
  return results;
}

// The same for patterns, in a loop. A pattern counts through its rows, entries and values, so that
// one of all items would have to be numbered anew; and it is sorted already, so that a loop copies
// no index and sorts nothing.
template <class Product>
Tensors multiply_structures(const Level& level, const PatternStructure& s,
                            std::initializer_list<Operand> operands,
                            const std::vector<Result>& expected, const Product& product) {
  const int64_t number = level.items().guard_int(__FILE__, __LINE__);
  std::vector<Tensors> results(expected.size());
  for (int64_t i = 0; i < number; ++i) {
    PatternStructure structure = s;
    for (Tensor* tensor : structure.tensors()) *tensor = level.item(*tensor, i);
    Tensors items;
    for (const Operand& operand : operands) items.push_back(level.item(operand.tensor, i));
    const Tensors parts = product(structure, items);
    for (size_t k = 0; k < parts.size(); ++k) results[k].push_back(parts[k]);
  }
  const Tensor& first = operands.begin()->tensor;
  const auto options = first.options().dtype(dtype_in_product(first));
  Tensors stacked;
  for (size_t k = 0; k < expected.size(); ++k) {
    stacked.push_back(level.wrap(number > 0
                                     ? at::stack(results[k])
                                     : at::empty_symint(level.all(expected[k].size), options)));
  }
  return stacked;
}

// product(structure, operands) for each item. Where all have one structure, the items are heads.
template <class Structure, class Product>
Tensors multiply_items(const Level& level, const Structure& s,
                       std::initializer_list<Operand> operands, const std::vector<Result>& expected,
                       const Product& product) {
  if (level.has_structure(s)) return multiply_structures(level, s, operands, expected, product);
  int64_t heads = 0;
  for (const auto& [tensor, dense] : operands) {
    heads = std::max(heads, tensor.dim() - dims_of(s, dense));
  }
  Tensors all;
  for (const auto& [tensor, dense] : operands) {
    all.push_back(level.before_heads(tensor, dims_of(s, dense), heads));
  }
  Tensors results = product(s, all);
  for (size_t i = 0; i < results.size(); ++i) {
    results[i] = level.wrap(results[i].reshape_symint(level.all(expected[i].size)));
  }
  return results;
}

// Columns up to which the items of B are put side by side, which costs a copy of B in place of the
// indices for each item. Wider rows of all items together would leave the cache.
constexpr int64_t kWidest = 32;

struct Vmap {
  template <class Structure>
  static Tensor run(Mm, c10::DispatchKeySet, const Structure& s, const Tensor& values,
                    const Tensor& B) {
    check_mm(s, values, B, Checks::shapes);
    return multiply<Mm>(s, values, B, s.rows());
  }

  template <class Structure>
  static Tensor run(MmTransposed, c10::DispatchKeySet, const Structure& s, const Tensor& values,
                    const Tensor& B) {
    check_mm_transposed(s, values, B, Checks::shapes);
    return multiply<MmTransposed>(s, values, B, s.columns());
  }

  template <class Structure>
  static Tensor run(Sddmm, c10::DispatchKeySet, const Structure& s, const Tensor& X,
                    const Tensor& Y) {
    check_sddmm(s, X, Y, Checks::shapes);
    const Level level;
    return multiply_items(
        level, s, {{X, true}, {Y, true}},
        {{concatenate(dense_heads(s, X, Y), s.values_size()), /*dense=*/false}},
        [](const auto& a, const Tensors& x) { return Tensors{call<Sddmm>(a, x[0], x[1])}; })[0];
  }

  template <class Structure>
  static std::tuple<Tensor, Tensor> run(MmBackward, c10::DispatchKeySet, const Structure& s,
                                        const Tensor& values, const Tensor& B, const Tensor& grad) {
    check_mm_backward(s, values, B, grad, Checks::shapes);
    const Level level;
    const Tensors gradients = multiply_items(
        level, s, {{values, false}, {B, true}, {grad, true}},
        {{values.sym_sizes().vec(), /*dense=*/false}, {B.sym_sizes().vec(), /*dense=*/true}},
        [](const auto& a, const Tensors& x) {
          auto [grad_values, grad_B] = call<MmBackward>(a, x[0], x[1], x[2]);
          return Tensors{std::move(grad_values), std::move(grad_B)};
        });
    return {gradients[0], gradients[1]};
  }

  template <class Structure>
  static std::tuple<Tensor, Tensor> run(MmExtremum, c10::DispatchKeySet, const Structure& s,
                                        const Tensor& values, const Tensor& B, bool greatest) {
    check_mm_extremum(s, values, B, Checks::shapes);
    const Size size = product_size(s, values, B, s.rows());
    const auto find = [&](const auto& a, const Tensors& x) {
      auto [extrema, winners] = call<MmExtremum>(a, x[0], x[1], greatest);
      return Tensors{std::move(extrema), std::move(winners)};
    };
    const Tensors results = [&] {
      const Level level;
      return multiply_items(level, s, {{values, false}, {B, true}},
                            {{size, /*dense=*/true}, {size, /*dense=*/true}}, find);
    }();
    return {results[0], results[1].to(at::kInt)};  // those of no items have another dtype
  }

  template <class Structure>
  static Tensor run(SelectedMm, c10::DispatchKeySet, const Structure& s, const Tensor& values,
                    const Tensor& B, const Tensor& winners) {
    check_selected_mm(s, values, B, winners, Checks::shapes);
    return select<SelectedMm>(s, values, B, winners,
                              selected_size(s, values, B, winners, s.rows()));
  }

  template <class Structure>
  static Tensor run(SelectedMmTransposed, c10::DispatchKeySet, const Structure& s,
                    const Tensor& values, const Tensor& B, const Tensor& winners) {
    check_selected_mm_transposed(s, values, B, winners, Checks::shapes);
    return select<SelectedMmTransposed>(s, values, B, winners,
                                        selected_size(s, values, B, winners, s.columns()));
  }

  template <class Structure>
  static Tensor run(SelectedSddmm, c10::DispatchKeySet, const Structure& s, const Tensor& X,
                    const Tensor& Y, const Tensor& winners) {
    check_selected_sddmm(s, X, Y, winners, Checks::shapes);
    return select<SelectedSddmm>(s, X, Y, winners, selected_values_size(s, X, Y, winners));
  }

  static std::tuple<Tensor, Tensor> run(PinvMm, c10::DispatchKeySet, const PatternStructure& s,
                                        const Tensor& values, const Tensor& B, double tolerance,
                                        int64_t most_iterations, int64_t gram,
                                        at::TensorList factor) {
    check_pinv_mm(s, values, B, tolerance, most_iterations, gram, factor, Checks::shapes);
    const Level level;
    const auto solve = [&](const PatternStructure& structure, const Tensor& v, const Tensor& b) {
      return call<PinvMm>(structure, v, b, tolerance, most_iterations, gram, factor);
    };
    if (!level.has_structure(s) && !level.has(values)) {
      Tensor reports;
      const Tensor x = level.widen(B, [&](const Tensor& wide) {
        auto [solution, of_all] = solve(s, values, wide);
        reports = of_all.unflatten_symint(2, {level.items(), B.sym_size(-1)});
        return solution;
      });
      return {x, level.wrap(reports, 2)};
    }
    // A solve takes longer than a loop does.
    const Size size = dense_size(s, s.columns(), B.sym_size(-1));
    const int64_t count = level.items().guard_int(__FILE__, __LINE__);
    if (count == 0) {
      return {level.wrap(at::empty_symint(level.all(size), B.options())),
              level.wrap(
                  at::empty_symint(level.all(reports_size(s, B)), B.options().dtype(at::kDouble)))};
    }
    Tensors solutions;
    Tensors reports;
    for (int64_t i = 0; i < count; ++i) {
      PatternStructure structure = s;
      for (Tensor* tensor : structure.tensors()) *tensor = level.item(*tensor, i);
      auto [solution, report] = solve(structure, level.item(values, i), level.item(B, i));
      solutions.push_back(std::move(solution));
      reports.push_back(std::move(report));
    }
    return {level.wrap(at::stack(solutions)), level.wrap(at::stack(reports))};
  }

 private:
  // A product of winners, whose result has this size for one item.
  template <class Product, class Structure>
  static Tensor select(const Structure& s, const Tensor& first, const Tensor& second,
                       const Tensor& winners, const Size& size) {
    constexpr bool of_entries = std::is_same_v<Product, SelectedSddmm>;
    const Level level;
    return multiply_items(level, s, {{first, of_entries}, {second, true}, {winners, true}},
                          {{size, /*dense=*/!of_entries}}, [](const auto& a, const Tensors& x) {
                            return Tensors{call<Product>(a, x[0], x[1], x[2])};
                          })[0];
  }

  // A product of values and B with `rows` rows.
  template <class Product, class Structure>
  static Tensor multiply(const Structure& s, const Tensor& values, const Tensor& B,
                         const SymInt& rows) {
    const Level level;
    if (!level.has_structure(s) && !level.has(values) && leading(B, dense_dims(s)).empty() &&
        B.sym_size(-1) <= kWidest) {
      return level.widen(B, [&](const Tensor& wide) { return call<Product>(s, values, wide); });
    }
    return multiply_items(
        level, s, {{values, false}, {B, true}},
        {{product_size(s, values, B, rows), /*dense=*/true}},
        [](const auto& a, const Tensors& x) { return Tensors{call<Product>(a, x[0], x[1])}; })[0];
  }
};

// PyTorch has no vmap over CSR tensors. One over COO matrices is a batch already.
Tensor sparse_mm_reduce_of_items(const Tensor& A, const Tensor& B, std::string_view reduce) {
  if (!at::functorch::isBatchedAtLevel(A, current_layer().layerId())) {
    return sparse_mm_reduce_composite(A, B, reduce);
  }
  TORCH_CHECK_VALUE(A.dim() == 2, "under vmap, A must be one sparse matrix (n, m) for each item, ",
                    "but received shape ", A.sym_sizes());
  const Level level;
  return level.wrap(spgrad::sparse_mm(level.in_front(A), level.in_front(B), reduce));
}

Tensor sparse_mm_of_items(const Tensor& A, const Tensor& B) {
  return sparse_mm_reduce_of_items(A, B, "sum");
}

// The same of the sampled product, whose result is one of the batch, too.
Tensor sddmm_of_items(const Tensor& A, const Tensor& X, const Tensor& Y) {
  const int64_t number = current_layer().layerId();
  const auto differs = [&](const Tensor& x) { return at::functorch::isBatchedAtLevel(x, number); };
  if (!differs(A) && !differs(X) && !differs(Y)) return sddmm_composite(A, X, Y);
  TORCH_CHECK_VALUE(differs(A) && A.dim() == 2 && X.dim() == 2 && Y.dim() == 2,
                    "under vmap, A must be one sparse matrix (n, m), and X and Y one dense matrix, "
                    "for each item, but received ",
                    differs(A) ? "" : "one A for all of them and ", "shapes ", A.sym_sizes(), ", ",
                    X.sym_sizes(), " and ", Y.sym_sizes(),
                    "; csr_sddmm and coo_sddmm take one structure for all");
  const Level level;
  return level.wrap(spgrad::sddmm(level.in_front(A), level.in_front(X), level.in_front(Y)));
}

TORCH_LIBRARY_IMPL(spgrad, FuncTorchBatched, m) {
  register_products<Vmap>(m);
  register_extrema<Vmap>(m);
  register_pinv<Vmap>(m);
  m.impl("sparse_mm", sparse_mm_of_items);
  m.impl("sparse_mm_reduce", sparse_mm_reduce_of_items);
  m.impl("sddmm", sddmm_of_items);
}

}  // namespace
}  // namespace spgrad
