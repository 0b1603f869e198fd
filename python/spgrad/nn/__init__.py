"""Layers with sparse weights, in the manner of ``torch.nn``."""

from spgrad.nn._pattern_buffer import PatternBuffer
from spgrad.nn._sparse_linear import SparseLinear

__all__ = ["PatternBuffer", "SparseLinear"]
