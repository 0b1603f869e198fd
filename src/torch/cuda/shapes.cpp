#include "cuda/shapes.h"

#include <ATen/OpMathType.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <bit>
#include <set>

#include "../../kernels/cuda/arguments.h"

namespace spgrad::cuda {
namespace {

// Measured on an H200 (docs/kernel-performance.md). 32-bit registers of a lane for rows of X under
// way: four loads of 16 bytes hide the memory's latency. With blocks of eight warps, four of which
// share a multiprocessor (three where sums and products are made), next to nothing is spilled.
constexpr int64_t kRegistersOfRows = 16;
constexpr int64_t kMostAtOnce = 4;
constexpr int64_t kRegistersOfSums = 4;  // of a lane with more than one tile
constexpr int64_t kBlocks = 4;
constexpr int64_t kBlocksForBoth = 3;
// Fewer lanes would read entries of too many rows at once.
constexpr int64_t kFewestLanes = 4;
// Rows that a thread block does, for each group of a warp, where there are enough of them. With
// fewer, rows of X are shared less; with more, blocks are fewer.
constexpr int64_t kRowsOfGroup = 32;
constexpr int64_t kMostRowsOfBlock = 128;
constexpr int64_t kFewestRowsOfGroup = 8;
constexpr int64_t kBlocksOfMultiprocessor = 8;

// Bytes of a row of sums that a lane can hold beside rows of X.
constexpr int64_t kWidestOfLane = 32;

const char* flag(bool value) { return value ? "true" : "false"; }

// What templates of all products begin with: dtypes of operands and of products, of indices, and
// what the product is made of.
std::string begin_of(const Wanted& wanted, const std::string& dtypes) {
  return c10::str(dtypes, ", ", name_of(wanted.index), ", ",
                  wanted.far ? "spgrad::cuda::UInt64" : "unsigned", ", ", flag(wanted.moved), ", ",
                  flag(wanted.sums), ", ", flag(wanted.products), ", ", wanted.vector);
}

// A kernel whose lanes have so many columns.
Shape narrow_shape(const std::string& kernel, const Wanted& wanted, int64_t columns) {
  return {c10::str("spgrad::cuda::", kernel, "<spgrad::cuda::Narrow<",
                   begin_of(wanted, name_of(wanted.dtype)), ", ", columns / wanted.vector, ">>"),
          columns, 1, true, wanted.dtype};
}

bool fits_a_lane(const Wanted& wanted, int64_t columns) {
  const auto bytes = static_cast<int64_t>(c10::elementSize(at::toOpMathType(wanted.dtype)));
  return columns <= kNarrowColumns && columns * bytes <= kWidestOfLane;
}

Shape extremum_shape_for(const Wanted& wanted) {
  int64_t columns = wanted.vector;
  while (columns < wanted.p && fits_a_lane(wanted, columns + wanted.vector)) {
    columns += wanted.vector;
  }
  return narrow_shape("extremum", wanted, columns);
}

}  // namespace

int64_t widest_vector(at::ScalarType dtype) {
  return 16 / static_cast<int64_t>(c10::elementSize(dtype));
}

std::string name_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float";
    case at::kDouble:
      return "double";
    case at::kHalf:
      return "spgrad::cuda::Half";
    case at::kBFloat16:
      return "spgrad::cuda::BFloat16";
    case at::kComplexFloat:
      return "spgrad::cuda::Complex<float>";
    case at::kComplexDouble:
      return "spgrad::cuda::Complex<double>";
    case at::kInt:
      return "int";
    case at::kLong:
      return "long long";
    default:
      TORCH_INTERNAL_ASSERT(false, "no kernels for ", dtype);
  }
}

