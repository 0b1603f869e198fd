"""Sparse × dense for PyTorch, with gradients that stay sparse.

>>> import torch, spgrad
>>> A = torch.eye(3).to_sparse_csr().requires_grad_()
>>> spgrad.sparse_mm(A, torch.ones(3, 2)).sum().backward()
>>> A.grad.values()
tensor([2., 2., 2.])

================================  ========================================================
``sparse_mm``                     sparse tensor × dense, a drop-in for ``torch.sparse.mm``
``matmul``                        ``torch.matmul`` where one operand is sparse
``csr_mm``, ``coo_mm``            products on plain tensors, for any optimiser
``Pattern``                       a structure prepared once for many products
``sddmm``, ``csr_sddmm``,         two dense matrices, multiplied at the entries of
``coo_sddmm``                     a sparse one
``csr_softmax``                   softmax over the entries of rows or columns
``sparse_lstsq``, ``csr_lstsq``,  least squares
``coo_lstsq``
``sparse_generic_lstsq``,         least squares and linear systems, by a solver of yours
``sparse_generic_solve``
``nn``                            layers with sparse weights
``distributed``                   products over ranks of ``torch.distributed``
``contrib``                       layers of PyTorch Geometric, export to ONNX
``from_scipy``, ``to_scipy``      matrices of SciPy, sharing memory
``cuda``                          what concerns CUDA devices alone
``instruction_sets``,             which kernels this CPU can run, which it runs, and a
``instruction_set``,              choice among them
``use_instruction_set``
``empty_cache``                   gives kept memory back to the system
================================  ========================================================

Start with ``help(spgrad.sparse_mm)``. ``python -m spgrad.info`` shows what is installed.
"""

import importlib
from typing import TYPE_CHECKING

from spgrad import cuda, nn
from spgrad._build import __version__
from spgrad._generic import sparse_generic_lstsq, sparse_generic_solve
from spgrad._instruction_sets import instruction_set, instruction_sets, use_instruction_set
from spgrad._lstsq import (
    ConvergenceError,
    ConvergenceWarning,
    LstsqReport,
    coo_lstsq,
    csr_lstsq,
    sparse_lstsq,
)
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
    "ConvergenceError",
    "ConvergenceWarning",
    "LstsqReport",
    "Pattern",
    "__version__",
    "contrib",
    "coo_lstsq",
    "coo_mm",
    "coo_sddmm",
    "csr_lstsq",
    "csr_mm",
    "csr_sddmm",
    "csr_softmax",
    "cuda",
    "distributed",
    "empty_cache",
    "from_scipy",
    "instruction_set",
    "instruction_sets",
    "matmul",
    "nn",
    "sddmm",
    "sparse_generic_lstsq",
    "sparse_generic_solve",
    "sparse_lstsq",
    "sparse_mm",
    "to_scipy",
    "use_instruction_set",
]

if TYPE_CHECKING:
    from spgrad import contrib, distributed
else:

    def __getattr__(name: str) -> object:
        """Import these when they are first used: ``distributed`` takes as long as a second."""
        if name in ("contrib", "distributed"):
            return importlib.import_module(f"spgrad.{name}")
        message = f"module 'spgrad' has no attribute {name!r}"
        raise AttributeError(message)

    def __dir__() -> list[str]:
        """List what is imported when it is first used, too."""
        return sorted({*globals(), *__all__})
