"""The operands that every contender multiplies and differentiates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """A sparse matrix (a SciPy csr_array) under a name for titles."""

    name: str
    matrix: Any


@dataclass(frozen=True)
class Operands:
    """A sparse A `(n, m)`, a dense B `(m, p)` and the gradient G `(n, p)` of the product A B.

    A is kept as the arrays that PyTorch's CSR and COO tensors are made of, so that either layout
    is a view of the same memory. All values are float32 and all indices int64, PyTorch's defaults.
    """

    shape: tuple[int, int]
    row_offsets: Tensor
    coordinates: Tensor
    values: Tensor
    dense: Tensor
    product_gradient: Tensor

    @classmethod
    def random(cls, problem: Problem, p: int) -> "Operands":
        """Take A from the problem, and B and G from the normal distribution."""
        matrix = problem.matrix.copy()
        matrix.sum_duplicates()
        n, m = matrix.shape
        rows = np.repeat(np.arange(n), np.diff(matrix.indptr))
        values = torch.from_numpy(matrix.data).to(torch.float32)
        if not values.isfinite().all():
            message = f"{problem.name}: some entries are not finite in float32"
            raise SystemExit(message)
        generator = torch.Generator().manual_seed(0)
        return cls(
            shape=(n, m),
            row_offsets=torch.from_numpy(matrix.indptr).to(torch.int64),
            coordinates=torch.from_numpy(np.stack((rows, matrix.indices)).astype(np.int64)),
            values=values,
            dense=torch.randn(m, p, generator=generator),
            product_gradient=torch.randn(n, p, generator=generator),
        )

    def sparse(self, layout: str) -> Tensor:
        """Return A in the layout "CSR" or "COO"."""
        # The invariants are not checked: SciPy vouches for them, and the check needs memory.
        if layout == "CSR":
            return torch.sparse_csr_tensor(
                self.row_offsets,
                self.coordinates[1],
                self.values,
                self.shape,
                check_invariants=False,
            )
        return torch.sparse_coo_tensor(
            self.coordinates, self.values, self.shape, is_coalesced=True, check_invariants=False
        )

    @property
    def dense_gradient_bytes(self) -> int:
        """Return what the gradient of A takes when it is not kept sparse."""
        return self.shape[0] * self.shape[1] * self.values.itemsize

    @property
    def result_bytes(self) -> int:
        """Return what the product and both gradients take, which no contender can do without."""
        return self.product_gradient.nbytes + self.values.nbytes + self.dense.nbytes

    def save(self, path: Path) -> None:
        """Write the operands to a file."""
        torch.save(vars(self), path)

    @classmethod
    def load(cls, path: Path) -> "Operands":
        """Read what `save` wrote."""
        return cls(**torch.load(path))
