// How threads of thread blocks take turns.
//
// Some blocks are under way at a time, as on a GPU, and each of their threads has a stack. A round
// of a block resumes every thread that can go on; which block is next, where a round begins, and
// whether it goes warp by warp is drawn from the seed.
//
// With EMULATION_TSAN the thread sanitizer is told what is ordered by what, and nothing else is: so
// it finds races between the threads of a kernel. This file is then compiled without
// -fsanitize=thread, whose checks are for the kernels.
#include "emulation.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATION_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATION_ASAN
#endif
#endif
#ifdef EMULATION_TSAN
#include <sanitizer/tsan_interface.h>
#define TSAN(...) __VA_ARGS__
#else
#define TSAN(...)
#endif
#ifdef EMULATION_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ASAN(...) __VA_ARGS__
#else
#define ASAN(...)
#endif

namespace {

// Notes where this stack stands, and goes on where another one stood. swapcontext does the same
// with two system calls, for the mask of signals.
#if defined(__x86_64__) && !defined(EMULATION_UCONTEXT)
extern "C" void emulation_switch(void** from, void* to);
asm(R"(
  .pushsection .text
  .local emulation_switch
  .type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emulation_switch, .-emulation_switch
  .popsection
)");
void switch_stack(void** from, void* to) { emulation_switch(from, to); }
void* prepare_stack(char*, char* top, void (*entry)()) {
  // Six registers, the address of entry, and nothing that it could return to.
  auto* words =
      reinterpret_cast<uintptr_t*>(reinterpret_cast<uintptr_t>(top - 64) & ~uintptr_t{15});
  std::fill_n(words, 8, uintptr_t{0});
  words[6] = reinterpret_cast<uintptr_t>(entry);
  return words;
}
#else
// Where a stack stands is a context that lies on it.
void switch_stack(void** from, void* to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}
void* prepare_stack(char* bottom, char* top, void (*entry)()) {
  const uintptr_t end = reinterpret_cast<uintptr_t>(top - sizeof(ucontext_t));
  auto* context = new (reinterpret_cast<void*>(end & ~uintptr_t{63})) ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = bottom;
  context->uc_stack.ss_size = static_cast<size_t>(reinterpret_cast<char*>(context) - bottom);
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}
#endif

constexpr unsigned kWarp = emulation::kLanes;
constexpr unsigned kMostThreads = 1024;   // of a block
constexpr unsigned kMostBlocks = 4;       // under way
constexpr size_t kMostShared = 48 << 10;  // bytes of a block
constexpr size_t kBetweenShared = 64;     // bytes that belong to no variable
constexpr unsigned kMostVariables = 16;
constexpr size_t kShared = kMostShared + kMostVariables * 2 * kBetweenShared;
constexpr size_t kStack = 256 << 10;
constexpr size_t kGuard = 4096;
ASAN(constexpr size_t kFirstFrames = 1024;)
TSAN(constexpr unsigned kMostFibersOfSanitizer = 8000;)

struct Random {
  uint64_t state;
  uint64_t next() {  // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  unsigned below(unsigned n) { return static_cast<unsigned>((next() >> 32) * n >> 32); }
};

// What a warp does together.
enum class Kind : uint8_t { none, barrier, exchange };

struct Barrier {
  unsigned expected = 0;
  unsigned arrived = 0;
  unsigned generation = 0;
  unsigned syncs = 0;  // generations that ordered memory
  Kind kind = Kind::none;
  TSAN(char ordered[2];)  // by turns: whoever is late must not see what was done after the barrier
  void complete() {
    if (arrived < expected || expected == 0) return;
    arrived = 0;
    syncs += kind == Kind::barrier;
    kind = Kind::none;
    ++generation;
  }
};

// What a lane gives in an exchange. By turns: the slowest lane may still read one when the fastest
// one gives the next.
struct Given {
  uint64_t word[2];
  unsigned exchange[2];  // how many before this one
};

struct Warp {
  Barrier barrier;
  Given given[kWarp];
  unsigned exchanges[kWarp];  // that a lane took part in
};

struct Stack {
  char* bottom;
  explicit Stack(size_t number) {
    void* const memory = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kGuard, PROT_NONE);
    bottom = static_cast<char*>(memory) + kGuard;
    top = bottom + kStack - number % 61 * 128;  // not all in the same lines of the cache
  }
  Stack(Stack&& other) noexcept : bottom(std::exchange(other.bottom, nullptr)), top(other.top) {}
  Stack& operator=(Stack&&) = delete;
  ~Stack() {
    if (bottom) munmap(bottom - kGuard, kGuard + kStack);
  }
  char* top;
};

struct Fiber {
  void* sp = nullptr;
  Barrier* waits = nullptr;
  unsigned generation = 0;
  bool done = false;
  bool has_waited = false;                            // for the kernels before
  TSAN(void* tsan = nullptr; char* fence = nullptr;)  // the last fence
  ASAN(void* asan = nullptr;)
  bool can_run() const { return !done && (!waits || waits->generation != generation); }
};

struct Variable {
  const char* key;
  char* memory;
};

struct Block {
  std::vector<Stack> stacks;  // at least as many as threads
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  emulation::Dim3 index;
  unsigned threads = 0;
  unsigned left = 0;  // threads that have not ended
  std::unique_ptr<char[]> shared{new char[kShared]};
  size_t used = 0;
  size_t given_out = 0;
  unsigned variables = 0;
  Variable variable[kMostVariables];
};

// Of the launch, for which `mutex` is held.
std::mutex mutex;
std::vector<std::unique_ptr<Block>> pool;  // blocks with their stacks, for the next ones
Block* block;                              // that runs
unsigned current;                          // thread of it
void* scheduler;
void (*kernel_of_launch)(const void*);
const void* argument_of_launch;
bool waits_of_launch;
Random random_of_launch;
unsigned until_way_is_given;
std::string error;
ASAN(const void* asan_stack; size_t asan_size;)

#ifdef EMULATION_TSAN
void* tsan_scheduler;
char finished;

// An atomic operation. Its place in `touches` is when it was done.
struct Touch {
  const void* place;
  Fiber* fiber;
  Block* block;
  Warp* warp;
  unsigned syncs_of_block;  // that came before
  unsigned syncs_of_warp;
  char* fence;  // the last one of the thread before this; nullptr if there was none
};
std::vector<Touch> touches;
std::unordered_map<const void*, std::vector<size_t>> touches_of_place;
std::unordered_map<Block*, std::vector<size_t>> touches_of_block;
// What the threads that share a barrier did before the fences that they came to after so many of
// its syncs.
std::map<std::pair<const Barrier*, unsigned>, char> fences_after_syncs;
std::deque<char> fences;

// While the sanitizer believes that the scheduler runs: memory that is taken or freed meanwhile
// orders no threads.
template <class Function>
void as_scheduler(const Function& function) {
  void* const self = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_scheduler, __tsan_switch_to_fiber_no_sync);
  function();
  __tsan_switch_to_fiber(self, __tsan_switch_to_fiber_no_sync);
}
#endif

