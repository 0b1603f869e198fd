#include "cuda/status.h"

#include <ATen/ops/empty.h>

#include <mutex>
#include <unordered_map>
#include <vector>

#include "cuda/kernels.h"

namespace spgrad::cuda {
namespace {

constexpr int kStatuses = 64;

// Those that no product has. Each stream has as many as threads were ever at work on it at a time.
// Kept for the process.
struct Idle {
  std::mutex mutex;
  std::unordered_map<c10::Stream, std::vector<Statuses>> of_stream;
};
Idle& idle() {
  static Idle& idle = *new Idle;
  return idle;
}

// None where there is no memory for them.
Statuses take(const c10::Stream& stream) {
  const std::lock_guard lock(idle().mutex);
  std::vector<Statuses>& of_stream = idle().of_stream[stream];
  if (of_stream.empty()) {
    auto* const first = static_cast<Status*>(allocate(kStatuses * sizeof(Status), stream.device()));
    if (first == nullptr) return {};
    of_stream.push_back({first, kStatuses});
  }
  Statuses& last = of_stream.back();
  if (last.taken == kStatuses) {
    // After the kernels of all products that had one, which are before this on the stream.
    clear(last.first, kStatuses * sizeof(Status), stream.device());
    last.taken = 0;
  }
  const Statuses taken = last;
  of_stream.pop_back();
  return taken;
}

}  // namespace

ZeroStatus::ZeroStatus(c10::Device device) : stream_(current_stream(device)) {
  if (!is_capturing(device)) statuses_ = take(stream_);
  if (statuses_.first != nullptr) {
    status_ = statuses_.first + statuses_.taken++;
    return;
  }
  // Of a graph, cleared whenever it is played; else of the memory that PyTorch has kept.
  own_ = at::empty({sizeof(Status)}, at::TensorOptions(at::kByte).device(device));
  status_ = static_cast<Status*>(own_.mutable_data_ptr());
  clear(status_, sizeof(Status), device);
}

ZeroStatus::~ZeroStatus() {
  if (statuses_.first == nullptr) return;
  const std::lock_guard lock(idle().mutex);
  idle().of_stream[stream_].push_back(statuses_);
}

}  // namespace spgrad::cuda
