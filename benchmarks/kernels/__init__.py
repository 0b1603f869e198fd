"""Times of single kernels: of the CPU by ``kernel_benchmarks.cpp``, of CUDA by ``cuda_sweep``."""
