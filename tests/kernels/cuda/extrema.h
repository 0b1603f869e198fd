// Extrema by the kernels, on the emulation.
#pragma once

#include <vector>

#include "extremum.cuh"
#include "products.h"

namespace spgrad::cuda::test {

template <class S>
struct Extrema {
  Result<S> result;
  std::vector<int> winners;
};

template <class S>
Extrema<S> find_extrema(const Inputs<S>& inputs, bool greatest, uint64_t seed,
                        unsigned piece_blocks = 3) {
  Extrema<S> all;
  all.winners.assign(static_cast<size_t>(inputs.problem.items * inputs.problem.rows * inputs.p),
                     -7);
  all.result = run_kernels(inputs, seed, piece_blocks, [&](Product& product, Int64 rows) {
    std::vector<int> partial(static_cast<size_t>(product.most_pieces) *
                             static_cast<size_t>(inputs.p));
    const Extremum a = {product, greatest, all.winners.data(), partial.data()};
    launch(a.product.piece_blocks + blocks_for(rows, kBlock / kNarrowLanes),
           blocks_for(inputs.p, S::kColumns), kBlock, seed + 1, [&] { extremum<S>(a); });
  });
  return all;
}

}  // namespace spgrad::cuda::test
