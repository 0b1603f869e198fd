// The list of instruction sets, the choice among them, and the public kernels, which call it.
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <tuple>

#include "block_matrix.h"
#include "extremum_table.h"
#include "instantiate.h"
#include "iteration_table.h"
#include "kernel_table.h"
#include "spgrad/isa.h"

#if defined(SPGRAD_AVX2) || defined(SPGRAD_AVX512)
#include <cpuid.h>
#endif

namespace spgrad {
namespace kernels {

// What the files that CMake compiles for each instruction set define.
#define SPGRAD_DECLARE_TABLES(target)            \
  namespace target {                             \
  template <class Scalar>                        \
  const KernelTable<Scalar>& kernel_table();     \
  template <class Scalar>                        \
  const ExtremumTable<Scalar>& extremum_table(); \
  template <class Real>                          \
  const IterationTable<Real>& iteration_table(); \
  }
SPGRAD_DECLARE_TABLES(baseline)
#ifdef SPGRAD_AVX2
SPGRAD_DECLARE_TABLES(avx2)
#endif
#ifdef SPGRAD_AVX512
SPGRAD_DECLARE_TABLES(avx512)
#endif

}  // namespace kernels

namespace {

// All tables of an instruction set.
#define SPGRAD_TABLES(target)                                                                    \
  [] {                                                                                           \
    using namespace kernels::target;                                                             \
    using kernels::Float16, kernels::BFloat16;                                                   \
    return std::tie(                                                                             \
        kernel_table<float>(), kernel_table<double>(), kernel_table<std::complex<float>>(),      \
        kernel_table<std::complex<double>>(), kernel_table<Float16>(), kernel_table<BFloat16>(), \
        extremum_table<float>(), extremum_table<double>(), extremum_table<Float16>(),            \
        extremum_table<BFloat16>(), iteration_table<float>(), iteration_table<double>());        \
  }()
using Tables = decltype(SPGRAD_TABLES(baseline));

#if defined(SPGRAD_AVX2) || defined(SPGRAD_AVX512)
// What the compiler's own check does not know: Clang has no name for F16C, which AVX2 does not
// include where a hypervisor masks features one by one.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

struct Target {
  const char* name;
  bool supported;
  Tables tables;
};

// Best first, each with the features that CMakeLists.txt lets the compiler use. The compiler's CPU
// check also covers whether the system saves the wide registers.
const auto& targets() {
  static const Target list[] = {
#ifdef SPGRAD_AVX512
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(),
       SPGRAD_TABLES(avx512)},
#endif
#ifdef SPGRAD_AVX2
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(),
       SPGRAD_TABLES(avx2)},
#endif
      {"baseline", true, SPGRAD_TABLES(baseline)},
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
  std::abort();  // not reached: the last one is always supported
}

std::atomic<const Target*>& chosen_target() {
  static std::atomic<const Target*> target{&default_target()};
  return target;
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

namespace {

template <class Table>
const Table& table_in_use() {
  return std::get<const Table&>(chosen_target().load(std::memory_order_relaxed)->tables);
}

// Unsigned, as the difference of any two numbers may overflow.
bool is_one_block(const RowBlock& block) {
  return static_cast<uint64_t>(block.last_entry) - static_cast<uint64_t>(block.first_entry) <=
         static_cast<uint64_t>(kLongRow);
}

}  // namespace

template <class Scalar>
const KernelTable<Scalar>& kernel_table_in_use() {
  return table_in_use<KernelTable<Scalar>>();
}
template <class Scalar>
const ExtremumTable<Scalar>& extremum_table_in_use() {
  return table_in_use<ExtremumTable<Scalar>>();
}
template <class Real>
const IterationTable<Real>& iteration_table_in_use() {
  return table_in_use<IterationTable<Real>>();
}

// A KernelTable derives from the table of each pair of types.
template <class Scalar, class Index, class Entry>
Status spmm(const CompressedView<Index, Entry>& a, const Scalar* values, DenseView<const Scalar> x,
            DenseView<Scalar> out, int64_t p, int64_t first_row, int64_t last_row) {
  const ProductTable<Scalar, Index, Entry>& kernels = kernel_table_in_use<Scalar>();
  return kernels.spmm(a, values, x, {out, nullptr}, p, first_row, last_row);
}

template <class Scalar, class Index, class Entry>
Status spmm_block(const CompressedView<Index, Entry>& a, const Scalar* values,
                  DenseView<const Scalar> x, Accumulator<Scalar>* out, int64_t p, RowBlock block) {
  const ProductTable<Scalar, Index, Entry>& kernels = kernel_table_in_use<Scalar>();
  const BlockMatrix matrix(a, block);
  if (!is_one_block(block)) return Status::bad_offset;
  return kernels.spmm(matrix.view, values + matrix.first_value, matrix.whole(x), {{}, out}, p, 0,
                      1);
}

template <class Scalar, class Index, class Entry>
Status sddmm(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
             DenseView<const Scalar> y, Accumulator<Scalar>* out, int64_t p, int64_t first_row,
             int64_t last_row) {
  const ProductTable<Scalar, Index, Entry>& kernels = kernel_table_in_use<Scalar>();
  return kernels.sddmm(a, x, y, out, p, first_row, last_row);
}

template <class Scalar, class Index, class Entry>
Status sddmm_block(const CompressedView<Index, Entry>& a, DenseView<const Scalar> x,
                   DenseView<const Scalar> y, Accumulator<Scalar>* out, int64_t p, RowBlock block) {
  const ProductTable<Scalar, Index, Entry>& kernels = kernel_table_in_use<Scalar>();
  const BlockMatrix matrix(a, block);
  if (!is_one_block(block)) return Status::bad_offset;
  return kernels.sddmm(matrix.view, matrix.row_of(x), matrix.whole(y), out + matrix.first_value, p,
                       0, 1);
}

template <class Scalar, class Index>
Status backward(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
                DenseView<const Scalar> x, DenseView<const Scalar> y, DenseView<Scalar> out,
                Accumulator<Scalar>* out_values, int64_t p, int64_t first_row, int64_t last_row) {
  const BackwardTable<Scalar, Index>& kernels = kernel_table_in_use<Scalar>();
  return kernels.backward(a, values, x, y, {out, nullptr}, out_values, p, first_row, last_row);
}

template <class Scalar, class Index>
Status backward_block(const CompressedView<Index, MovedEntry<Index>>& a, const Scalar* values,
                      DenseView<const Scalar> x, DenseView<const Scalar> y,
                      Accumulator<Scalar>* out, Accumulator<Scalar>* out_values, int64_t p,
                      RowBlock block) {
  const BackwardTable<Scalar, Index>& kernels = kernel_table_in_use<Scalar>();
  const BlockMatrix matrix(a, block);
  if (!is_one_block(block)) return Status::bad_offset;
  return kernels.backward(matrix.view, values, matrix.whole(x), matrix.row_of(y), {{}, out},
                          out_values, p, 0, 1);
}

#define SPGRAD_INSTANTIATE_PRODUCT(Scalar, Index, Entry)                                           \
  template Status spmm(const CompressedView<Index, Entry>&, const Scalar*,                         \
                       DenseView<const Scalar>, DenseView<Scalar>, int64_t, int64_t, int64_t);     \
  template Status spmm_block(const CompressedView<Index, Entry>&, const Scalar*,                   \
                             DenseView<const Scalar>, Accumulator<Scalar>*, int64_t, RowBlock);    \
  template Status sddmm(const CompressedView<Index, Entry>&, DenseView<const Scalar>,              \
                        DenseView<const Scalar>, Accumulator<Scalar>*, int64_t, int64_t, int64_t); \
  template Status sddmm_block(const CompressedView<Index, Entry>&, DenseView<const Scalar>,        \
                              DenseView<const Scalar>, Accumulator<Scalar>*, int64_t, RowBlock);

#define SPGRAD_INSTANTIATE_INDEX(Scalar, Index)                                                  \
  SPGRAD_FOR_ENTRIES_OF(SPGRAD_INSTANTIATE_PRODUCT, Scalar, Index)                               \
  template Status backward(const CompressedView<Index, MovedEntry<Index>>&, const Scalar*,       \
                           DenseView<const Scalar>, DenseView<const Scalar>, DenseView<Scalar>,  \
                           Accumulator<Scalar>*, int64_t, int64_t, int64_t);                     \
  template Status backward_block(const CompressedView<Index, MovedEntry<Index>>&, const Scalar*, \
                                 DenseView<const Scalar>, DenseView<const Scalar>,               \
                                 Accumulator<Scalar>*, Accumulator<Scalar>*, int64_t, RowBlock);

#define SPGRAD_INSTANTIATE(Scalar)                           \
  template const KernelTable<Scalar>& kernel_table_in_use(); \
  SPGRAD_FOR_INDICES(SPGRAD_INSTANTIATE_INDEX, Scalar)
SPGRAD_FOR_SCALARS(SPGRAD_INSTANTIATE)

#define SPGRAD_INSTANTIATE_EXTREMA(Scalar) \
  template const ExtremumTable<Scalar>& extremum_table_in_use();
SPGRAD_FOR_REALS(SPGRAD_INSTANTIATE_EXTREMA)

template const IterationTable<float>& iteration_table_in_use();
template const IterationTable<double>& iteration_table_in_use();

}  // namespace kernels
}  // namespace spgrad
