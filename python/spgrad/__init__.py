"""Sparse × dense for PyTorch, with gradients that stay sparse.

>>> import torch, spgrad
>>> A = torch.eye(3).to_sparse_csr().requires_grad_()
>>> spgrad.sparse_mm(A, torch.ones(3, 2)).sum().backward()
>>> A.grad.values()
tensor([2., 2., 2.])

=================================  ============================================================
``sparse_mm``                      sparse tensor × dense, a drop-in for ``torch.sparse.mm``
``csr_mm``, ``coo_mm``             the same on plain tensors, for any optimiser
``Pattern``                        a structure prepared once for many products
``sddmm``, ``csr_sddmm``,          two dense matrices, multiplied at the entries of a sparse one
``coo_sddmm``
``nn``                             layers with sparse weights
``from_scipy``, ``to_scipy``       matrices of SciPy, sharing memory
``cuda``                           what concerns CUDA devices alone
=================================  ============================================================

Start with ``help(spgrad.sparse_mm)``. ``python -m spgrad.info`` shows what is installed.
"""

from spgrad import cuda, nn
from spgrad._build import __version__
from spgrad._instruction_sets import instruction_set, instruction_sets, use_instruction_set
from spgrad._memory import empty_cache
from spgrad._pattern import Pattern
from spgrad._products import coo_mm, coo_sddmm, csr_mm, csr_sddmm, sddmm, sparse_mm
from spgrad._scipy import from_scipy, to_scipy

__all__ = [
    "Pattern",
    "__version__",
    "coo_mm",
    "coo_sddmm",
    "csr_mm",
    "csr_sddmm",
    "cuda",
    "empty_cache",
    "from_scipy",
    "instruction_set",
    "instruction_sets",
    "nn",
    "sddmm",
    "sparse_mm",
    "to_scipy",
    "use_instruction_set",
]
