// The operators on CUDA: views of operands, results, and the launches of the kernels.
//
// Nothing waits for the device. Where this device can run no kernels, the composite serves.
#include <ATen/OpMathType.h>
#include <ATen/ceil_div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>

#include "backend.h"
#include "check.h"
#include "composite/products.h"
#include "contiguous_columns.h"
#include "cuda/grouped.h"
#include "cuda/kernels.h"
#include "cuda/report.h"
#include "cuda/shapes.h"
#include "cuda/workspace.h"
#include "extent.h"
#include "heads.h"
#include "into.h"

namespace spgrad::cuda {
namespace {

using at::Tensor;

// Of CUDA: the greatest second dimension of a grid.
constexpr int64_t kMostColumnTiles = 65535;

Tensor empty(const Size& size, const Tensor& like) {
  return at::empty(C10_AS_INTARRAYREF_SLOW(size), like.options());
}

Operand operand_of(const Tensor& dense) {
  return {dense.const_data_ptr(), dense.dim() == 3 ? dense.stride(0) : 0, dense.stride(-2)};
}

// As many numbers as can be moved at once to or from each row of those that there are; the first
// is.
int64_t common_vector(int64_t p, std::initializer_list<const Tensor*> operands) {
  int64_t vector = widest_vector((*operands.begin())->scalar_type());
  const auto fits = [&](int64_t count) { return count % vector == 0; };
  const auto all_fit = [&] {
    if (!fits(p)) return false;
    for (const Tensor* operand : operands) {
      if (!operand->defined()) continue;
      const auto address = reinterpret_cast<uintptr_t>(operand->const_data_ptr());
      if (!fits(static_cast<int64_t>(address / operand->itemsize()))) return false;
      for (int64_t dim = 0; dim + 1 < operand->dim(); ++dim) {
        if (operand->size(dim) > 1 && !fits(operand->stride(dim))) return false;
      }
    }
    return true;
  };
  while (vector > 1 && !all_fit()) vector /= 2;
  return vector;
}

// Operands for all heads, as kernels want them.
template <class Structure>
Tensor dense_for_kernels(const Structure& s, const Tensor& dense, const Size& heads) {
  return with_contiguous_columns(with_heads(dense.resolve_conj(), dense_dims(s), heads));
}
template <class Structure>
Tensor values_for_kernels(const Structure& s, const Tensor& values, const Size& heads) {
  return with_heads(values.resolve_conj().contiguous(), values_dims(s), heads);
}

// Of a product, as kernels want them: `gathered` has a row for each index, `own` one for each row.
struct Operands {
  Tensor gathered;
  Tensor values, out;    // of sums
  Tensor own, products;  // of products
  bool conjugated = false;
  Tensor winners;  // where `out` gets extrema in place of sums
  bool greatest = false;
};

// Long rows are done in pieces. These are found once for all heads.
class LongRows {
 public:
  // With room for what pieces add up to, of as many columns as there are, and for their winners.
  LongRows(const Findings& findings, const GroupedEntries& a, const Operands& o)
      // Every piece but the last of a row has kLongRow entries, and a row that is cut has at least
      // two.
      : most_(std::min<int64_t>(a.view.entries / kLongRow * 2, std::numeric_limits<int>::max())),
        pieces_(memory_.reserve<Piece>(most_)),
        partial_sums_(memory_.reserve<char>(
            o.out.defined() ? most_ * o.gathered.size(-1) * bytes_of_sum(o.out) : 0)),
        partial_winners_(
            memory_.reserve<int>(o.winners.defined() ? most_ * o.gathered.size(-1) : 0)) {
    memory_.allocate(findings.device());
    const Find find = {a.view, findings.origin(), findings.status(), memory_[pieces_],
                       static_cast<unsigned>(most_)};
    const int64_t blocks = at::ceil_div<int64_t>(a.view.items * a.view.rows, kBlock);
    findings.launch("spgrad::cuda::find_pieces<" + name_of(a.index) + ">",
                    {static_cast<unsigned>(blocks), 1, kBlock}, &find);
  }

