// Memory of large results is kept when it is freed, for the results to come.
//
// The C library gives freed blocks of more than 32 MB back to the system at once. The next result
// is then faulted in page by page, and the system clears each page before it is overwritten, which
// takes a large part of the time of a product. Here a freed block stays mapped, but is marked
// MADV_FREE: the system takes its pages when it is short of memory, without asking and without
// writing them anywhere. Until then they can be written to without a page fault.
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
// (DEFAULT_MMAP_THRESHOLD_MAX of glibc). It does not mark their pages, which would take too long
// beside a product of that size.
constexpr size_t kLeastKept = size_t{32} << 20;
// A block is unmapped when this many large results were asked for since it was freed, and it served
// none of them: some training steps of a network of a few dozen layers.
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

// madvise for the pages that lie in the block as a whole; `page` is their size. A system that does
// not know the advice answers with an error, which does no harm.
void advise(const void* block, size_t bytes, size_t page, int advice) {
  const auto begin = reinterpret_cast<uintptr_t>(block);
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, advice);
}

// A header before the data points to its Block. The context of the DataPtr must be the data
// pointer, or PyTorch will not clone lazily. The header is as large as PyTorch's alignment, so that
// the data are aligned, too.
constexpr size_t kHeader = 64;

struct Block {
  c10::DataPtr memory;  // the header and the data
  size_t bytes;         // of the data
  uint64_t freed_at = 0;

  void* data() const { return static_cast<char*>(memory.get()) + kHeader; }
};

// Blocks move between lists together with their nodes, so that freeing one allocates nothing.
using Blocks = std::list<Block>;

// The free blocks, in the order in which they were freed.
//
// A thread that finds the list in use goes on without it, so that no thread ever waits: in a child
// that was forked while another thread used the list, it stays in use forever.
class KeptBlocks {
 public:
  // The smallest block with room for `bytes` that wastes less than a quarter of them, if any.
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

// Never destroyed, since tensors may outlive static objects.
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
      block->push_back({new_memory(bytes + kHeader), bytes});
    } else {
      // The profiler hears of the bytes that are asked for, and of none that are kept.
      c10::profiledCPUMemoryReporter().New(block->front().memory.get(), bytes);
    }
    void* data = block->front().data();
    header_of(data) = block.release();
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

  // Where there is no memory left, PyTorch's own allocator throws the error that users know.
  static c10::DataPtr allocate_or_empty_cache(size_t bytes) {
    try {
      return c10::GetCPUAllocator()->allocate(bytes);
    } catch (const c10::Error&) {
      kept_blocks().clear();
      return c10::GetCPUAllocator()->allocate(bytes);
    }
  }

  // In the header: the list that holds the block with this data, and no other.
  static Blocks*& header_of(void* data) {
    return *reinterpret_cast<Blocks**>(static_cast<char*>(data) - kHeader);
  }

  static void keep(void* data) {
    const std::unique_ptr<Blocks> block(header_of(data));
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
