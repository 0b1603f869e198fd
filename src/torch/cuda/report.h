// What kernels found wrong with offsets and indices, and when it is said.
//
// A product does not wait for the device. Its kernels leave a record in memory of the host; the
// next product on the device raises it, or check(), or the product itself where it was asked to
// wait.
#pragma once

#include <c10/core/Device.h>

#include "../../kernels/cuda/arguments.h"

namespace spgrad::cuda {

// Where kernels report what they find wrong: fills in the part of Origin that says so.
void prepare_records(c10::Device device, Origin& origin);

// Raises what kernels have reported. Waits only where they have, for the current stream, so that
// the first place is known; not during a capture, and not for kernels of other streams.
void raise_reported(c10::Device device);

// At the end of a product: waits and raises where every product has to.
void finish_product(c10::Device device);

// Waits for the current stream of the device, and raises what its kernels reported.
void check(c10::Device device);

// From now on, does every product wait for its report? Returns what was set before; at first
// whether CUDA_LAUNCH_BLOCKING is 1.
bool set_check_at_once(bool at_once);

}  // namespace spgrad::cuda