  int64_t most() const { return most_; }
  int* partial_winners() const { return memory_[partial_winners_]; }
  void give(Product& product) const {
    product.pieces = memory_[pieces_];
    product.most_pieces = static_cast<unsigned>(most_);
    product.partial_sums = memory_[partial_sums_];
  }

 private:
  static int64_t bytes_of_sum(const Tensor& sums) {
    return static_cast<int64_t>(c10::elementSize(at::toOpMathType(sums.scalar_type())));
  }

  int64_t most_;
  Workspace memory_;
  Workspace::Array<Piece> pieces_;
  Workspace::Array<char> partial_sums_;
  Workspace::Array<int> partial_winners_;
};

// Runs the kernel of a product.
void run_product(const Findings& findings, const GroupedEntries& a, const LongRows& long_rows,
                 const Operands& o) {
  const c10::Device device = findings.device();
  const int64_t p = o.gathered.size(-1);
  TORCH_CHECK_VALUE(p <= std::numeric_limits<int>::max(),
                    "columns of dense operands must be at most ", std::numeric_limits<int>::max(),
                    ", but received ", p);
  const bool sums = o.out.defined();
  const bool products = o.own.defined();
  Wanted wanted = {};
  wanted.dtype = o.gathered.scalar_type();
  wanted.index = a.index;
  wanted.moved = a.moved;
  wanted.sums = sums;
  wanted.products = products;
  wanted.vector = common_vector(p, {&o.gathered, &o.own, &o.out});
  wanted.p = p;
  wanted.extremum = o.winners.defined();
  wanted.far = a.view.columns * (o.gathered.stride(-2) / wanted.vector) + p >
               std::numeric_limits<uint32_t>::max();
  const Shape shape = shape_for(wanted);

  Product product = {};
  product.a = a.view;
  product.origin = findings.origin();
  product.status = findings.status();
  product.gathered = operand_of(o.gathered);
  product.p = static_cast<int>(p);
  product.conjugated = o.conjugated;
  if (sums) {
    product.values = o.values.const_data_ptr();
    product.sums = o.out.mutable_data_ptr();
  }
  Tensor numbers;
  if (products) {
    product.own = operand_of(o.own);
    numbers =
        o.products.scalar_type() == shape.out ? o.products : at::empty_like(o.products, shape.out);
    product.products = numbers.mutable_data_ptr();
  }

  long_rows.give(product);
  // Thread blocks that look for pieces cost nothing where there are none.
  const int64_t piece_blocks = std::min<int64_t>(
      at::ceil_div(long_rows.most(), kWarps * shape.groups), int64_t{multiprocessors(device)} * 2);
  product.piece_blocks = static_cast<unsigned>(piece_blocks);
  const int64_t rows = a.view.items * a.view.rows;
  const int64_t rows_of_block = rows_of_block_for(shape, rows, multiprocessors(device));
  product.rows_of_block = static_cast<unsigned>(rows_of_block);

  const int64_t column_tiles = products ? 1 : at::ceil_div(p, shape.columns);
  TORCH_CHECK_VALUE(column_tiles <= kMostColumnTiles, "columns of dense operands must be at most ",
                    kMostColumnTiles * shape.columns, " on ", c10::DeviceTypeName(kDeviceType),
                    ", but received ", p);
  const Grid grid = {static_cast<unsigned>(piece_blocks + at::ceil_div(rows, rows_of_block)),
                     static_cast<unsigned>(column_tiles), kBlock};
  if (wanted.extremum) {
    const Extremum extremum = {product, o.greatest, o.winners.mutable_data_ptr<int>(),
                               long_rows.partial_winners()};
    findings.launch(shape.kernel, grid, &extremum);
  } else {
    findings.launch(shape.kernel, grid, &product);
  }
  if (products && !numbers.is_same(o.products)) o.products.copy_(numbers);
}

// Runs the kernel for each head.
template <class Structure>
void run_heads(const Structure& s, const Findings& findings, const GroupedEntries& a,
               const Operands& o, const Size& heads) {
  const int64_t number = count(heads);
  const LongRows long_rows(findings, a, o);
  for (int64_t head = 0; head < number; ++head) {
    const auto of_head = [&](const Tensor& all, int64_t dims) {
      return all.defined() && all.dim() > dims ? all.select(0, head) : all;
    };
    const int64_t dims = dense_dims(s);
    run_product(findings, a, long_rows,
                {of_head(o.gathered, dims), of_head(o.values, values_dims(s)), of_head(o.out, dims),
                 of_head(o.own, dims), of_head(o.products, values_dims(s)), o.conjugated,
                 of_head(o.winners, dims), o.greatest});
  }
}

// Whether the kernels of a product have no rows to look at, no columns to do, no rows to gather, or
// no heads. Then nothing but the structure is left to look at.
bool is_empty(const Extent& by_row, int64_t p, const Size& heads) {
  return by_row.items == 0 || by_row.rows == 0 || by_row.columns == 0 || p == 0 ||
         count(heads) == 0;
}

// The results where that is so: NaN if something is wrong with the structure, else zeros.
template <class Structure>
void fill_empty(const Structure& s, const Findings& findings,
                std::initializer_list<Tensor> results) {
  check_all(s, findings);
  for (const Tensor& result : results) {
    result.zero_().masked_fill_(findings.poisoned(), std::numeric_limits<double>::quiet_NaN());
  }
}

struct Cuda {
  // What all products do before and after: the device, the report, the composite instead.
  template <class Operation, class Structure, class Compute, class... Operand>
  static auto with_device(const Structure& s, const Compute& compute, const Operand&... operands) {
    const c10::DeviceGuard guard(s.device());
    if (why_unavailable(s.device())) return composite<Operation>(s, operands...);
    raise_reported(s.device());
    check_room(s);
    if constexpr (std::is_void_v<typename Operation::Result>) {
      compute(Findings(s));
      finish_product(s.device());
    } else {
      auto result = compute(Findings(s));
      finish_product(s.device());
      return result;
    }
  }

