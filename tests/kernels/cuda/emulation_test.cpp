// The test of the tests: mistakes in kernels are found, each by what should find it, and kernels
// without mistakes give the same in every order and no report.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "launch.h"
#include "samples.h"

namespace spgrad::cuda::test {
namespace {

using testing::HasSubstr;

constexpr unsigned kBlocks = 5;
constexpr uint64_t kSeeds = 20;

std::vector<unsigned> numbers(unsigned count, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<unsigned> result(count);
  for (unsigned& x : result) x = static_cast<unsigned>(random());
  return result;
}

std::string error_of(unsigned blocks, unsigned threads, const std::function<void()>& kernel,
                     uint64_t seed = 0) {
  try {
    launch(blocks, 1, threads, seed, kernel);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(Emulation, ThreadsKnowWhereTheyAre) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<int> seen(3 * 2 * 70);
    launch(3, 2, 70, seed, [&] {
      ++seen[(blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x];
      EXPECT_EQ(gridDim.x * 10 + gridDim.y, 32u);
      EXPECT_EQ(blockDim.x, 70u);
    });
    EXPECT_THAT(seen, testing::Each(1));
  }
}

TEST(Emulation, CorrectKernelsGiveTheSameInEveryOrder) {
  const auto in = numbers(kBlocks * kThreads);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<unsigned> out(in.size());
    std::vector<unsigned> partial(in.size());
    launch(kBlocks, 1, kThreads, seed, [&] { sum_up(in.data(), out.data()); });
    for (unsigned b = 0; b < kBlocks; ++b) {
      unsigned sum = 0;
      for (unsigned t = 0; t < kThreads; ++t) {
        ASSERT_EQ(out[b * kThreads + t], sum += in[b * kThreads + t]);
      }
    }
    launch(kBlocks, 1, kThreads, seed, [&] { turn_in_warp(in.data(), out.data()); });
    for (unsigned i = 0; i < in.size(); ++i) {
      ASSERT_EQ(out[i], in[i / kWarp * kWarp + (i + 1) % kWarp]);
    }
    unsigned counter = 0;
    launch(kBlocks, 1, kThreads, seed,
           [&] { sum_of_blocks(in.data(), partial.data(), &counter, out.data()); });
    for (unsigned t = 0; t < kThreads; ++t) {
      unsigned sum = 0;
      for (unsigned b = 0; b < kBlocks; ++b) sum += in[b * kThreads + t] * 3;
      ASSERT_EQ(out[t], sum);
    }
    launch(1, 1, kWarp, seed, [&] { rank_in_warp(in.data(), out.data()); });
    std::vector<unsigned> sorted(in.begin(), in.begin() + kWarp);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](unsigned a, unsigned b) { return a % 4 < b % 4; });
    ASSERT_TRUE(std::equal(sorted.begin(), sorted.end(), out.begin()));
  }
}

TEST(Emulation, OrdersDiffer) {
  std::set<std::vector<unsigned>> orders;
  std::set<std::vector<unsigned>> ends;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<unsigned> order;
    std::vector<unsigned> end;
    launch(4, 1, 64, seed, [&] {
      order.push_back(blockIdx.x * 64 + threadIdx.x);
      unsigned counter = 0;
      for (int i = 0; i < 20; ++i) fetch_add(&counter, 1);
      end.push_back(blockIdx.x * 64 + threadIdx.x);
    });
    orders.insert(order);
    ends.insert(end);
  }
  EXPECT_EQ(orders.size(), kSeeds);
  EXPECT_EQ(ends.size(), kSeeds);
}

TEST(Emulation, MistakesShowInSomeOrderWithoutASanitizer) {
  const auto in = numbers(kBlocks * kThreads);
  std::set<std::vector<unsigned>> results[3];
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<unsigned> out(in.size());
    launch(1, 1, kThreads, seed, [&] { sum_up<Without::block_barrier>(in.data(), out.data()); });
    results[0].insert(out);
    launch(kBlocks, 1, kThreads, seed, [&] { write_one_place(out.data()); });
    results[1].insert(out);
    std::vector<unsigned> partial(in.size());
    unsigned counter = 0;
    launch(kBlocks, 1, kThreads, seed, [&] {
      sum_of_blocks<Without::barrier_before_count>(in.data(), partial.data(), &counter, out.data());
    });
    results[2].insert(out);
  }
  EXPECT_GT(results[0].size(), 1u);
  EXPECT_GT(results[1].size(), 1u);
  EXPECT_GT(results[2].size(), 1u);
}