void to_scheduler([[maybe_unused]] bool for_good) {
  Fiber& self = block->fibers[current];
  ASAN(__sanitizer_start_switch_fiber(for_good ? nullptr : &self.asan, asan_stack, asan_size);)
  TSAN(__tsan_switch_to_fiber(tsan_scheduler, __tsan_switch_to_fiber_no_sync);)
  switch_stack(&self.sp, scheduler);
  ASAN(__sanitizer_finish_switch_fiber(self.asan, &asan_stack, &asan_size);)
}

// Ends the launch.
[[noreturn]] void fail(const char* text) {
  if (error.empty()) error = text;
  for (;;) to_scheduler(false);
}

void wait(Barrier& barrier, [[maybe_unused]] bool orders_memory, Kind kind) {
  Fiber& self = block->fibers[current];
  if (barrier.kind == Kind::none) barrier.kind = kind;
  if (barrier.kind != kind) fail("some lanes of a warp are at a barrier, others exchange values");
  const unsigned generation = barrier.generation;
  TSAN(if (orders_memory) __tsan_release(&barrier.ordered[generation % 2]);)
  ++barrier.arrived;
  barrier.complete();
  if (barrier.generation == generation) {
    self.waits = &barrier;
    self.generation = generation;
    to_scheduler(false);
    self.waits = nullptr;
  }
  TSAN(if (orders_memory) __tsan_acquire(&barrier.ordered[generation % 2]);)
}

