"""The problems: a random matrix and a levelling network, with solutions that are exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Least squares of full column rank, for k right-hand sides, and what they come to."""

    name: str
    A: scipy.sparse.csr_matrix
    B: Numbers
    G: Numbers
    """The incoming gradient."""

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The row of each entry."""
        return np.repeat(np.arange(self.A.shape[0]), np.diff(self.A.indptr))

    def gradient(self, x: Numbers, w: Numbers, z: Numbers) -> Numbers:
        """Compute the gradient of the entries from the solutions: Golub and Pereyra's terms."""
        r = self.B - self.A @ x
        columns = self.A.indices
        gradient: Numbers = (r[self.rows] * z[columns] - w[self.rows] * x[columns]).sum(1)
        return gradient

    def exact(self) -> dict[str, Numbers]:
        """Solve by a factor of the normal equations, and refine."""
        factor = scipy.sparse.linalg.splu((self.A.T @ self.A).tocsc())
        x = factor.solve(self.A.T @ self.B)
        x += factor.solve(self.A.T @ (self.B - self.A @ x))
        z = factor.solve(self.G)
        z += factor.solve(self.G - self.A.T @ (self.A @ z))
        w = self.A @ z
        return {"x": x, "dA": self.gradient(x, w, z), "dB": w}


def random_matrix(
    rows: int, columns: int, generator: np.random.Generator
) -> scipy.sparse.coo_matrix:
    """Make a matrix with five entries in each row, at random places."""
    row = np.repeat(np.arange(rows), 5)
    column = generator.integers(columns, size=5 * rows)
    values = generator.standard_normal(5 * rows)
    return scipy.sparse.coo_matrix((values, (row, column)), shape=(rows, columns))


def levelling_network(side: int, generator: np.random.Generator) -> scipy.sparse.coo_matrix:
    """Make the matrix of height differences along a grid, with weights, and one known height."""
    point = np.arange(side**2).reshape(side, side)
    start = np.concatenate([point[:, :-1].ravel(), point[:-1].ravel()])
    end = np.concatenate([point[:, 1:].ravel(), point[1:].ravel()])
    lines = len(start)
    weight = generator.uniform(0.5, 2, lines)
    row = np.concatenate([np.arange(lines), np.arange(lines), [lines]])
    column = np.concatenate([start, end, [0]])
    values = np.concatenate([-weight, weight, [1]])
    return scipy.sparse.coo_matrix((values, (row, column)), shape=(lines + 1, side**2))


def problems(*, quick: bool) -> list[Problem]:
    """List the problems."""
    generator = np.random.default_rng(0)
    rows, columns, side, many = (200, 50, 6, 3) if quick else (20_000, 5_000, 100, 16)
    matrices: list[tuple[str, Callable[[], scipy.sparse.coo_matrix], int]] = [
        ("random", lambda: random_matrix(rows, columns, generator), 1),
        ("random", lambda: random_matrix(rows, columns, generator), many),
        ("levelling network", lambda: levelling_network(side, generator), many),
    ]
    made = []
    for name, make, k in matrices:
        A = make().tocsr()
        A.sum_duplicates()
        n, m = A.shape
        B, G = (generator.standard_normal((size, k)) for size in (n, m))
        made.append(Problem(f"{name}, {n:,} × {m:,}, k = {k}", A, B, G))
    return made
