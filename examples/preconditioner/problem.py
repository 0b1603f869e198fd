"""Heat conduction through a plate whose conductivity is a photograph."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import skfem
import skimage
import torch
from numpy.typing import NDArray
from skfem.helpers import dot, grad
from torch import Tensor

import spgrad

# The brightest pixels conduct so many times better than the darkest.
CONTRAST = 1000


@dataclass(frozen=True)
class Problem:
    """A symmetric system, scaled so that its diagonal is one: Jacobi's method is in it."""

    cells: int
    """Along each side."""
    conductivity: NDArray[np.float64]
    """Of each square."""
    matrix: scipy.sparse.csr_matrix
    right: Tensor
    """Shape ``(n, 1)``."""
    scale: Tensor
    """What the solution is multiplied by to be a temperature."""

    def operator(self) -> tuple[spgrad.Pattern, Tensor]:
        """Give the matrix as a pattern and values."""
        return pattern_of(self.matrix), torch.from_numpy(self.matrix.data)

    def picture(self, solution: Tensor) -> NDArray[np.float64]:
        """Give one number for each inner node as a picture."""
        inner = self.cells - 1
        picture: NDArray[np.float64] = (self.scale * solution).view(inner, inner).numpy()
        return picture


def pattern_of(matrix: scipy.sparse.csr_matrix) -> spgrad.Pattern:
    """Take over the places of a matrix of SciPy."""
    offsets, columns = torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices)
    return spgrad.Pattern.from_csr(offsets, columns, matrix.shape)


def assemble(cells: int) -> Problem:
    """Assemble the matrix of linear elements for a plate that is cold along its edges."""
    photograph = skimage.data.coins()
    rows, columns = (np.linspace(0, size - 1, cells).astype(int) for size in photograph.shape)
    conductivity = CONTRAST ** (photograph[np.ix_(rows, columns)] / 255.0)
    places = np.linspace(0, 1, cells + 1)
    basis = skfem.Basis(skfem.MeshTri.init_tensor(places, places), skfem.ElementTriP1())

    def at(points: NDArray[np.float64]) -> NDArray[np.float64]:
        across, up = (points * cells).astype(int).clip(0, cells - 1)
        values: NDArray[np.float64] = conductivity[up, across]
        return values

    form = skfem.BilinearForm(lambda u, v, w: at(w.x) * dot(grad(u), grad(v)))
    load = skfem.LinearForm(lambda v, _: v)
    inner = basis.complement_dofs(basis.get_dofs())
    # Row by row of the picture.
    x, y = basis.doflocs[:, inner]
    inner = inner[np.lexsort((x, y))]
    matrix = form.assemble(basis).tocsr()[inner][:, inner]
    scale = matrix.diagonal() ** -0.5
    diagonal = scipy.sparse.diags(scale)
    scaled = (diagonal @ matrix @ diagonal).tocsr()
    scaled.sort_indices()
    right = torch.from_numpy(scale * load.assemble(basis)[inner]).unsqueeze(1)
    return Problem(cells, conductivity, scaled, right, torch.from_numpy(scale))
