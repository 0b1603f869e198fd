// Runs one kernel, correct or not, for a test that reads what a sanitizer says of it.
//
//     planted_bugs NAME
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

#include "launch.h"
#include "samples.h"

namespace {

using namespace spgrad::cuda;
using namespace spgrad::cuda::test;

constexpr unsigned kBlocks = 3;

bool run(const char* name) {
  std::vector<unsigned> in(kBlocks * kThreads, 1);
  std::vector<unsigned> out(kBlocks * kThreads);
  std::vector<unsigned> partial(kBlocks * kThreads);
  unsigned counter = 0;
  bool found = false;
  const auto sample = [&](const char* its_name, unsigned blocks, unsigned threads,
                          const auto& kernel) {
    if (std::strcmp(name, its_name) != 0) return;
    found = true;
    for (unsigned seed = 0; seed < 3; ++seed) {
      counter = 0;
      launch(blocks, 1, threads, seed, kernel);
    }
  };
  const auto p = [](std::vector<unsigned>& v) { return v.data(); };
  sample("sum_up", 2, kThreads, [&] { sum_up(p(in), p(out)); });
  sample("sum_up.block_barrier", 1, kThreads,
         [&] { sum_up<Without::block_barrier>(p(in), p(out)); });
  sample("turn_in_warp", 2, kThreads, [&] { turn_in_warp(p(in), p(out)); });
  sample("turn_in_warp.warp_barrier", 1, kThreads,
         [&] { turn_in_warp<Without::warp_barrier>(p(in), p(out)); });
  const auto all = [&]<Without without>() {
    sum_of_blocks<without>(p(in), p(partial), &counter, p(out));
  };
  const auto firsts = [&]<Without without>() {
    sum_of_first_threads<without>(p(in), p(partial), &counter, p(out));
  };
  sample("sum_of_blocks", kBlocks, kThreads, [&] { all.operator()<Without::nothing>(); });
  sample("sum_of_blocks.writer_fence", kBlocks, kThreads,
         [&] { all.operator()<Without::writer_fence>(); });
  sample("sum_of_blocks.reader_fence", kBlocks, kThreads,
         [&] { all.operator()<Without::reader_fence>(); });
  sample("sum_of_blocks.barrier_before_count", kBlocks, kThreads,
         [&] { all.operator()<Without::barrier_before_count>(); });
  sample("sum_of_first_threads", kBlocks, 1, [&] { firsts.operator()<Without::nothing>(); });
  sample("sum_of_first_threads.writer_fence", kBlocks, 1,
         [&] { firsts.operator()<Without::writer_fence>(); });
  sample("sum_of_first_threads.reader_fence", kBlocks, 1,
         [&] { firsts.operator()<Without::reader_fence>(); });
  sample("rank_in_warp", 1, kWarp, [&] { rank_in_warp(p(in), p(out)); });
  sample("write_one_place", 2, kThreads, [&] { write_one_place(p(out)); });
  sample("read_shared_past_end", 1, kThreads, [&] { read_shared_past_end(1, p(out)); });
  sample("read_global_past_end", 1, kThreads,
         [&] { read_global_past_end(p(in), (kBlocks - 1) * kThreads + 1, p(out)); });
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 2 && run(argv[1])) {
      std::puts("it ran to its end");
      return 0;
    }
    std::puts("no such kernel");
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
  return 2;
}
