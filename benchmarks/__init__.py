"""Benchmarks of the operator (Python) and of the kernels (C++)."""
