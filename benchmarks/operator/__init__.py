"""Times and peak memory beside other libraries: ``python -m benchmarks.operator``."""
