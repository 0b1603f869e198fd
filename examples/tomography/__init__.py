"""Learns the faults of a tomograph from its own measurements: ``python -m examples.tomography``."""
