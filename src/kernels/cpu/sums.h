// The sums over the entries of a row: spmm and backward make them alike, bit for bit.
#pragma once

#include "kernel_table.h"
#include "rows.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Sums that take turns over the entries of a row. An FMA takes 4 cycles and 2 start in each, so few
// vectors need several sums at once. A partial tile has as many as the two narrower vectors that do
// the same columns where rows are not packed, so that bits agree.
template <class TileType>
inline constexpr int kSums = TileType::count > 2                        ? 1
                             : TileType::count > 1 || TileType::partial ? 2
                                                                        : 4;

// Results of so many bytes are written past the caches. Through the caches, each line would be read
// before it is overwritten, and would be gone before anybody reads the result. Smaller results stay
// in the cache for whoever reads them next.
inline constexpr int64_t kLeastStreamed = int64_t{32} << 20;

// A row of results, and how it is written.
template <class Element>
struct RowOfResults {
  Element* elements;
  Accumulator<Element>* sums;  // where it goes without rounding, or null
  bool streamed;
};

// The rows of the results, as elements.
template <class Scalar>
class RowsOfResults {
 public:
  // `rows` counts those of all items.
  RowsOfResults(int64_t rows, const Results<Scalar>& results, int64_t columns)
      : rows_(elements_of(results.rows)), sums_(elements_of(results.sums)) {
    if constexpr (kKeepsSums<Element<Scalar>>) {
      if (sums_ != nullptr) rows_ = {sums_, 0, 0};
    }
    streamed_ = worth_streaming(rows, columns);
  }

  RowOfResults<Element<Scalar>> row(int64_t item, int64_t row) const {
    return {rows_.data + item * rows_.item_stride + row * rows_.row_stride, sums_, streamed_};
  }

  // After the last row: from now on, other threads may read the results.
  void finish() const {
    if (streamed_) fence_streams();
  }

 private:
  // Whether rows are aligned for writes past the caches, and so many that it pays.
  bool worth_streaming(int64_t rows, int64_t columns) const {
    constexpr uint64_t width = kWidth<Element<Scalar>>;
    constexpr int64_t size = sizeof(Element<Scalar>);
    if constexpr (kCanStream<width * size>) {
      const auto misaligned = [](int64_t elements) {
        return static_cast<uint64_t>(elements) % width != 0;
      };
      return columns > 0 && !misaligned(columns) && !misaligned(rows_.row_stride) &&
             !misaligned(rows_.item_stride) &&
             reinterpret_cast<uint64_t>(rows_.data) % (width * size) == 0 &&
             rows >= kLeastStreamed / size / columns;
    } else {
      return false;
    }
  }

  DenseView<Element<Scalar>> rows_;
  Lane<Scalar>* sums_;
  bool streamed_;
};

// Adds the sums of a row up, to those of its parts that were done before, and stores them. A
// complete row goes past the caches where that pays.
template <class TileType, class EntriesType>
inline void store_sums(const TileType& tile,
                       const typename TileType::V (&sum)[kSums<TileType>][TileType::count],
                       const EntriesType& entries,
                       const RowOfResults<typename TileType::Element>& out) {
  using Element = typename TileType::Element;
  using V = typename TileType::V;
  V total[TileType::count];
  unroll<TileType::count>([&](auto i) {
    total[i] = sum[0][i];
    if constexpr (kSums<TileType> > 1) total[i] += sum[1][i];
    if constexpr (kSums<TileType> > 2) total[i] += sum[2][i] + sum[3][i];
  });
  if constexpr (!kKeepsSums<Element>) {
    if (out.sums != nullptr) [[unlikely]] {
      return unroll<TileType::count>(
          [&](auto i) { tile.store(out.sums + tile.first, i, total[i]); });
    }
  }
  Element* to = out.elements + tile.first;
  if constexpr (kDoesBlocks<TileType>) {
    // All are loaded before the first is stored: the last vector overlaps the one before.
    if (!entries.is_first_part) [[unlikely]] {
      unroll<TileType::count>([&](auto i) { total[i] += tile.load(to, i); });
    }
  }
  if constexpr (TileType::width == kWidth<Element> &&
                kCanStream<TileType::width * sizeof(Element)>) {
    if (out.streamed && entries.is_last_part) {
      return unroll<TileType::count>([&](auto i) { tile.stream(to, i, total[i]); });
    }
  }
  unroll<TileType::count>([&](auto i) { tile.store(to, i, total[i]); });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