  // The product with entries grouped by row (A) or by column (Aᵀ), of which `by_row` has the rows,
  // into contiguous memory.
  template <class Structure, class Group>
  static void multiply(const Structure& s, const Findings& findings, const Extent& by_row,
                       const Tensor& values, const Tensor& B, const Group& group,
                       const Tensor& out) {
    const Size heads = product_heads(s, values, B);
    if (is_empty(by_row, B.size(-1), heads)) return fill_empty(s, findings, {out});
    Operands o;
    o.values = values_for_kernels(s, values, heads);
    o.gathered = dense_for_kernels(s, B, heads);
    o.out = with_heads(out, dense_dims(s), heads);
    run_heads(s, findings, group(out), o, heads);
  }

  template <class Structure>
  static void multiply_by_row(const Structure& s, const Findings& findings, const Tensor& values,
                              const Tensor& B, const Tensor& out) {
    const auto group = [&](const Tensor& lent) { return group_by_row(s, findings, lent); };
    multiply(s, findings, Extent(s), values, B, group, out);
  }

  // X_i · Y_j at the entries, into a number for each.
  template <class Structure>
  static void sample(const Structure& s, const Findings& findings, const Tensor& X, const Tensor& Y,
                     const Size& heads, const Tensor& products) {
    if (is_empty(Extent(s), X.size(-1), heads)) return fill_empty(s, findings, {products});
    Operands o;
    o.own = dense_for_kernels(s, X, heads);
    o.gathered = dense_for_kernels(s, Y, heads);
    o.products = with_heads(products, values_dims(s), heads);
    run_heads(s, findings, group_by_row(s, findings), o, heads);
  }

