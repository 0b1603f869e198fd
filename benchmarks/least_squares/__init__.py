"""Least squares beside other libraries: ``python -m benchmarks.least_squares``."""
