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

Statuses take(const c10::Stream& stream) {
  {
    const std::lock_guard lock(idle().mutex);
    std::vector<Statuses>& of_stream = idle().of_stream[stream];
    if (!of_stream.empty()) {
      const Statuses last = of_stream.back();
      of_stream.pop_back();
      return last;
    }
  }
  return {static_cast<Status*>(allocate(kStatuses * sizeof(Status), stream.device())), kStatuses};
}

}  // namespace

ZeroStatus::ZeroStatus(c10::Device device) : stream_(current_stream(device)) {
  if (is_capturing(device)) {
    // Cleared whenever the graph is played.
    of_graph_ = at::empty({sizeof(Status)}, at::TensorOptions(at::kByte).device(device));
    status_ = static_cast<Status*>(of_graph_.mutable_data_ptr());
    clear(status_, sizeof(Status), device);
    return;
  }
  statuses_ = take(stream_);
  if (statuses_.taken == kStatuses) {
    // After the kernels of all products that had one, which are before this on the stream.
    clear(statuses_.first, kStatuses * sizeof(Status), device);
    statuses_.taken = 0;
  }
  status_ = statuses_.first + statuses_.taken++;
}

ZeroStatus::~ZeroStatus() {
  if (statuses_.first == nullptr) return;
  const std::lock_guard lock(idle().mutex);
  idle().of_stream[stream_].push_back(statuses_);
}

}  // namespace spgrad::cuda
