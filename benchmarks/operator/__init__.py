"""Times and peak memory of the operator beside other libraries: ``python -m benchmarks.operator``."""
