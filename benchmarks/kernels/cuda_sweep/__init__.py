"""Times of the CUDA kernels with other constants: ``python -m benchmarks.kernels.cuda_sweep``."""