  // Both gradients for each head, with entries grouped by column.
  template <class Structure>
  static void differentiate(const Structure& s, const Findings& findings, const GroupedEntries& a,
                            const Tensor& values, const Tensor& B, const Tensor& grad,
                            const Size& heads, const Tensor& grad_values, const Tensor& grad_B) {
    Operands o;
    o.values = values_for_kernels(s, values, heads);
    o.gathered = dense_for_kernels(s, grad, heads);
    o.own = dense_for_kernels(s, B, heads);
    o.conjugated = true;
    o.out = with_heads(grad_B, dense_dims(s), heads);
    o.products = with_heads(grad_values, values_dims(s), heads);
    run_heads(s, findings, a, o, heads);
  }

  template <class Structure>
  static Tensor run(Mm, c10::DispatchKeySet, const Structure& s, const Tensor& values,
                    const Tensor& B) {
    check_mm(s, values, B);
    const auto compute = [&](const Findings& findings) {
      const Tensor out = empty(product_size(s, values, B, s.rows()), B);
      multiply_by_row(s, findings, values, B, out);
      return out;
    };
    return with_device<Mm>(s, compute, values, B);
  }

  // In which order sums are added follows from the row alone, whatever the whole matrix is.
  static void run(MmInto, c10::DispatchKeySet, const PatternStructure& s, const Tensor& values,
                  const Tensor& B, at::IntArrayRef whole, int64_t first_column,
                  const std::optional<Tensor>& column_numbers, at::IntArrayRef runs,
                  const Tensor& C) {
    check_mm_into(s, values, B, whole, first_column, column_numbers, runs, C);
    const auto compute = [&](const Findings& findings) {
      if (runs.size() == 2 && C.is_contiguous()) {
        return multiply_by_row(s, findings, values, B, C.slice(0, runs[0], runs[1]));
      }
      const Tensor product = empty(product_size(s, values, B, s.rows()), B);
      multiply_by_row(s, findings, values, B, product);
      put_rows(product, runs, C);
    };
    with_device<MmInto>(s, compute, values, B, whole, first_column, column_numbers, runs, C);
  }

  template <class Structure>
  static Tensor run(MmTransposed, c10::DispatchKeySet, const Structure& s, const Tensor& values,
                    const Tensor& B) {
    check_mm_transposed(s, values, B);
    const auto compute = [&](const Findings& findings) {
      const Tensor out = empty(product_size(s, values, B, s.columns()), B);
      const auto group = [&](const Tensor& lent) { return group_by_column(s, findings, lent); };
      multiply(s, findings, Extent(s).transposed(), values, B, group, out);
      return out;
    };
    return with_device<MmTransposed>(s, compute, values, B);
  }

  template <class Structure>
  static Tensor run(Sddmm, c10::DispatchKeySet, const Structure& s, const Tensor& X,
                    const Tensor& Y) {
    check_sddmm(s, X, Y);
    const auto compute = [&](const Findings& findings) {
      const Size heads = dense_heads(s, X, Y);
      const Tensor products = empty(concatenate(heads, s.values_size()), X);
      sample(s, findings, X, Y, heads, products);
      return products;
    };
    return with_device<Sddmm>(s, compute, X, Y);
  }

  static void run(SddmmInto, c10::DispatchKeySet, const PatternStructure& s, const Tensor& X,
                  const Tensor& Y, const Tensor& products) {
    check_sddmm_into(s, X, Y, products);
    const auto compute = [&](const Findings& findings) { sample(s, findings, X, Y, {}, products); };
    with_device<SddmmInto>(s, compute, X, Y, products);
  }

  template <class Structure>
  static std::tuple<Tensor, Tensor> run(MmBackward, c10::DispatchKeySet, const Structure& s,
                                        const Tensor& values, const Tensor& B, const Tensor& grad) {
    check_mm_backward(s, values, B, grad);
    const auto compute = [&](const Findings& findings) -> std::tuple<Tensor, Tensor> {
      const Size heads = broadcast(product_heads(s, values, B), leading(grad, dense_dims(s)));
      if (is_empty(Extent(s), B.size(-1), heads)) {
        const Tensor grad_values = at::empty(values.sizes(), values.options());
        const Tensor grad_B = at::empty(B.sizes(), B.options());
        fill_empty(s, findings, {grad_values, grad_B});
        return {grad_values, grad_B};
      }
      const Tensor grad_B = empty(concatenate(heads, dense_size(s, s.columns(), B.size(-1))), B);
      const GroupedEntries a = group_by_column(s, findings, grad_B);
      const Tensor grad_values = empty(concatenate(heads, s.values_size()), B);
      differentiate(s, findings, a, values, B, grad, heads, grad_values, grad_B);
      return {sum_to_size(grad_values, values.sym_sizes()), sum_to_size(grad_B, B.sym_sizes())};
    };
    return with_device<MmBackward>(s, compute, values, B, grad);
  }