// Which exchange of the lane it was, from 1 on.
unsigned exchange_with_warp(uint64_t mine) {
  Warp& warp = block->warps[current / kWarp];
  const unsigned lane = current % kWarp;
  const unsigned number = ++warp.exchanges[lane];
  warp.given[lane].word[number % 2] = mine;
  warp.given[lane].exchange[number % 2] = number;
  wait(warp.barrier, false, Kind::exchange);  // on a GPU, too, this orders no memory
  return number;
}

[[noreturn]] void run_fiber() {
  ASAN(__sanitizer_finish_switch_fiber(nullptr, &asan_stack, &asan_size);)
  kernel_of_launch(argument_of_launch);
  if (waits_of_launch && !block->fibers[current].has_waited) {
    fail("a thread has not waited for the kernels before");
  }
  TSAN(__tsan_release(&finished);)
  Block& b = *block;
  b.fibers[current].done = true;
  --b.left;
  // Barriers are for threads that have not ended.
  for (Barrier* barrier : {&b.barrier, &b.warps[current / kWarp].barrier}) {
    --barrier->expected;
    barrier->complete();
  }
  for (;;) to_scheduler(true);
}

void resume(unsigned thread) {
  Fiber& fiber = block->fibers[thread];
  current = thread;
  emulation::threadIdx.x = thread;
  ASAN(void* own = nullptr;
       __sanitizer_start_switch_fiber(&own, block->stacks[thread].bottom, kStack);)
  TSAN(__tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);)
  switch_stack(&scheduler, fiber.sp);
  ASAN(__sanitizer_finish_switch_fiber(own, nullptr, nullptr);)
}

void start(Block& b, unsigned threads) {
  b.threads = b.left = threads;
  b.barrier = {};
  b.barrier.expected = threads;
  b.used = b.given_out = 0;
  b.variables = 0;
  ASAN(__asan_unpoison_memory_region(b.shared.get(), kShared);)
  std::memset(b.shared.get(), 0xff, kShared);
  ASAN(__asan_poison_memory_region(b.shared.get(), kShared);)
  while (b.stacks.size() < threads) b.stacks.emplace_back(b.stacks.size());
  b.fibers.assign(threads, {});
  b.warps.assign((threads + kWarp - 1) / kWarp, {});
  for (unsigned i = 0; i < threads; ++i) {
    ++b.warps[i / kWarp].barrier.expected;
    // The first function, which never returned, has left the sanitizer's marks there.
    ASAN(__asan_unpoison_memory_region(b.stacks[i].top - kFirstFrames, kFirstFrames);)
    b.fibers[i].sp = prepare_stack(b.stacks[i].bottom, b.stacks[i].top, run_fiber);
    TSAN(b.fibers[i].tsan = __tsan_create_fiber(0);)
  }
}

// Threads [first, last) of the block, one after the other, from one of them on, or, sometimes, only
// some of them. False where none of them can go on.
bool go_round(unsigned first, unsigned last) {
  const unsigned count = last - first;
  unsigned at = random_of_launch.below(count);
  unsigned step = random_of_launch.below(count) | 1;
  while (std::gcd(step, count) != 1) step += 2;
  const unsigned turns = random_of_launch.below(4) == 0 ? 1 + random_of_launch.below(count) : count;
  bool progress = turns < count;
  for (unsigned n = 0; n < turns; ++n) {
    if (block->fibers[first + at].can_run()) {
      resume(first + at);
      progress = true;
      if (!error.empty()) return true;
    }
    at = (at + step) % count;
  }
  return progress;
}

bool run_some(Block& b) {
  block = &b;
  emulation::blockIdx = b.index;
  if (random_of_launch.below(2) == 0) return go_round(0, b.threads);
  // Some warps run ahead.
  const auto warps = static_cast<unsigned>(b.warps.size());
  const unsigned from = random_of_launch.below(warps);
  bool progress = false;
  for (unsigned n = 0; n < warps; ++n) {
    const unsigned first = (from + n) % warps * kWarp;
    const unsigned last = std::min(first + kWarp, b.threads);
    for (unsigned left = 1 + random_of_launch.below(64); left > 0; --left) {
      if (!go_round(first, last)) break;
      progress = true;
      if (!error.empty()) return true;
    }
  }
  return progress;
}

