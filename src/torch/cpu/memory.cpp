// Memory of large results is kept when it is freed, for the results to come.
//
// The C library gives freed blocks of more than 32 MB back to the system at once, and smaller ones
// at times. The next result is then faulted in page by page, and the system clears each page before
// it is overwritten, which takes a large part of the time of a product. Here a freed block stays
// mapped, but is marked MADV_FREE: the system takes its pages when it is short of memory, without
// asking and without writing them anywhere. Until then they can be written to without a page fault.
//
// SPGRAD_KEEP_MEMORY=0 in the environment keeps nothing.
#include "cpu/memory.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "cpu/memory_limits.h"
#include "spgrad/memory.h"

namespace spgrad {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// Smaller blocks the C library keeps by itself, and they may hold no whole huge page.
constexpr size_t kLeastKept = 2 * kHugePage;
// A block is unmapped when this many large results were asked for since it was freed, and it served
// none of them: some training steps of a network of a few dozen layers.
constexpr uint64_t kMostPassedBy = 256;
// No more is kept at a time than one part in so many of what this process may have.
constexpr size_t kShareKept = 8;

bool is_keeping() {
  static const bool keeping = [] {
    const char* const asked = std::getenv("SPGRAD_KEEP_MEMORY");
    if (asked == nullptr || std::string_view(asked).empty()) return true;
    TORCH_CHECK_VALUE(std::string_view(asked) == "0" || std::string_view(asked) == "1",
                      "SPGRAD_KEEP_MEMORY must be 0 or 1, but received '", asked, "'");
    return asked[0] == '1';
  }();
  return keeping;
}

// Memory straight from the system, which stays ours until it goes back there. Advice that is given
// on memory of the C library would stay with whoever gets it next.
class Mapping {
 public:
  // Begins with a huge page, so that advice meets whole ones: to mark parts of them is slow.
  explicit Mapping(size_t bytes) : bytes_((bytes + page_size() - 1) / page_size() * page_size()) {
    const size_t room = bytes_ + kHugePage;
    void* const mapped =
        mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return;
    const size_t before = -reinterpret_cast<uintptr_t>(mapped) % kHugePage;
    begin_ = static_cast<char*>(mapped) + before;
    if (before > 0) munmap(mapped, before);
    munmap(begin_ + bytes_, kHugePage - before);
    advise(MADV_HUGEPAGE);
  }
  Mapping(Mapping&& other) noexcept
      : bytes_(other.bytes_), begin_(std::exchange(other.begin_, nullptr)) {}
  ~Mapping() {
    if (begin_ != nullptr) munmap(begin_, bytes_);
  }

  // Null where there was no memory.
  char* begin() const { return begin_; }

  // A system that does not know the advice answers with an error, which does no harm.
  void advise(int advice) const { madvise(begin_, bytes_, advice); }

 private:
  size_t bytes_;  // whole pages
  char* begin_ = nullptr;
};

// A header before the data points to its Block. The context of the DataPtr must be the data
// pointer, or PyTorch will not clone lazily. The header is as large as PyTorch's alignment, so that
// the data are aligned, too.
constexpr size_t kHeader = 64;

struct Block {
  Mapping memory;  // the header and the data
  size_t bytes;    // of the data
  uint64_t freed_at = 0;

  void* data() const { return memory.begin() + kHeader; }
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
    if (!is_keeping()) return;
    // What is kept counts in the limits of the address space, where other libraries find no memory
    // as long as it is mapped.
    const size_t room = room_below_limits();
    const size_t memory = memory_of_process();
    Blocks surplus;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return;
    freed.front().freed_at = requests_;
    kept_bytes_ += freed.front().bytes;
    kept_.splice(kept_.end(), freed);
    // The room that there would be with nothing kept.
    const size_t all_room = room + std::min(kept_bytes_, SIZE_MAX - room);
    const size_t most = std::min(memory, all_room) / kShareKept;
    while (kept_bytes_ > most) move(kept_.begin(), surplus);
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
    is_keeping();  // may throw, which must not happen when memory is freed
    auto block = std::make_unique<Blocks>(kept_blocks().take(bytes));
    if (block->empty()) block->push_back({Mapping(bytes + kHeader), bytes});
    if (block->front().memory.begin() == nullptr) {
      // Where there is no memory left, PyTorch's own allocator throws the error that users know.
      kept_blocks().clear();
      return c10::GetCPUAllocator()->allocate(bytes);
    }
    void* data = block->front().data();
    // The profiler hears of the bytes that are asked for, and of none that are kept.
    c10::profiledCPUMemoryReporter().New(data, bytes);
    header_of(data) = block.release();
    return {data, data, &keep, c10::Device(c10::kCPU)};
  }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  // In the header: the list that holds the block with this data, and no other.
  static Blocks*& header_of(void* data) {
    return *reinterpret_cast<Blocks**>(static_cast<char*>(data) - kHeader);
  }

  static void keep(void* data) {
    const std::unique_ptr<Blocks> block(header_of(data));
    c10::profiledCPUMemoryReporter().Delete(data);
    block->front().memory.advise(MADV_FREE);  // the header is written anew
    kept_blocks().put(std::move(*block));
  }
};

}  // namespace

at::Tensor empty_large(at::IntArrayRef size, at::ScalarType dtype) {
  static auto* const own = new ResultAllocator;
  const auto bytes = at::detail::computeStorageNbytesContiguous(size, c10::elementSize(dtype));
  return at::detail::empty_generic(size, bytes < kLeastKept ? c10::GetCPUAllocator() : own,
                                   c10::DispatchKeySet(c10::DispatchKey::CPU), dtype, std::nullopt);
}

void empty_cache() { kept_blocks().clear(); }

TORCH_LIBRARY_IMPL(spgrad, CompositeImplicitAutograd, m) {
  m.impl("empty_cache", [] { empty_cache(); });
  m.impl("empty_large", &empty_large);
}

}  // namespace spgrad