TEST(Emulation, ThreadsThatWaitInVainAreReported) {
  EXPECT_EQ(error_of(1, 64,
                     [] {
                       if (threadIdx.x % 2 == 0) sync_block();
                       if (threadIdx.x % 2 == 1) sync_warp();
                     }),
            "threads wait for each other in vain: in block (0, 0), 32 at the barrier of the block, "
            "32 at that of their warp");
  EXPECT_THAT(error_of(2, 32,
                       [] {
                         if (threadIdx.x < 3) {
                           from_lane(1, 0);
                         } else {
                           sync_warp();
                         }
                       }),
              HasSubstr("some lanes of a warp are at a barrier, others exchange values"));
  // The next launch is none the worse for it.
  EXPECT_EQ(error_of(3, 64, [] { sync_block(); }), "");
}

TEST(Emulation, ThreadsThatHaveEndedAreNotWaitedFor) {
  EXPECT_EQ(error_of(2, 100,
                     [] {
                       if (threadIdx.x == 0 || threadIdx.x > 90) return;
                       sync_warp();
                       sync_block();
                       sync_block();
                     }),
            "");
}

TEST(Emulation, ValuesOfLanesThatAreNotThereAreReported) {
  EXPECT_THAT(error_of(1, 32,
                       [] {
                         if (threadIdx.x == 5) return;
                         from_lane(1, 5);
                       }),
              HasSubstr("a lane that has ended"));
  EXPECT_THAT(error_of(1, 20, [] { from_lane_xor(1, 16); }), HasSubstr("a lane that has ended"));
  // One that gave its value first and ended then has given it.
  EXPECT_EQ(error_of(1, 32, [] { from_lane(1.0, 5); }), "");
}

TEST(Emulation, SharedMemoryIsNoNumberAtFirst) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    launch(3, 1, 32, seed, [] {
      using Numbers = double[32];
      SPGRAD_SHARED(Numbers, numbers);
      EXPECT_TRUE(std::isnan(numbers[threadIdx.x]));
      sync_block();
      numbers[threadIdx.x] = 1;
    });
  }
}

template <int number>
unsigned* own_shared() {
  SPGRAD_SHARED(unsigned, mine);
  return &mine;
}

TEST(Emulation, SharedMemoryIsOneForEachVariableAndBlock) {
  std::set<unsigned*> places;
  launch(1, 1, 32, 0, [&] {
    struct alignas(256) Aligned {
      char byte;
    };
    SPGRAD_SHARED(Aligned, aligned);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(&aligned) % 256, 0u);
    places.insert(own_shared<1>());
    places.insert(own_shared<2>());
  });
  EXPECT_EQ(places.size(), 2u);
  EXPECT_THAT(error_of(1, 32,
                       [] {
                         using Much = char[30000];
                         SPGRAD_SHARED(Much, much);
                         SPGRAD_SHARED(Much, more);
                         much[0] = more[0] = 0;
                       }),
              HasSubstr("more than 48 kB"));
}

TEST(Emulation, GridsThatCannotBeLaunchedAreReported) {
  for (const unsigned threads : {0u, 1025u}) {
    EXPECT_THAT(error_of(1, threads, [] {}), HasSubstr("a grid that cannot be launched"));
  }
  EXPECT_THAT(error_of(0, 1, [] {}), HasSubstr("a grid that cannot be launched"));
}

TEST(Emulation, WordsThatAreNotWhereAGpuLoadsThemAreReported) {
  struct alignas(16) Word {
    unsigned of[4];
  };
  alignas(16) const unsigned numbers[8] = {};
  for (const unsigned offset : {0u, 4u}) {
    EXPECT_EQ(error_of(1, 32,
                       [&] {
                         load_once(reinterpret_cast<const Word*>(numbers + offset));
                         load_read_only(reinterpret_cast<const UInt64*>(numbers + offset + 2));
                       }),
              "");
  }
  EXPECT_THAT(error_of(1, 32, [&] { load_once(reinterpret_cast<const Word*>(numbers + 2)); }),
              HasSubstr("from no multiple of its size"));
  EXPECT_THAT(
      error_of(1, 32, [&] { load_read_only(reinterpret_cast<const UInt64*>(numbers + 3)); }),
      HasSubstr("from no multiple of its size"));
  EXPECT_THAT(
      error_of(1, 32, [&] { load_shared_by_blocks(reinterpret_cast<const Word*>(numbers + 1)); }),
      HasSubstr("from no multiple of its size"));
}

