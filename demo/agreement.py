"""Checks every contender against SciPy in float64."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.contenders import Contender, Results, backward
from demo.problem import Operands

Array = NDArray[np.float64]

# float32 keeps 6e-8 of a number; sums of up to tens of thousands of terms stay well within this.
TOLERANCE = 1e-5
# Entries of A per step of the reference gradient. With p = 128 the terms take 4 MB and stay in
# cache; steps of 65,536 entries take three times as long.
CHUNK = 1 << 12


@dataclass(frozen=True)
class Quantity:
    """An exact result with the size of the terms it sums, which its rounding errors scale with."""

    exact: Array
    magnitude: float

    def error(self, computed: Tensor) -> float:
        """Return the largest deviation, relative to the terms."""
        difference = float(np.max(np.abs(computed.detach().numpy() - self.exact), initial=0.0))
        return difference / self.magnitude if difference else 0.0


@dataclass(frozen=True)
class Deviation:
    """Largest errors relative to the sizes of the terms; None for what was not computed."""

    product: float
    matrix_gradient: float | None
    dense_gradient: float

    @property
    def agrees(self) -> bool:
        """Say whether rounding explains the deviation."""
        errors = (self.product, self.matrix_gradient, self.dense_gradient)
        # Written so that NaN does not agree.
        return all(error <= TOLERANCE for error in errors if error is not None)


class Reference:
    """The product and both gradients in float64, by SciPy and NumPy alone."""

    def __init__(self, operands: Operands) -> None:
        """Compute the results."""
        matrix = scipy.sparse.csr_array(
            (
                operands.values.numpy().astype(np.float64),
                operands.coordinates[1].numpy(),
                operands.row_offsets.numpy(),
            ),
            shape=operands.shape,
        )
        self.operands = operands
        self.product = self._product(matrix, operands.dense)
        self.dense_gradient = self._product(matrix.T, operands.product_gradient)
        self.matrix_gradient = self._matrix_gradient(operands)

    @staticmethod
    def _product(matrix: scipy.sparse.csr_array, dense: Tensor) -> Quantity:
        factor = dense.numpy().astype(np.float64)
        exact = matrix @ factor
        return Quantity(exact, float(np.max(abs(matrix) @ np.abs(factor), initial=0.0)))

    @staticmethod
    def _matrix_gradient(operands: Operands) -> Quantity:
        """Compute (G Bᵀ)[i, j] at the specified entries (i, j) of A."""
        rows, columns = operands.coordinates.numpy()
        product_gradient = operands.product_gradient.numpy()
        dense = operands.dense.numpy()
        exact = np.empty(len(rows))
        magnitude = 0.0
        for start in range(0, len(rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            terms = product_gradient[rows[chunk]].astype(np.float64) * dense[columns[chunk]]
            exact[chunk] = terms.sum(axis=1)
            magnitude = max(magnitude, float(np.abs(terms).sum(axis=1).max()))
        return Quantity(exact, magnitude)

    def deviation(self, contender: Contender) -> Deviation:
        """Run the contender and compare."""
        matrix, dense = contender.leaves(self.operands)
        results = backward(
            contender.multiply(matrix, dense), matrix, dense, self.operands.product_gradient
        )
        return Deviation(
            self.product.error(results.product),
            self._matrix_gradient_error(results),
            self.dense_gradient.error(results.dense_gradient),
        )

    def _matrix_gradient_error(self, results: Results) -> float | None:
        gradient = results.matrix_gradient
        if gradient is None:
            return None
        gradient = gradient.to_sparse().coalesce()
        if not torch.equal(gradient.indices(), self.operands.coordinates):
            return float("inf")
        return self.matrix_gradient.error(gradient.values())
