"""Multiplies and differentiates a finite-element matrix, beside PyTorch."""

from pathlib import Path

import numpy as np
import scipy.sparse
from rich.console import Console
from rich.filesize import decimal
from skfem import Basis, ElementTetP1, ElementVector, MeshTet, asm
from skfem.models.elasticity import lame_parameters, linear_elasticity

from demo import comparison_figure, tables
from demo.comparison import compare
from demo.memory import available_bytes
from demo.problem import Operands, Problem

ASSEMBLY_PARTS = 8


def elastic_ball(refinements: int = 5) -> Problem:
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
    return Problem(
        f"Stiffness of an elastic ball, {stiffness.shape[0]:,} unknowns",
        scipy.sparse.csr_array(stiffness),
    )


def run(console: Console, output: Path, problem: Problem, p: int, timing_seconds: float) -> None:
    """Compare the contenders, print the tables and draw the figure."""
    operands = Operands.random(problem, p)
    console.print(
        f"{problem.name}: {len(operands.values):,} entries, times a dense matrix of {p} columns\n"
        f"the product and both gradients take {decimal(operands.result_bytes)}, "
        f"a dense gradient of A would take {decimal(operands.dense_gradient_bytes)} "
        f"({decimal(available_bytes())} of memory available)",
        highlight=False,
    )
    measurements = compare(console, operands, timing_seconds)
    console.print(tables.agreement_table(measurements))
    console.print(tables.comparison_table(measurements, operands))
    figure = output / "finite_elements.png"
    comparison_figure.save(figure, problem, measurements, operands)
    console.print(f"saved {figure}", highlight=False)
    for measurement in measurements:
        if not measurement.deviation.agrees:
            message = f"{measurement.contender.name} does not agree with SciPy"
            raise SystemExit(message)
