// Products of structures that the fuzzer spoils. Plain loops say whether a structure is within its
// bounds: if so, the result must be theirs, and if not, the kernel must refuse it. All arrays are
// on the heap and as long as the views say, so that the address sanitizer sees any step outside.
#include <optional>
#include <set>

#include "../gradients.h"
#include "spoil.h"

namespace spgrad::kernels::test {
namespace {

// The largest p * rows and p * entries. The reference takes up to 0.1 ms for them.
constexpr int64_t kMostWork = 1024;

// Appends the entries [begin, end) of a row as plain loops read them; false where the offsets or
// one of the entries are out of bounds.
template <class Index, class Entry>
bool append_elements(const CompressedView<Index, Entry>& a, int64_t row_of_batch, int64_t begin,
                     int64_t end, std::vector<Element>& elements) {
  if (begin < 0 || end < begin || end > a.entries) return false;
  const int64_t item = row_of_batch / a.rows;
  for (int64_t k = item * a.entries_stride + begin; k < item * a.entries_stride + end; ++k) {
    Element element{.item = item, .row = row_of_batch % a.rows, .column = 0, .position = k};
    if constexpr (std::is_same_v<Index, Entry>) {
      element.column = a.entry[k];
    } else {
      element.column = a.entry[k].index;
      element.position = a.entry[k].position;
    }
    if (element.column < 0 || element.column >= a.columns || element.position < 0 ||
        element.position >= a.value_count) {
      return false;
    }
    elements.push_back(element);
  }
  return true;
}

// The elements of the rows [first, last), or nothing where they are malformed.
template <class Index, class Entry>
std::optional<std::vector<Element>> read_rows(const CompressedView<Index, Entry>& a, int64_t first,
                                              int64_t last) {
  std::vector<Element> elements;
  for (int64_t row = first; row < last; ++row) {
    const Index* offsets = a.offsets + row / a.rows * a.offsets_stride + row % a.rows;
    if (!append_elements(a, row, offsets[0], offsets[1], elements)) return {};
  }
  return elements;
}

bool positions_repeat(const std::vector<Element>& elements) {
  std::set<int64_t> positions;
  for (const Element& e : elements) positions.insert(e.position);
  return positions.size() < elements.size();
}

Layout any_layout(FuzzedDataProvider& data) {
  return {.before = data.ConsumeIntegralInRange(0, 1),
          .padding = data.ConsumeIntegralInRange(0, 2),
          .expanded_items = false,
          .reversed_items = data.ConsumeBool()};
}

// A sound batch, of which the fuzzer then changes up to three numbers.
template <class Index, class Entry>
Sparse<Index, Entry> any_sparse(FuzzedDataProvider& data, int64_t p, std::mt19937_64& random) {
  const auto most = kMostWork / (p + 1);
  const auto items = data.ConsumeIntegralInRange<int64_t>(1, 3);
  const auto rows = data.ConsumeIntegralInRange<int64_t>(1, std::min<int64_t>(most, 40));
  const auto columns = data.ConsumeIntegralInRange<int64_t>(0, 20);
  const auto entries = data.ConsumeIntegralInRange<int64_t>(0, std::min<int64_t>(most, 120));
  auto a = make_sparse<Index, Entry>(items, rows, std::max<int64_t>(columns, 1),
                                     random_lengths(items, rows, entries, random), random,
                                     data.ConsumeBool());
  const auto changes = data.ConsumeIntegralInRange(0, 3);
  for (int i = 0; i < changes; ++i) {
    if (a.entry.empty() || data.ConsumeBool()) {
      any_of(data, a.offsets) = any_index<Index>(data, a.view.entries + 1);
    } else if constexpr (std::is_same_v<Index, Entry>) {
      any_of(data, a.entry) = any_index<Index>(data, columns);
    } else if (data.ConsumeBool()) {
      any_of(data, a.entry).index = any_index<Index>(data, columns);
    } else {
      any_of(data, a.entry).position = any_index<Index>(data, a.view.value_count);
    }
  }
  a.offsets.shrink_to_fit();
  a.entry.shrink_to_fit();
  a.view.columns = columns;
  a.view.offsets = a.offsets.data();
  a.view.entry = a.entry.data();
  return a;
}

template <class Product>
void run_rows(FuzzedDataProvider& data, Sparse<typename Product::Index, typename Product::Entry>& a,
              Problem<Product>& problem) {
  const auto [first, last] = std::minmax({data.ConsumeIntegralInRange<int64_t>(0, a.all_rows()),
                                          data.ConsumeIntegralInRange<int64_t>(0, a.all_rows())});
  // Without columns, the kernels read nothing.
  const auto elements = problem.p == 0 ? std::vector<Element>() : read_rows(a.view, first, last);
  const Status status = problem.status(first, last);
  ASSERT_EQ(status == Status::done, elements.has_value());
  ASSERT_NE(status, Status::long_rows);
  // What is written for entries whose positions repeat is unspecified.
  if (!elements || (Product::has_products && positions_repeat(*elements))) return;
  a.elements = *elements;
  problem.expect_rows(first, last);
}

template <class Product>
void run_block(FuzzedDataProvider& data,
               const Sparse<typename Product::Index, typename Product::Entry>& a,
               Problem<Product>& problem) {
  using Index = typename Product::Index;
  using Partial = Accumulator<typename Product::Scalar>;
  const RowBlock block{.row = data.ConsumeIntegralInRange<int64_t>(0, a.all_rows() - 1),
                       .first_entry = any_index<Index>(data, a.view.entries + 1),
                       .last_entry = any_index<Index>(data, a.view.entries + 1)};
  std::vector<Element> elements;
  const bool sound =
      append_elements(a.view, block.row, block.first_entry, block.last_entry, elements);
  std::vector<Partial> sum(static_cast<size_t>(problem.p));
  ASSERT_EQ(problem.run_block(block, sum.data()), sound);
  if (!sound || (Product::has_products && positions_repeat(elements))) return;
  problem.expect_products(elements);
  ASSERT_EQ(problem.written_products(), Product::has_products ? std::ssize(elements) : 0);
  for (int64_t j = 0; j < problem.p && Product::has_sums; ++j) {
    ASSERT_TRUE(problem.sum(elements, j).is(sum[static_cast<size_t>(j)])) << "column " << j;
  }
}

template <class Product>
void run_product(FuzzedDataProvider& data) {
  std::mt19937_64 random(data.ConsumeIntegral<uint16_t>());
  const auto p = data.ConsumeIntegralInRange<int64_t>(0, 300);
  auto a = any_sparse<typename Product::Index, typename Product::Entry>(data, p, random);
  Layout read = any_layout(data);
  read.expanded_rows = data.ConsumeBool();
  read.expanded_items = data.ConsumeBool();
  Problem<Product> problem(a, p, random, read, any_layout(data));
  if (p > 0 && data.ConsumeBool()) {
    run_block(data, a, problem);
  } else {
    run_rows(data, a, problem);
  }
}

template <class T>
void run_by_rows(FuzzedDataProvider& data) {
  std::mt19937_64 random(data.ConsumeIntegral<uint16_t>());
  constexpr int64_t most = kMostBytesByRows / sizeof(Accumulator<typename T::Scalar>);
  const auto p = data.ConsumeIntegralInRange<int64_t>(1, most);
  auto a = any_sparse<typename T::Index, typename T::Index>(data, p, random);
  Layout read = any_layout(data);
  read.expanded_rows = data.ConsumeBool();
  read.expanded_items = data.ConsumeBool();
  Gradients<T> gradients(a, p, random, read, any_layout(data));
  const auto elements = read_rows(a.view, 0, a.all_rows());
  const bool enough = data.ConsumeBool();
  if (!enough) gradients.workspace.resize(data.ConsumeIntegralInRange<size_t>(0, 40));
  gradients.workspace.shrink_to_fit();
  const bool done = gradients.run(data.ConsumeIntegralInRange<int64_t>(1, 8));
  if (!elements) ASSERT_FALSE(done);
  if (!elements || !done) {
    ASSERT_FALSE(elements && enough);
    return;
  }
  a.elements = *elements;
  gradients.expect_right();
}

using Run = void (*)(FuzzedDataProvider&);

template <class Scalar, class Index>
constexpr Run kProducts[] = {&run_product<Spmm<Types<Scalar, Index, Index>>>,
                             &run_product<Spmm<Types<Scalar, Index, MovedEntry<Index>>>>,
                             &run_product<Sddmm<Types<Scalar, Index, Index>>>,
                             &run_product<Sddmm<Types<Scalar, Index, MovedEntry<Index>>>>,
                             &run_product<Backward<Types<Scalar, Index, MovedEntry<Index>>>>,
                             &run_by_rows<Types<Scalar, Index, Index>>};

template <class Scalar>
void run_any_product(FuzzedDataProvider& data) {
  const Run run = data.ConsumeBool() ? data.PickValueInArray(kProducts<Scalar, int32_t>)
                                     : data.PickValueInArray(kProducts<Scalar, int64_t>);
  run(data);
}

}  // namespace
}  // namespace spgrad::kernels::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace spgrad::kernels;
  using namespace spgrad::kernels::test;
  FuzzedDataProvider data(bytes, size);
  static const auto instruction_sets = spgrad::instruction_sets();
  spgrad::use_instruction_set(any_of(data, instruction_sets));
  const Run run = data.PickValueInArray({&run_any_product<float>, &run_any_product<double>,
                                         &run_any_product<std::complex<float>>,
                                         &run_any_product<std::complex<double>>,
                                         &run_any_product<Float16>, &run_any_product<BFloat16>});
  run(data);
  return 0;
}
