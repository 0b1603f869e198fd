"""A random field fills gaps of a depth map: ``python -m examples.precision_matrix``."""
