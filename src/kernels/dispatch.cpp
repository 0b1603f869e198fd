// The list of instruction sets, the choice among them, and the public kernels that follow it.
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernel_table.h"
#include "spgrad/isa.h"

namespace spgrad {
namespace kernels {

namespace baseline {
extern const KernelTable kernel_table;
}
#ifdef SPGRAD_X86_TARGETS
namespace avx2 {
extern const KernelTable kernel_table;
}
namespace avx512 {
extern const KernelTable kernel_table;
}
#endif

}  // namespace kernels

namespace {

struct Target {
  const char* name;
  bool supported;
  const kernels::KernelTable* table;
};

// Best first. The compiler's CPU check also asks whether the system saves the wide registers.
const auto& targets() {
  static const Target list[] = {
#ifdef SPGRAD_X86_TARGETS
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"),
       &kernels::avx512::kernel_table},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
       &kernels::avx2::kernel_table},
#endif
      {"baseline", true, &kernels::baseline::kernel_table},
  };
  return list;
}

const Target& find_target(std::string_view name, const char* origin) {
  std::string choices;
  for (const Target& target : targets()) {
    if (!target.supported) continue;
    if (name == target.name) return target;
    choices += (choices.empty() ? "'" : ", '") + std::string(target.name) + "'";
  }
  throw std::invalid_argument(std::string(origin) + " must be one of " + choices +
                              " on this CPU, but received '" + std::string(name) + "'");
}

const Target& default_target() {
  const char* name = std::getenv("SPGRAD_INSTRUCTION_SET");
  if (name != nullptr && *name != '\0') return find_target(name, "SPGRAD_INSTRUCTION_SET");
  for (const Target& target : targets()) {
    if (target.supported) return target;
  }
  std::abort();  // the last one is always supported
}

std::atomic<const Target*>& chosen_target() {
  static std::atomic<const Target*> target{&default_target()};
  return target;
}

template <class Table>
const Table& table() {
  return *chosen_target().load(std::memory_order_relaxed)->table;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Target& target : targets()) {
    if (target.supported) names.emplace_back(target.name);
  }
  return names;
}

std::string instruction_set() { return chosen_target().load()->name; }

void use_instruction_set(std::string_view name) {
  chosen_target().store(&find_target(name, "instruction set"));
}

namespace kernels {

template <class Scalar, class Index, class Entry>
bool spmm(const CompressedView<Index, Entry>& a, const Scalar* values, DenseView<const Scalar> x,
          DenseView<Scalar> out, int64_t p, int64_t first_row, int64_t last_row) {
  return table<ProductTable<Scalar, Index, Entry>>().spmm(a, values, x, out, p, first_row,
                                                          last_row);
}

template <class Scalar, class Index, class Entry>
bool spmm_block(const CompressedView<Index, Entry>& a, const Scalar* values,
                DenseView<const Scalar> x, Scalar* out, int64_t p, RowBlock block) {
  return table<ProductTable<Scalar, Index, Entry>>().spmm_block(a, values, x, out, p, block);
}

template <class Scalar, class Index, class Entry>
bool sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
           DenseView<const Scalar> y, Scalar* out, int64_t p, int64_t first_row, int64_t last_row) {
  return table<ProductTable<Scalar, Index, Entry>>().sddmm(a, x, y, out, p, first_row, last_row);
}

template <class Scalar, class Index, class Entry>
bool sddmm_block(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
                 DenseView<const Scalar> y, Scalar* out, int64_t p, RowBlock block) {
  return table<ProductTable<Scalar, Index, Entry>>().sddmm_block(a, x, y, out, p, block);
}

template <class Scalar, class Index>
bool backward(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
              DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
              Scalar* out_values, int64_t p, int64_t first_row, int64_t last_row) {
  return table<BackwardTable<Scalar, Index>>().backward(a, values, x, y, out, out_values, p,
                                                        first_row, last_row);
}

template <class Scalar, class Index>
bool backward_block(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
                    DenseView<const Scalar> x, DenseView<const Scalar> y, Scalar* out,
                    Scalar* out_values, int64_t p, RowBlock block) {
  return table<BackwardTable<Scalar, Index>>().backward_block(a, values, x, y, out, out_values, p,
                                                              block);
}

#define SPGRAD_INSTANTIATE_PRODUCT(Scalar, Index, Entry)                                          \
  template bool spmm(const CompressedView<Index, Entry>&, const Scalar*, DenseView<const Scalar>, \
                     DenseView<Scalar>, int64_t, int64_t, int64_t);                               \
  template bool spmm_block(const CompressedView<Index, Entry>&, const Scalar*,                    \
                           DenseView<const Scalar>, Scalar*, int64_t, RowBlock);                  \
  template bool sddmm(const CompressedView<Index, Entry>&, DenseView<const Scalar>,               \
                      DenseView<const Scalar>, Scalar*, int64_t, int64_t, int64_t);               \
  template bool sddmm_block(const CompressedView<Index, Entry>&, DenseView<const Scalar>,         \
                            DenseView<const Scalar>, Scalar*, int64_t, RowBlock);

#define SPGRAD_INSTANTIATE(Scalar, Index)                                                          \
  SPGRAD_INSTANTIATE_PRODUCT(Scalar, Index, Index)                                                 \
  SPGRAD_INSTANTIATE_PRODUCT(Scalar, Index, MovedEntry<Index>)                                     \
  template bool backward(const CompressedView<Index, MovedEntry<Index>>&, const Scalar*,           \
                         DenseView<const Scalar>, DenseView<const Scalar>, DenseView<Scalar>,      \
                         Scalar*, int64_t, int64_t, int64_t);                                      \
  template bool backward_block(const CompressedView<Index, MovedEntry<Index>>&, const Scalar*,     \
                               DenseView<const Scalar>, DenseView<const Scalar>, Scalar*, Scalar*, \
                               int64_t, RowBlock);

SPGRAD_INSTANTIATE(float, int32_t)
SPGRAD_INSTANTIATE(float, int64_t)
SPGRAD_INSTANTIATE(double, int32_t)
SPGRAD_INSTANTIATE(double, int64_t)

}  // namespace kernels
}  // namespace spgrad
