// Memory of large results is kept when it is freed, for the results to come.
//
// The C library gives freed blocks of more than 32 MB back to the system at once, and the next
// result has to be faulted in again, page by page, each cleared before it is overwritten. That took
// a third of the time of a product of 62 MB. Here a freed block stays mapped, but is marked as
// MADV_FREE: the system takes its pages as soon as it is short of memory, without asking and
// without writing them anywhere, and until then they can be written to without a page fault.
#include "cpu/memory.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>
#include <torch/library.h>
#include <unistd.h>

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

#include "spgrad/memory.h"

namespace spgrad {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// Smaller blocks may hold no whole huge page.
constexpr size_t kLeastHuge = 2 * kHugePage;
// Smaller blocks the C library keeps by itself, once one of their size was freed
// (DEFAULT_MMAP_THRESHOLD_MAX of glibc). It does not mark their pages: for 4 MB in pages of 4 kB,
// that takes as long as a sparse product.
constexpr size_t kLeastKept = size_t{32} << 20;
// A block goes when so many others were asked for since it was freed, and it served for none: some
// steps of a network of a few dozen layers.
constexpr uint64_t kMostPassedBy = 256;

size_t page_size() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// Bytes that may be kept at a time.
size_t most_kept() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * page_size() / 8;
  return bytes;
}

// Tells the system something about the whole pages of a block, which have the given size. Advice
// only: a system that does not take it answers with an error, and everything goes on.
void advise(const void* block, size_t bytes, size_t page, int advice) {
  const auto begin = reinterpret_cast<uintptr_t>(block);
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, advice);
}

// Bytes before the data of a block, where it is written whose they are: PyTorch takes only memory
// that its address alone can free for simple, and clones no other lazily. As much as PyTorch aligns
// data to.
constexpr size_t kRecord = 64;

struct Block {
  c10::DataPtr memory;  // the record and the data
  size_t bytes;         // of the data
  uint64_t freed_at = 0;

  void* data() const { return static_cast<char*>(memory.get()) + kRecord; }
};

// Blocks move from list to list, so that to free one allocates nothing.
using Blocks = std::list<Block>;

// The blocks that are free, in the order in which they were freed.
//
// A thread that finds the list in use goes on without it. So none ever waits, not even in a child
// process that was forked while another thread used the list, where it will be in use forever.
class KeptBlocks {
 public:
  // The smallest block of at least `bytes` that wastes less than a quarter; none if there is none.
  Blocks take(size_t bytes) {
    Blocks taken;
    Blocks expired;  // given back when the list is no longer in use
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return taken;
    ++requests_;
    while (!kept_.empty() && requests_ - kept_.front().freed_at > kMostPassedBy) {
      move(kept_.begin(), expired);
    }
    auto best = kept_.end();
    for (auto block = kept_.begin(); block != kept_.end(); ++block) {
      const bool fits = bytes <= block->bytes && block->bytes - bytes < bytes / 4;
      if (fits && (best == kept_.end() || block->bytes < best->bytes)) best = block;
    }
    if (best != kept_.end()) move(best, taken);
    return taken;
  }

  void put(Blocks freed) {
    Blocks surplus;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return;
    freed.front().freed_at = requests_;
    kept_bytes_ += freed.front().bytes;
    kept_.splice(kept_.end(), freed);
    while (kept_bytes_ > most_kept()) move(kept_.begin(), surplus);
  }

  void clear() {
    Blocks all;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    while (lock && !kept_.empty()) move(kept_.begin(), all);
  }

 private:
  void move(Blocks::iterator block, Blocks& to) {
    kept_bytes_ -= block->bytes;
    to.splice(to.end(), kept_, block);
  }

  std::mutex mutex_;
  Blocks kept_;
  size_t kept_bytes_ = 0;
  uint64_t requests_ = 0;
};

// Tensors may outlive all that is destroyed at the end of a program, so nothing here is.
KeptBlocks& kept_blocks() {
  static auto* const blocks = new KeptBlocks;
  return *blocks;
}

class ResultAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kLeastKept) return new_memory(bytes);
    auto block = std::make_unique<Blocks>(kept_blocks().take(bytes));
    if (block->empty()) {
      block->push_back({new_memory(bytes + kRecord), bytes});
    } else {
      // To the profiler, what is kept is not allocated, and no more of it than is asked for.
      c10::profiledCPUMemoryReporter().New(block->front().memory.get(), bytes);
    }
    void* data = block->front().data();
    record_of(data) = block.release();
    return {data, data, &keep, c10::Device(c10::kCPU)};
  }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static c10::DataPtr new_memory(size_t bytes) {
    c10::DataPtr memory = allocate_or_empty_cache(bytes);
    if (bytes >= kLeastHuge) advise(memory.get(), bytes, kHugePage, MADV_HUGEPAGE);
    return memory;
  }

  // PyTorch's own allocator throws the error that users know, if there is nothing to be had.
  static c10::DataPtr allocate_or_empty_cache(size_t bytes) {
    try {
      return c10::GetCPUAllocator()->allocate(bytes);
    } catch (const c10::Error&) {
      kept_blocks().clear();
      return c10::GetCPUAllocator()->allocate(bytes);
    }
  }

  // The list of the one block that has this data.
  static Blocks*& record_of(void* data) {
    return *reinterpret_cast<Blocks**>(static_cast<char*>(data) - kRecord);
  }

  static void keep(void* data) {
    const std::unique_ptr<Blocks> block(record_of(data));
    c10::profiledCPUMemoryReporter().Delete(block->front().memory.get());
    advise(data, block->front().bytes, page_size(), MADV_FREE);
    kept_blocks().put(std::move(*block));
  }
};

}  // namespace

at::Tensor empty_large(at::IntArrayRef size, at::ScalarType dtype) {
  static auto* const allocator = new ResultAllocator;
  return at::detail::empty_generic(size, allocator, c10::DispatchKeySet(c10::DispatchKey::CPU),
                                   dtype, std::nullopt);
}

void empty_cache() { kept_blocks().clear(); }

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) {
  m.impl("empty_cache", [] { empty_cache(); });
}

}  // namespace spgrad
