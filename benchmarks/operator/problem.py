"""One product to compute: the matrix, both operands and the cotangent, as plain tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

if TYPE_CHECKING:
    from pathlib import Path


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert to another dtype; real numbers that become complex get imaginary parts."""
    if dtype.is_complex and not tensor.is_complex():
        tensor = torch.complex(tensor, tensor.flip(-1))
    return tensor.to(dtype)


@dataclass(frozen=True)
class Problem:
    """A CSR matrix (n, m) or a batch (b, n, m) of them, B, and the cotangent G of the product.

    Columns are sorted within rows and no entry is there twice, so that every layout can represent
    the matrix as it is. Indices are int64; each contender converts them before it is timed.
    """

    size: tuple[int, int]
    crow_indices: Tensor
    col_indices: Tensor
    values: Tensor
    B: Tensor
    G: Tensor

    @cached_property
    def batch(self) -> int | None:
        """Number of matrices, or None for a single matrix."""
        return self.crow_indices.size(0) if self.crow_indices.dim() == 2 else None  # noqa: PLR2004

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of A."""
        return self.size if self.batch is None else (self.batch, *self.size)

    @property
    def entries(self) -> int:
        """Number of specified entries, in all items together."""
        return self.values.numel()

    @property
    def columns(self) -> int:
        """Number of columns of B, called p elsewhere."""
        return self.B.size(-1)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of all values."""
        return self.values.dtype

    def items(self) -> list[Problem]:
        """List the matrices of a batch, or the matrix alone."""
        if self.batch is None:
            return [self]
        fields = (self.crow_indices, self.col_indices, self.values, self.B, self.G)
        return [Problem(self.size, *tensors) for tensors in zip(*fields, strict=True)]

    def to(self, dtype: torch.dtype) -> Problem:
        """Give the same problem with values of another dtype."""
        dense = (_converted(tensor, dtype) for tensor in (self.values, self.B, self.G))
        return Problem(self.size, self.crow_indices, self.col_indices, *dense)

    def on(self, device: str) -> Problem:
        """Give the same problem on a device."""
        fields = (self.crow_indices, self.col_indices, self.values, self.B, self.G)
        return Problem(self.size, *(tensor.to(device) for tensor in fields))

    def with_columns(self, columns: int) -> Problem:
        """Give a problem with the same matrix and other numbers of columns, repeated if needed."""

        def cut(tensor: Tensor) -> Tensor:
            repeats = -(-columns // tensor.size(-1))
            repeated = torch.cat([tensor, *(tensor.flip(-2) for _ in range(1, repeats))], -1)
            return repeated[..., :columns].contiguous()

        fields = (self.crow_indices, self.col_indices, self.values)
        return Problem(self.size, *fields, cut(self.B), cut(self.G))

    def absolute(self) -> Problem:
        """Give the problem of absolute values: its results bound the size of rounding errors."""
        dense = (tensor.abs() for tensor in (self.values, self.B, self.G))
        return Problem(self.size, self.crow_indices, self.col_indices, *dense)

    def row_indices(self) -> Tensor:
        """Row of each entry, (nnz); for one matrix."""
        rows = torch.arange(self.size[0], device=self.crow_indices.device)
        return torch.repeat_interleave(rows, self.crow_indices.diff())

    def save(self, path: Path) -> None:
        """Write the problem to a file."""
        fields = (self.crow_indices, self.col_indices, self.values, self.B, self.G)
        torch.save((self.size, *(field.clone() for field in fields)), path)

    @staticmethod
    def load(path: Path) -> Problem:
        """Read a problem that was saved."""
        return Problem(*torch.load(path))


def make_problem(
    size: tuple[int, int],
    crow_indices: Tensor,
    col_indices: Tensor,
    columns: int,
    values: Tensor | None = None,
) -> Problem:
    """Make B and G, and the values unless they are given, from the normal distribution."""
    generator = torch.Generator().manual_seed(0)
    batch = crow_indices.shape[:-1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*batch, *shape, dtype=torch.float64, generator=generator)

    if values is None:
        values = normal(col_indices.size(-1))
    B, G = normal(size[1], columns), normal(size[0], columns)
    return Problem(size, crow_indices, col_indices, values, B, G)


@dataclass(frozen=True)
class NamedMatrix:
    """A SciPy matrix, and what it is."""

    description: str
    matrix: Any

    def problem(self, columns: int) -> Problem:
        """Make a problem with the values of the matrix; duplicates add up."""
        csr = scipy.sparse.csr_array(self.matrix)
        csr.sum_duplicates()
        crow_indices = torch.from_numpy(csr.indptr.astype(np.int64))
        col_indices = torch.from_numpy(csr.indices.astype(np.int64))
        values = torch.from_numpy(csr.data.astype(np.float64))
        return make_problem(csr.shape, crow_indices, col_indices, columns, values)