TEST(Emulation, LanesExchangeNumbers) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    launch(2, 1, 64, seed, [] {
      const unsigned lane = threadIdx.x % kWarp;
      EXPECT_EQ(from_lane(0.5 * threadIdx.x, 7), 0.5 * (threadIdx.x - lane + 7));
      EXPECT_EQ(from_lane(lane, static_cast<int>(lane) + 33), (lane + 1) % 32);
      EXPECT_EQ(from_lane_xor(static_cast<float>(lane), 5), static_cast<float>(lane ^ 5));
      EXPECT_EQ(from_lane_xor(~UInt64{lane}, 16), ~UInt64{lane ^ 16});
      EXPECT_EQ(from_lane(lane, -1), 31u);
      EXPECT_EQ(lanes_with(lane % 2), lane % 2 == 0 ? 0x55555555u : 0xaaaaaaaau);
      EXPECT_EQ(lanes_with_bits<1>(lane), lane % 2 == 0 ? 0x55555555u : 0xaaaaaaaau);
      EXPECT_EQ(lanes_where(lane < 5), 31u);
      EXPECT_EQ(highest_bit(lanes_where(lane < 5)), 4);
      EXPECT_EQ(highest_bit(lanes_where(false)), -1);
    });
  }
}

TEST(Emulation, AtomicOperations) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    unsigned count = 5;
    unsigned next = 7;
    UInt64 greatest = 3;
    std::set<unsigned> before;
    std::set<unsigned> taken;
    launch(4, 1, 100, seed, [&] {
      before.insert(fetch_add(&count, 2));
      taken.insert(fetch_next(&next));
      raise_to(&greatest, UInt64{1} << (40 + blockIdx.x) | threadIdx.x);
      raise_to(&greatest, 2);
    });
    EXPECT_EQ(count, 805u);
    EXPECT_EQ(before.size(), 400u);
    EXPECT_EQ(next, 407u);
    EXPECT_EQ(taken.size(), 400u);
    EXPECT_EQ(greatest, UInt64{1} << 43 | 99);
  }
}

