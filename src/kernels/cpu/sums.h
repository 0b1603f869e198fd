// The sums over the entries of a row, as spmm and backward both make them, bit for bit.
#pragma once

#include "kernel_table.h"
#include "rows.h"

namespace spgrad::kernels::SPGRAD_TARGET {

// Sums that take turns over the entries of a row. An FMA takes 4 cycles and 2 start in each, so few
// vectors need several sums at once. A partial tile takes as many as the two narrower vectors that
// stand in its place where rows are not packed, so that bits agree.
template <class TileType>
inline constexpr int kSums = TileType::count > 2                        ? 1
                             : TileType::count > 1 || TileType::partial ? 2
                                                                        : 4;

// Results of so many bytes are written past the caches: they would not stay there until somebody
// reads them, and to write there is to read what was there before. On a stencil and a graph with 62
// and 67 MB of results, the product together with a pass over them takes 5 and 9 % less, a product
// with mostly empty rows half; with 31 MB nothing is left of it, and with 25 MB it takes 1.4 times
// as long.
inline constexpr int64_t kLeastStreamed = int64_t{32} << 20;

// A row of results, and how it is written.
template <class Element>
struct RowOfResults {
  Element* elements;
  Accumulator<Element>* sums;  // where it goes unrounded, or null
  bool streamed;
};

// Results as rows of elements.
template <class Scalar>
class RowsOfResults {
 public:
  // `rows` of all items.
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

  // After the last row: others may see all of them from now on.
  void finish() const {
    if (streamed_) fence_streams();
  }

 private:
  // Whether so many rows can be written past the caches, and should be.
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

// Adds them up into a row, to the sums of the parts of the row that were done before. The complete
// row goes past the caches where that is worth it.
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
  Element* place = out.elements + tile.first;
  if constexpr (kDoesBlocks<TileType>) {
    // All of them before the first is stored: the last vector overlaps the one before.
    if (!entries.is_first_part) [[unlikely]] {
      unroll<TileType::count>([&](auto i) { total[i] += tile.load(place, i); });
    }
  }
  if constexpr (TileType::width == kWidth<Element> &&
                kCanStream<TileType::width * sizeof(Element)>) {
    if (out.streamed && entries.is_last_part) {
      return unroll<TileType::count>([&](auto i) { tile.stream(place, i, total[i]); });
    }
  }
  unroll<TileType::count>([&](auto i) { tile.store(place, i, total[i]); });
}

}  // namespace spgrad::kernels::SPGRAD_TARGET