std::string text_of_deadlock(const Block& b) {
  unsigned at_block = 0;
  unsigned at_warp = 0;
  for (const Fiber& fiber : b.fibers) {
    if (!fiber.done) ++(fiber.waits == &b.barrier ? at_block : at_warp);
  }
  return "threads wait for each other in vain: in block (" + std::to_string(b.index.x) + ", " +
         std::to_string(b.index.y) + "), " + std::to_string(at_block) +
         " at the barrier of the block, " + std::to_string(at_warp) + " at that of their warp";
}

void run_blocks(const emulation::Launch& launch) {
  const uint64_t count = uint64_t{launch.blocks_x} * launch.blocks_y;
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  for (auto i = static_cast<unsigned>(count); i > 1; --i) {
    std::swap(order[i - 1], order[random_of_launch.below(i)]);
  }
  const unsigned most = 1 + random_of_launch.below(kMostBlocks);
  std::vector<std::unique_ptr<Block>> under_way;
  std::vector<std::unique_ptr<Block>> ended;
  // The sanitizer would take threads of another block with the same stack for the same threads.
  TSAN(if (count * launch.threads > kMostFibersOfSanitizer) {
    error = "too many threads for the thread sanitizer";
    return;
  })
  size_t next = 0;
  while (error.empty()) {
    while (under_way.size() < most && next < order.size()) {
      if (pool.empty()) pool.push_back(std::make_unique<Block>());
      Block& b = *under_way.emplace_back(std::move(pool.back()));
      pool.pop_back();
      b.index = {order[next] % launch.blocks_x, order[next] / launch.blocks_x, 0};
      ++next;
      start(b, launch.threads);
    }
    if (under_way.empty()) break;
    auto& b = under_way[random_of_launch.below(static_cast<unsigned>(under_way.size()))];
    if (!run_some(*b)) error = text_of_deadlock(*b);
    if (b->left > 0) continue;
    std::swap(b, under_way.back());
#ifdef EMULATION_TSAN
    ended.push_back(std::move(under_way.back()));
#else
    pool.push_back(std::move(under_way.back()));
#endif
    under_way.pop_back();
  }
#ifdef EMULATION_TSAN
  __tsan_acquire(&finished);
  for (auto* blocks : {&under_way, &ended}) {
    for (auto& b : *blocks) {
      for (Fiber& fiber : b->fibers) __tsan_destroy_fiber(fiber.tsan);
    }
  }
  touches.clear();
  touches_of_place.clear();
  touches_of_block.clear();
  fences_after_syncs.clear();
  fences.clear();
#endif
  for (auto* blocks : {&under_way, &ended}) {
    for (auto& b : *blocks) {
      // Threads of a launch that failed have left the sanitizer's marks on their stacks.
      ASAN(for (Stack& stack : b->stacks) __asan_unpoison_memory_region(stack.bottom, kStack);)
      pool.push_back(std::move(b));
    }
  }
}

}  // namespace

