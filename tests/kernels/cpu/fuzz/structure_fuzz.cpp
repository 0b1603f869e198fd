// The functions on structures, called as the operators call them, on structures that the fuzzer
// spoils: before the first call, and between the two steps of the sort, as another thread might.
#include <set>

#include "../structures.h"
#include "spoil.h"

namespace spgrad::kernels::test {
namespace {

bool inside(int64_t index, int64_t bound) { return index >= 0 && index < bound; }

template <class Index>
bool all_inside(const std::vector<Index>& indices, int64_t bound) {
  return std::all_of(indices.begin(), indices.end(),
                     [&](Index index) { return inside(index, bound); });
}

struct Sizes {
  explicit Sizes(FuzzedDataProvider& data)
      : items(data.ConsumeIntegralInRange(1, 3)),
        rows(data.ConsumeIntegralInRange(0, 40)),
        columns(data.ConsumeIntegralInRange(0, 20)),
        // More than compress_rows takes at once, now and then.
        entries(data.ConsumeIntegralInRange(0, data.PickValueInArray({10, 100, 1500}))) {}

  int64_t items, rows, columns, entries;
};

template <class Index>
Sparse<Index, Index> make_csr(const Sizes& sizes, std::mt19937_64& random) {
  const int64_t rows = std::max<int64_t>(sizes.rows, 1);
  return make_sparse<Index, Index>(sizes.items, rows, std::max<int64_t>(sizes.columns, 1),
                                   random_lengths(sizes.items, rows, sizes.entries, random),
                                   random);
}

// A CSR batch to check, and to sort by column.
template <class Index_>
class Csr {
 public:
  using Index = Index_;

  Csr(FuzzedDataProvider& data, std::mt19937_64& random) : Csr(Sizes(data), random) {
    for (int i = data.ConsumeIntegralInRange(0, 2); i > 0; --i) spoil(data);
  }

  void spoil(FuzzedDataProvider& data) {
    if (a_.entry.empty() || data.ConsumeBool()) {
      any_of(data, a_.offsets) = any_index<Index>(data, view().entries + 1);
    } else {
      any_of(data, a_.entry) = any_index<Index>(data, view().columns);
    }
  }

  const CompressedView<Index, Index>& view() const { return a_.view; }
  int64_t keys() const { return view().items * view().columns; }
  int64_t entries() const { return view().items * view().entries; }
  bool keys_are_inside() const { return all_inside(a_.entry, view().columns); }
  bool indices_are_inside() const { return keys_are_inside(); }
  bool is_sound() const { return keys_are_inside() && offsets_are_sound(); }

  std::vector<Expected> expected() const {
    std::vector<Expected> expected;
    for_each_row([&](int64_t item, int64_t row, int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t position = item * view().entries + k;
        expected.push_back({item * view().columns + view().entry[position], row, position});
      }
    });
    return expected;
  }

  void check(const std::vector<int64_t>&) const {
    const OffsetsSummary summary = scan_offsets(view());
    ASSERT_EQ(summary.valid, offsets_are_sound());
    if (!summary.valid) return;
    int64_t longest = 0;
    for_each_row([&](int64_t, int64_t, int64_t begin, int64_t end) {
      longest = std::max(longest, end - begin);
    });
    ASSERT_EQ(summary.longest_row, longest);
  }

 private:
  Csr(const Sizes& sizes, std::mt19937_64& random) : a_(make_csr<Index>(sizes, random)) {
    a_.offsets.shrink_to_fit();
    a_.entry.shrink_to_fit();
    a_.view.columns = sizes.columns;
    a_.view.offsets = a_.offsets.data();
    a_.view.entry = a_.entry.data();
  }

  template <class Function>
  void for_each_row(const Function& function) const {
    for (int64_t item = 0; item < view().items; ++item) {
      const Index* offsets = view().offsets + item * view().offsets_stride;
      for (int64_t row = 0; row < view().rows; ++row) {
        function(item, row, int64_t{offsets[row]}, int64_t{offsets[row + 1]});
      }
    }
  }

  bool offsets_are_sound() const {
    for (int64_t item = 0; item < view().items; ++item) {
      const Index* offsets = view().offsets + item * view().offsets_stride;
      if (offsets[0] != 0 || offsets[view().rows] != view().entries) return false;
      if (!std::is_sorted(offsets, offsets + view().rows + 1)) return false;
    }
    return true;
  }

  Sparse<Index, Index> a_;
};

// Coordinates to compress, or to sort by row.
template <class Index_>
class Coo {
 public:
  using Index = Index_;

  Coo(FuzzedDataProvider& data, std::mt19937_64& random)
      : Coo(Sizes(data), data.ConsumeBool(), random) {
    for (int i = data.ConsumeIntegralInRange(0, 2); i > 0; --i) spoil(data);
  }

