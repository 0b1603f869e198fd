// Where the kernels of one product tell each other what they find, zero at first.
//
// To clear it for each product would take the device as long as to launch a kernel, and the host as
// long as that and to get the memory. So many are cleared at once, and products of a stream take
// one after the other. They lie in memory of our own: what PyTorch's allocator gives belongs to the
// pool at hand, of a graph perhaps, which is not to be kept beyond the call.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include "../../kernels/cuda/arguments.h"

namespace spgrad::cuda {

// Those of one stream, of which the first ones have been taken since all were cleared.
struct Statuses {
  Status* first;
  int taken;
};

// The status of one product. Whoever has it launches all kernels of that product on the stream that
// is current where it is made.
class ZeroStatus {
 public:
  explicit ZeroStatus(c10::Device device);
  ZeroStatus(const ZeroStatus&) = delete;
  ZeroStatus& operator=(const ZeroStatus&) = delete;
  ~ZeroStatus();

  Status* get() const { return status_; }

 private:
  c10::Stream stream_;
  Statuses statuses_ = {};  // nobody else takes one of these meanwhile
  at::Tensor own_;          // where it has none of these
  Status* status_;
};

}  // namespace spgrad::cuda
