// All kernels: what NVRTC is given to compile one of them.
#pragma once
#include "check.cuh"
#include "extremum.cuh"
#include "symmetric.cuh"