  void spoil(FuzzedDataProvider& data) {
    if (entries() == 0) return;
    const auto [indices, bound] =
        data.PickValueInArray({std::pair(&a_.item, view().items), std::pair(&a_.row, view().rows),
                               std::pair(&a_.column, view().columns)});
    any_of(data, *indices) = any_index<Index>(data, bound);
  }

  const CoordinateView<Index>& view() const { return a_.view; }
  int64_t keys() const { return view().items * view().rows; }
  int64_t entries() const { return view().entries; }
  bool keys_are_inside() const {
    return all_inside(a_.row, view().rows) &&
           (view().item == nullptr || all_inside(a_.item, view().items));
  }
  bool indices_are_inside() const {
    return keys_are_inside() && all_inside(a_.column, view().columns);
  }
  bool is_sound() const { return indices_are_inside(); }

  std::vector<Expected> expected() const {
    std::vector<Expected> expected;
    for (int64_t k = 0; k < entries(); ++k) {
      const int64_t item = view().item == nullptr ? 0 : view().item[k];
      expected.push_back({item * view().rows + view().row[k], view().column[k], k});
    }
    return expected;
  }

  void check(const std::vector<int64_t>& cuts) const {
    std::vector<Index> offsets(static_cast<size_t>(keys() + 1), -7);
    std::set<RowOrder> seen;
    for (size_t i = 1; i < cuts.size(); ++i) {
      seen.insert(compress_rows(view(), cuts[i - 1], cuts[i], offsets.data()));
    }
    if (!keys_are_inside()) {
      ASSERT_NE(seen, std::set{RowOrder::sorted});
      return;
    }
    std::vector<int64_t> keys_of_entries;
    for (const Expected& e : expected()) keys_of_entries.push_back(e.key);
    const auto begin = keys_of_entries.begin();
    const auto end = keys_of_entries.end();
    const bool sorted = std::is_sorted(begin, end);
    ASSERT_EQ(seen.contains(RowOrder::unsorted), !sorted);
    ASSERT_FALSE(seen.contains(RowOrder::out_of_range));
    for (int64_t row = 0; sorted && row <= keys(); ++row) {
      ASSERT_EQ(offsets[static_cast<size_t>(row)], std::lower_bound(begin, end, row) - begin);
    }
  }

 private:
  Coo(const Sizes& sizes, bool sorted, std::mt19937_64& random)
      : a_(sizes.items, sizes.rows, sizes.columns, make_elements(sizes, sorted, random)) {}

  static std::vector<Element> make_elements(const Sizes& sizes, bool sorted,
                                            std::mt19937_64& random) {
    auto elements = make_csr<Index>(sizes, random).elements;
    if (!sorted) std::shuffle(elements.begin(), elements.end(), random);
    return elements;
  }

  Coordinates<Index> a_;
};

// The three steps of the counting sort of what is in `a`.
template <class Counter, class Source>
void run_sort(FuzzedDataProvider& data, Source& a, const std::vector<int64_t>& cuts) {
  CountingSort<Counter> sort(a.keys(), cuts, data.PickValueInArray({Side::front, Side::back}));
  const bool counted = sort.count(a.view());
  ASSERT_EQ(counted, a.keys_are_inside());
  if (!counted) return;
  sort.place();
  const bool changes = data.ConsumeBool();
  if (changes) a.spoil(data);
  const bool moved = sort.move(a.view());
  if (!a.indices_are_inside()) {
    ASSERT_FALSE(moved);
  } else if (!changes && a.is_sound()) {
    ASSERT_TRUE(moved);
    expect_sorted(sort, a.expected());
  }
}

template <class Source, class Counter>
void run(FuzzedDataProvider& data) {
  std::mt19937_64 random(data.ConsumeIntegral<uint16_t>());
  Source a(data, random);
  std::vector<int64_t> cuts{0, data.ConsumeIntegralInRange<int64_t>(0, a.entries()),
                            data.ConsumeIntegralInRange<int64_t>(0, a.entries()), a.entries()};
  std::sort(cuts.begin(), cuts.end());
  ASSERT_NO_FATAL_FAILURE(a.check(cuts));
  run_sort<Counter>(data, a, cuts);
}

}  // namespace
}  // namespace spgrad::kernels::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  using namespace spgrad::kernels::test;
  FuzzedDataProvider data(bytes, size);
  const auto run_any = data.PickValueInArray(
      {&run<Csr<int32_t>, int32_t>, &run<Csr<int32_t>, int64_t>, &run<Csr<int64_t>, int32_t>,
       &run<Csr<int64_t>, int64_t>, &run<Coo<int32_t>, int32_t>, &run<Coo<int32_t>, int64_t>,
       &run<Coo<int64_t>, int32_t>, &run<Coo<int64_t>, int64_t>});
  run_any(data);
  return 0;
}