namespace emulation {

Dim3 threadIdx;
Dim3 blockIdx;
Dim3 blockDim;
Dim3 gridDim;

const char* run(const Launch& launch, void (*kernel)(const void*), const void* argument) {
  const std::lock_guard lock(mutex);
  error.clear();
  const uint64_t count = uint64_t{launch.blocks_x} * launch.blocks_y;
  if (count == 0 || count > 0xffffffff || launch.threads == 0 || launch.threads > kMostThreads) {
    error = "a grid that cannot be launched";
    return error.c_str();
  }
  kernel_of_launch = kernel;
  argument_of_launch = argument;
  waits_of_launch = launch.waits;
  random_of_launch = {launch.seed};
  until_way_is_given = 1 + random_of_launch.below(16);
  threadIdx = {0, 0, 0};
  blockDim = {launch.threads, 1, 1};
  gridDim = {launch.blocks_x, launch.blocks_y, 1};
  TSAN(tsan_scheduler = __tsan_get_current_fiber();)
  run_blocks(launch);
  block = nullptr;
  return error.empty() ? nullptr : error.c_str();
}

void* shared_memory(const char* variable, unsigned long bytes, unsigned long alignment) {
  Block& b = *block;
  for (unsigned i = 0; i < b.variables; ++i) {
    if (b.variable[i].key == variable) return b.variable[i].memory;
  }
  if (b.variables == kMostVariables) fail("too many variables in the memory of a block");
  b.given_out += (bytes + 15) / 16 * 16;
  if (b.given_out > kMostShared) fail("more than 48 kB in the memory of a block");
  // The sanitizer must see an access past the end: nothing lies beside a variable.
  const auto base = reinterpret_cast<uintptr_t>(b.shared.get());
  const uintptr_t from = base + b.used + kBetweenShared;
  char* const memory = reinterpret_cast<char*>((from + alignment - 1) / alignment * alignment);
  b.used = reinterpret_cast<uintptr_t>(memory) + bytes - base;
  if (b.used + kBetweenShared > kShared) fail("more than 48 kB in the memory of a block");
  ASAN(__asan_unpoison_memory_region(memory, bytes);)
  b.variable[b.variables++] = {variable, memory};
  return memory;
}

void wait_for_kernels_before() { block->fibers[current].has_waited = true; }

void sync_block() { wait(block->barrier, true, Kind::barrier); }

void sync_warp() { wait(block->warps[current / kWarp].barrier, true, Kind::barrier); }

unsigned long long exchange(unsigned long long mine, unsigned lane) {
  const Warp& warp = block->warps[current / kWarp];
  const unsigned number = exchange_with_warp(mine);
  const Given& given = warp.given[lane];
  if (given.exchange[number % 2] != number) {
    fail("a value was asked of a lane that has ended, or never was");
  }
  return given.word[number % 2];
}

unsigned lanes_with(unsigned key) {
  const Warp& warp = block->warps[current / kWarp];
  const unsigned number = exchange_with_warp(key);
  unsigned lanes = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Given& given = warp.given[lane];
    if (given.exchange[number % 2] == number && given.word[number % 2] == key) lanes |= 1u << lane;
  }
  return lanes;
}

void report_misaligned() { fail("a word was loaded from no multiple of its size"); }

void give_way() {
  if (--until_way_is_given > 0) return;
  until_way_is_given = 1 + random_of_launch.below(16);
  to_scheduler(false);
}

void before_atomic([[maybe_unused]] const void* place) {
  give_way();
#ifdef EMULATION_TSAN
  as_scheduler([&] {
    Fiber& self = block->fibers[current];
    Warp& warp = block->warps[current / kWarp];
    touches_of_place[place].push_back(touches.size());
    touches_of_block[block].push_back(touches.size());
    touches.push_back(
        {place, &self, block, &warp, block->barrier.syncs, warp.barrier.syncs, self.fence});
  });
#endif
}

void fence() {
#ifdef EMULATION_TSAN
  // A thread sees what another one did before a fence, if an atomic operation came after that
  // fence, another one at the same place after that, and then this fence. Between a fence and the
  // operation there may be a barrier, if another thread of the block or warp does the operation.
  Fiber& self = block->fibers[current];
  Warp& warp = block->warps[current / kWarp];
  std::set<char*> seen;
  char* of_block = nullptr;
  char* of_warp = nullptr;
  as_scheduler([&] {
    const auto see_before = [&](const Barrier& barrier, unsigned syncs) {
      for (auto at = fences_after_syncs.lower_bound({&barrier, 0});
           at != fences_after_syncs.end() && at->first < std::pair(&std::as_const(barrier), syncs);
           ++at) {
        seen.insert(&at->second);
      }
    };
    for (const size_t n : touches_of_block[block]) {
      const Touch& mine = touches[n];
      if (mine.fiber != &self && mine.syncs_of_block == block->barrier.syncs &&
          (mine.warp != &warp || mine.syncs_of_warp == warp.barrier.syncs)) {
        continue;
      }
      for (const size_t before : touches_of_place[mine.place]) {
        if (before >= n) break;
        const Touch& touch = touches[before];
        if (touch.fence) seen.insert(touch.fence);
        see_before(touch.block->barrier, touch.syncs_of_block);
        see_before(touch.warp->barrier, touch.syncs_of_warp);
      }
    }
    of_block = &fences_after_syncs[{&block->barrier, block->barrier.syncs}];
    of_warp = &fences_after_syncs[{&warp.barrier, warp.barrier.syncs}];
    self.fence = &fences.emplace_back();
  });
  for (char* fence : seen) __tsan_acquire(fence);
  as_scheduler([&] { seen.clear(); });
  __tsan_release(self.fence);
  __tsan_release(of_block);
  __tsan_release(of_warp);
#endif
  give_way();
}

}  // namespace emulation
