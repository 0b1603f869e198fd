"""Time and memory of spgrad and PyTorch on one matrix: ``python -m benchmarks.comparison``."""