  static Tensor run(MmBackwardInto, c10::DispatchKeySet, const PatternStructure& s,
                    const Tensor& values, const Tensor& B, const Tensor& grad,
                    const Tensor& grad_values) {
    check_mm_backward_into(s, values, B, grad, grad_values);
    const auto compute = [&](const Findings& findings) {
      const Tensor grad_B = at::empty(B.sizes(), B.options());
      if (is_empty(Extent(s), B.size(-1), {})) {
        fill_empty(s, findings, {grad_values, grad_B});
      } else {
        const GroupedEntries a = group_by_column(s, findings, grad_B);
        differentiate(s, findings, a, values, B, grad, {}, grad_values, grad_B);
      }
      return grad_B;
    };
    return with_device<MmBackwardInto>(s, compute, values, B, grad, grad_values);
  }
};

// What has no kernels raises what products before it met, too, as every call does.
struct WithoutKernels {
  template <class Operation, class Structure, class... Operands>
  static typename Operation::Result run(Operation, c10::DispatchKeySet, const Structure& s,
                                        const Operands&... operands) {
    const c10::Device device = s.device();
    const c10::DeviceGuard guard(device);
    if (device.type() == kDeviceType && !why_unavailable(device)) {
      // The composite waits where it checks a structure, and would tell again what a product with
      // the same one has just met.
      if (std::is_same_v<Structure, PatternStructure> || is_capturing(device)) {
        raise_reported(device);
      } else {
        check(device);
      }
    }
    return composite<Operation>(s, operands...);
  }
};

// Of the products of winners, there are none.
struct Extrema : WithoutKernels {
  using WithoutKernels::run;

  template <class Structure>
  static std::tuple<Tensor, Tensor> run(MmExtremum, c10::DispatchKeySet, const Structure& s,
                                        const Tensor& values, const Tensor& B, bool greatest) {
    check_mm_extremum(s, values, B);
    const auto compute = [&](const Findings& findings) -> std::tuple<Tensor, Tensor> {
      const Size size = product_size(s, values, B, s.rows());
      const Tensor out = empty(size, B);
      const Tensor winners = at::empty(C10_AS_INTARRAYREF_SLOW(size), B.options().dtype(at::kInt));
      const Size heads = product_heads(s, values, B);
      if (is_empty(Extent(s), B.size(-1), heads)) {
        fill_empty(s, findings, {out});
        winners.fill_(-1);
        return {out, winners};
      }
      Operands o;
      o.values = values_for_kernels(s, values, heads);
      o.gathered = dense_for_kernels(s, B, heads);
      o.out = with_heads(out, dense_dims(s), heads);
      o.winners = with_heads(winners, dense_dims(s), heads);
      o.greatest = greatest;
      run_heads(s, findings, group_by_row(s, findings, out), o, heads);
      return {out, winners};
    };
    return Cuda::with_device<MmExtremum>(s, compute, values, B, greatest);
  }
};

void register_all(torch::Library& m) {
  register_products<Cuda>(m);
  register_into<Cuda>(m);
  register_extrema<Extrema>(m);
  register_indices<WithoutKernels>(m);
}

#ifdef SPGRAD_CUDA_EMULATION
TORCH_LIBRARY_IMPL(spgrad, CPU, m) { register_all(m); }
#else
TORCH_LIBRARY_IMPL(spgrad, CUDA, m) { register_all(m); }
#endif

}  // namespace
}  // namespace spgrad::cuda
