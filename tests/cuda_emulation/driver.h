// What the driver and NVRTC of the tests share.
#pragma once

#include "emulation.h"

// Of every function that has a CUDA name.
#define SPGRAD_EXPORT extern "C" __attribute__((visibility("default")))

namespace emulation {

// What a test has asked this function to fail with; 0 if nothing. Counts the call.
int called(const char* function);

}  // namespace emulation

// Counts of calls, and failures on demand: the next `times` calls of the function return `result`.
SPGRAD_EXPORT unsigned long long emulation_calls(const char* function);
SPGRAD_EXPORT void emulation_fail(const char* function, int result, unsigned times);
// From now on streams are captured, or not. What they are given runs all the same.
SPGRAD_EXPORT void emulation_capture(bool capturing);
// From now on launches have this seed, and not one after the other.
SPGRAD_EXPORT void emulation_seed(unsigned long long seed);
// Forgets all of these, and an error that a kernel has left behind.
SPGRAD_EXPORT void emulation_reset();