Shape shape_for(const Wanted& wanted) {
  if (wanted.extremum) return extremum_shape_for(wanted);
  if (fits_a_lane(wanted, wanted.p)) return narrow_shape("multiply_narrow", wanted, wanted.p);
  const at::ScalarType sum = at::toOpMathType(wanted.dtype);
  const auto registers_of = [&](at::ScalarType dtype) {
    return std::max<int64_t>(1, wanted.vector * static_cast<int64_t>(c10::elementSize(dtype)) / 4);
  };
  const int64_t vectors = std::max<int64_t>(1, (wanted.p + wanted.vector - 1) / wanted.vector);
  // More than one tile only where a warp cannot do a row at once otherwise.
  const auto lanes = std::clamp<int64_t>(
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(vectors))), kFewestLanes, kWarp);
  const int64_t tiles = vectors > lanes && registers_of(sum) <= kRegistersOfSums ? 2 : 1;
  const int64_t at_once =
      std::clamp<int64_t>(kRegistersOfRows / (tiles * registers_of(wanted.dtype)), 1, kMostAtOnce);
  const int64_t columns = wanted.vector * lanes * tiles;
  // Products of columns that do not fit in one tile are added up in memory.
  const at::ScalarType out = wanted.products && wanted.p > columns ? sum : wanted.dtype;
  return {c10::str("spgrad::cuda::multiply<spgrad::cuda::Shape<",
                   begin_of(wanted, c10::str(name_of(wanted.dtype), ", ", name_of(out))), ", ",
                   lanes, ", ", tiles, ", ", at_once, ", ",
                   wanted.sums && wanted.products ? kBlocksForBoth : kBlocks, ">>"),
          columns, kWarp / lanes, false, out};
}

int64_t rows_of_block_for(const Shape& shape, int64_t rows, int64_t multiprocessors) {
  if (shape.narrow) return kBlock / kNarrowLanes;
  const int64_t most = std::min(kRowsOfGroup * shape.groups, kMostRowsOfBlock);
  const int64_t fewest = std::min(kFewestRowsOfGroup * shape.groups, most);
  return std::clamp(rows / (multiprocessors * kBlocksOfMultiprocessor), fewest, most);
}

std::vector<std::string> all_kernels(const std::vector<at::ScalarType>& dtypes) {
  struct Role {
    bool moved, sums, products;
  };
  constexpr Role roles[] = {{false, true, false},  // forward
                            {true, true, false},   // transposed, or COO
                            {false, false, true},  // gradient of A
                            {true, false, true},   // the same of COO
                            {true, true, true}};   // both gradients
  std::set<std::string> names;
  for (const at::ScalarType dtype : dtypes) {
    for (const auto& [moved, sums, products] : roles) {
      for (const at::ScalarType index : {at::kInt, at::kLong}) {
        if (moved && index == at::kLong) continue;  // 2^31 entries or more
        for (int64_t vector = 1; vector <= widest_vector(dtype); vector *= 2) {
          for (const int64_t vectors : {1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128}) {
            Wanted wanted = {dtype, index, moved, sums, products, false, vector, vector * vectors};
            names.insert(shape_for(wanted).kernel);
            wanted.extremum = sums && !products && !at::isComplexType(dtype);
            names.insert(shape_for(wanted).kernel);
          }
        }
      }
    }
  }
  for (const char* source : {"ByColumnOfCsr<int, int>", "ByColumnOfCsr<long long, int>",
                             "OfCoo<int, true>", "OfCoo<int, false>"}) {
    for (const std::string& step : {std::string("sort_count"), std::string("sort_move")}) {
      names.insert("spgrad::cuda::" + step + "<spgrad::cuda::" + source + ">");
      names.insert("spgrad::cuda::" + step + "<spgrad::cuda::Moved<spgrad::cuda::" + source + ">>");
    }
  }
  names.insert({"spgrad::cuda::mirror<int>", "spgrad::cuda::mirror<long long>",
                "spgrad::cuda::find_pieces<int>", "spgrad::cuda::find_pieces<long long>",
                "spgrad::cuda::sort_scan", "spgrad::cuda::sort_offsets<int>",
                "spgrad::cuda::check_csr<int>", "spgrad::cuda::check_csr<long long>",
                "spgrad::cuda::check_coo"});
  return {names.begin(), names.end()};
}

}  // namespace spgrad::cuda
