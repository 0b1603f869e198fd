"""Sparse × dense for PyTorch, with gradients that stay sparse.

``sparse_mm(A, B)`` is the product of a sparse COO or CSR tensor and a dense one, a drop-in for
``torch.sparse.mm``, and ``matmul`` one for ``torch.matmul``; ``csr_mm`` and ``coo_mm`` are the same
products on plain tensors, and ``Pattern`` prepares a structure for many of them. ``sddmm`` and its
like are the products of two dense matrices at the entries of a sparse one. ``from_scipy`` and
``to_scipy`` share memory with SciPy. ``nn`` has layers with sparse weights, ``cuda`` what concerns
CUDA devices alone.
"""

from spgrad import cuda, nn
from spgrad._build import __version__
from spgrad._instruction_sets import instruction_set, instruction_sets, use_instruction_set
from spgrad._memory import empty_cache
from spgrad._pattern import Pattern
from spgrad._products import (
    coo_mm,
    coo_sddmm,
    csr_mm,
    csr_sddmm,
    csr_softmax,
    matmul,
    sddmm,
    sparse_mm,
)
from spgrad._scipy import from_scipy, to_scipy

__all__ = [
    "Pattern",
    "__version__",
    "coo_mm",
    "coo_sddmm",
    "csr_mm",
    "csr_sddmm",
    "csr_softmax",
    "cuda",
    "empty_cache",
    "from_scipy",
    "instruction_set",
    "instruction_sets",
    "matmul",
    "nn",
    "sddmm",
    "sparse_mm",
    "to_scipy",
    "use_instruction_set",
]