TEST(Emulation, ManyThreadsLaunchAtOnce) {
  std::vector<std::thread> threads;
  std::array<unsigned, 4> sums = {};
  for (unsigned n = 0; n < sums.size(); ++n) {
    threads.emplace_back([&sums, n] {
      for (uint64_t seed = 0; seed < 20; ++seed) {
        launch(3, 1, 32, seed, [&] {
          sync_block();
          fetch_add(&sums[n], 1);
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(sums, testing::Each(20u * 3 * 32));
}

TEST(Emulation, HalfPrecision) {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<unsigned short>(bits);
    const float value = float_of_half(half);
    const unsigned exponent = bits >> 10 & 31;
    const unsigned mantissa = bits & 1023;
    const double sign = bits >> 15 ? -1 : 1;
    if (exponent == 31 && mantissa != 0) {
      ASSERT_TRUE(std::isnan(value));
      ASSERT_EQ(half_of_float(value), 0x7fff);
      continue;
    }
    const double expected = exponent == 31 ? std::numeric_limits<double>::infinity()
                            : exponent == 0
                                ? std::ldexp(mantissa, -24)
                                : std::ldexp(1024 + mantissa, static_cast<int>(exponent) - 25);
    ASSERT_EQ(std::bit_cast<unsigned>(value),
              std::bit_cast<unsigned>(static_cast<float>(sign * expected)));
    ASSERT_EQ(half_of_float(value), bits);
    // Halfway to the next one, to even; a little more and a little less, to the nearest.
    if (exponent == 31) continue;
    const float next = mantissa == 1023 && exponent == 30
                           ? static_cast<float>(sign * 65536)
                           : float_of_half(static_cast<unsigned short>(bits + 1));
    const float middle = (value + next) / 2;
    const float away = static_cast<float>(sign) * std::numeric_limits<float>::infinity();
    ASSERT_EQ(half_of_float(middle), bits % 2 == 0 ? bits : bits + 1);
    ASSERT_EQ(half_of_float(std::nextafter(middle, 0.0f)), bits);
    ASSERT_EQ(half_of_float(std::nextafter(middle, away)), bits + 1);
  }
  EXPECT_EQ(half_of_float(3e38f), 0x7c00);
  EXPECT_EQ(half_of_float(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(half_of_float(-1e-30f), 0x8000);
}

TEST(Emulation, BFloat16) {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const float value = float_of_bits(bits << 16);
    if (std::isnan(value)) {
      ASSERT_EQ(bfloat16_of_float(value), 0x7fff);
      continue;
    }
    ASSERT_EQ(bfloat16_of_float(value), bits);
    if (std::isinf(value)) continue;
    // Halfway to the next one, to even; a little more and a little less, to the nearest.
    ASSERT_EQ(bfloat16_of_float(float_of_bits(bits << 16 | 0x8000)), bits + bits % 2);
    ASSERT_EQ(bfloat16_of_float(float_of_bits(bits << 16 | 0x7fff)), bits);
    ASSERT_EQ(bfloat16_of_float(float_of_bits(bits << 16 | 0x8001)), bits + 1);
  }
}

#ifdef PLANTED_BUGS_THREAD

// Exit status and output of a command.
std::pair<int, std::string> output_of(const std::string& command) {
  std::string output;
  FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return {-1, "cannot run " + command};
  char part[4096];
  while (const size_t size = std::fread(part, 1, sizeof part, pipe)) output.append(part, size);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

struct Planted {
  const char* name;
  const char* report;  // nullptr: none
};
void PrintTo(const Planted& planted, std::ostream* out) { *out << planted.name; }

std::string test_name(const testing::TestParamInfo<Planted>& info) {
  std::string name = info.param.name;
  for (char& c : name) c = c == '.' ? '_' : c;
  return name;
}

void expect_report(const std::string& program, const Planted& planted) {
  const auto [status, output] = output_of(program + " " + planted.name);
  if (planted.report) {
    EXPECT_GT(status, 0) << output;
    EXPECT_THAT(output, HasSubstr(planted.report));
    EXPECT_THAT(output, HasSubstr("samples.h"));  // the report says where
  } else {
    EXPECT_EQ(status, 0) << output;
    EXPECT_EQ(output, "it ran to its end\n");
  }
}

class RealKernels : public testing::TestWithParam<Planted> {};
TEST_P(RealKernels, HaveNoRaces) { expect_report(RACES, GetParam()); }
INSTANTIATE_TEST_SUITE_P(, RealKernels,
                         testing::Values(Planted{"sums", nullptr}, Planted{"both", nullptr},
                                         Planted{"products", nullptr}, Planted{"narrow", nullptr},
                                         Planted{"extrema", nullptr}, Planted{"malformed", nullptr},
                                         Planted{"sort_coo", nullptr}, Planted{"sort_csr", nullptr},
                                         Planted{"symmetric", nullptr},
                                         Planted{"not_symmetric", nullptr}),
                         test_name);

class RaceChecker : public testing::TestWithParam<Planted> {};
TEST_P(RaceChecker, Reports) { expect_report(PLANTED_BUGS_THREAD, GetParam()); }
INSTANTIATE_TEST_SUITE_P(
    Samples, RaceChecker,
    testing::Values(Planted{"sum_up", nullptr}, Planted{"turn_in_warp", nullptr},
                    Planted{"sum_of_blocks", nullptr}, Planted{"sum_of_first_threads", nullptr},
                    Planted{"rank_in_warp", nullptr}, Planted{"sum_up.block_barrier", "data race"},
                    Planted{"turn_in_warp.warp_barrier", "data race"},
                    Planted{"sum_of_blocks.writer_fence", "data race"},
                    Planted{"sum_of_blocks.reader_fence", "data race"},
                    Planted{"sum_of_blocks.barrier_before_count", "data race"},
                    Planted{"sum_of_first_threads.writer_fence", "data race"},
                    Planted{"sum_of_first_threads.reader_fence", "data race"},
                    Planted{"write_one_place", "data race"}),
    test_name);

class AddressChecker : public testing::TestWithParam<Planted> {};
TEST_P(AddressChecker, Reports) { expect_report(PLANTED_BUGS_ADDRESS, GetParam()); }
INSTANTIATE_TEST_SUITE_P(Samples, AddressChecker,
                         testing::Values(Planted{"sum_up", nullptr},
                                         Planted{"sum_of_blocks", nullptr},
                                         Planted{"rank_in_warp", nullptr},
                                         Planted{"read_shared_past_end", "use-after-poison"},
                                         Planted{"read_global_past_end", "heap-buffer-overflow"}),
                         test_name);

#endif

}  // namespace
}  // namespace spgrad::cuda::test
