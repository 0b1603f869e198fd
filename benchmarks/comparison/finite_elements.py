"""Assembles a finite-element matrix."""

import numpy as np
import scipy.sparse
from skfem import Basis, ElementTetP1, ElementVector, MeshTet, asm
from skfem.models.elasticity import lame_parameters, linear_elasticity

from benchmarks.operator.problem import NamedMatrix

ASSEMBLY_PARTS = 8


def elastic_ball(refinements: int = 5) -> NamedMatrix:
    """Assemble the stiffness matrix of a steel ball, cut into linear tetrahedra.

    Every refinement cuts each tetrahedron in eight; five of them give 137,475 unknowns, three
    displacements for each vertex. The entries are in units of 100 GPa times the ball's radius.
    """
    mesh = MeshTet.init_ball(nrefs=refinements)
    element = ElementVector(ElementTetP1())
    youngs_modulus, poisson_ratio = 2.1, 0.3
    elasticity = linear_elasticity(*lame_parameters(youngs_modulus, poisson_ratio))
    # Assembled in parts, as all element matrices at once take 2 GB. The strain of a linear
    # tetrahedron is constant, so that quadrature of order 1 is exact.
    stiffness = sum(
        asm(elasticity, Basis(mesh, element, intorder=1, elements=part))
        for part in np.array_split(np.arange(mesh.nelements), ASSEMBLY_PARTS)
    )
    return NamedMatrix(
        f"Stiffness of an elastic ball, {stiffness.shape[0]:,} unknowns",
        scipy.sparse.csr_array(stiffness),
    )
