"""The libraries that are compared: each solves to a tolerance, and gives gradients."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse.linalg
import threadpoolctl
import torch

import spgrad

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.least_squares.problems import Numbers, Problem

    Solve = Callable[[], Numbers]
    Differentiate = Callable[[], tuple[Numbers, Numbers]]

MOST_ITERATIONS = 20_000


class Contender(ABC):
    """A library's least squares."""

    name: str
    package: str

    def is_there(self) -> bool:
        """Say whether it is installed."""
        return importlib.util.find_spec(self.package) is not None

    @abstractmethod
    def prepare(self, problem: Problem, tolerance: float) -> tuple[Solve, Differentiate]:
        """Make what gives x, and what gives the gradients of the entries and of B."""


def _csr(problem: Problem) -> torch.Tensor:
    A = problem.A
    offsets, columns = (torch.from_numpy(x.astype(np.int64)) for x in (A.indptr, A.indices))
    return torch.sparse_csr_tensor(offsets, columns, torch.from_numpy(A.data), A.shape)


def _differentiated(
    solve: Callable[[], torch.Tensor], leaves: tuple[torch.Tensor, torch.Tensor], problem: Problem
) -> tuple[Solve, Differentiate]:
    G = torch.from_numpy(problem.G)
    x = solve()

    def differentiate() -> tuple[Numbers, Numbers]:
        dA, dB = torch.autograd.grad(x, leaves, G, retain_graph=True)
        values = dA if dA.layout == torch.strided else dA.values()
        return values.numpy(), dB.numpy()

    return lambda: solve().detach().numpy(), differentiate


class Spgrad(Contender):
    """``Pattern.lstsq`` by iteration."""

    name = package = "spgrad"
    method: Literal["lsmr", "direct"] = "lsmr"

    def prepare(self, problem: Problem, tolerance: float) -> tuple[Solve, Differentiate]:  # noqa: D102
        A = _csr(problem)
        pattern = spgrad.Pattern(A)
        values, B = A.values().clone().requires_grad_(), torch.tensor(problem.B, requires_grad=True)

        def solve() -> torch.Tensor:
            return pattern.lstsq(
                values,
                B,
                tol=tolerance,
                maxiter=MOST_ITERATIONS,
                on_failure="raise",
                method=self.method,
            )

        return _differentiated(solve, (values, B), problem)


class SpgradDirect(Spgrad):
    """``Pattern.lstsq`` by a Cholesky factor, whose structure the pattern has from the first."""

    name = 'spgrad, `method="direct"`'
    method = "direct"


class TorchSparseGradUtils(Contender):
    """``sparse_generic_lstsq``, with its own LSMR at this tolerance."""

    name = package = "torchsparsegradutils"

    def prepare(self, problem: Problem, tolerance: float) -> tuple[Solve, Differentiate]:  # noqa: D102
        library: Any = importlib.import_module("torchsparsegradutils")
        lsmr: Any = importlib.import_module("torchsparsegradutils.utils").lsmr
        A = _csr(problem).requires_grad_()
        B = torch.tensor(problem.B, requires_grad=True)
        options = {"atol": tolerance, "btol": tolerance, "maxiter": MOST_ITERATIONS}

        def columns(A: torch.Tensor, B: torch.Tensor, *adjoint: Any) -> torch.Tensor:
            solved = [lsmr(A, b, *adjoint, **options)[0] for b in B.unbind(1)]
            return torch.stack(solved, 1)

        def transposed(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
            return columns(torch.adjoint(A), B, A, A.shape[0])

        def solve() -> torch.Tensor:
            x: torch.Tensor = library.sparse_generic_lstsq(A, B, columns, transposed)
            return x

        return _differentiated(solve, (A, B), problem)


class SciPy(Contender):
    """``scipy.sparse.linalg.lsmr`` of one column after the other, and the terms by hand.

    Its vectors stay on one thread: that is faster for 20,000 rows (10 ms instead of 17 on two cores
    of an EPYC of the 5th generation), and threads that wait for more of them would take a core from
    whoever is timed next.
    """

    name, package = "SciPy", "scipy"

    def prepare(self, problem: Problem, tolerance: float) -> tuple[Solve, Differentiate]:  # noqa: D102
        A, transposed = problem.A, problem.A.T.tocsr()
        threadpoolctl.ThreadpoolController().select(internal_api="openblas").limit(limits=1)

        def columns(A: Any, B: Numbers) -> Numbers:
            options = {"atol": tolerance, "btol": tolerance, "conlim": 0}
            solved = [
                scipy.sparse.linalg.lsmr(A, b, maxiter=MOST_ITERATIONS, **options)[0] for b in B.T
            ]
            return np.stack(solved, 1)

        x = columns(A, problem.B)

        def differentiate() -> tuple[Numbers, Numbers]:
            w = columns(transposed, problem.G)
            z = columns(A, w)
            return problem.gradient(x, w, z), w

        return lambda: columns(A, problem.B), differentiate


class Lineax(Contender):
    """``lineax.LSMR`` in double precision, with products by JAX, compiled, over all columns."""

    name = package = "lineax"

    def prepare(self, problem: Problem, tolerance: float) -> tuple[Solve, Differentiate]:  # noqa: D102
        jax: Any = importlib.import_module("jax")
        lineax: Any = importlib.import_module("lineax")
        jax.config.update("jax_enable_x64", True)  # noqa: FBT003 - as JAX has it
        n, m = problem.A.shape
        rows, columns = problem.rows, problem.A.indices
        solver = lineax.LSMR(tolerance, tolerance, max_steps=MOST_ITERATIONS, conlim=float("inf"))
        shape = jax.ShapeDtypeStruct((m,), "float64")

        def solve(values: Any, B: Any) -> Any:
            def product(x: Any) -> Any:
                return jax.ops.segment_sum(
                    values * x[columns], rows, num_segments=n, indices_are_sorted=True
                )

            operator = lineax.FunctionLinearOperator(product, shape)

            def column(b: Any) -> Any:
                return lineax.linear_solve(operator, b, solver).value

            return jax.vmap(column, in_axes=1, out_axes=1)(B)

        compiled = jax.jit(solve)
        leaves = jax.numpy.asarray(problem.A.data), jax.numpy.asarray(problem.B)
        G = jax.numpy.asarray(problem.G)
        _, pull_back = jax.vjp(compiled, *leaves)
        compiled_back = jax.jit(lambda back, G: back(G))

        def differentiate() -> tuple[Numbers, Numbers]:
            dA, dB = compiled_back(pull_back, G)
            return np.asarray(dA), np.asarray(dB)

        return lambda: np.asarray(compiled(*leaves)), differentiate


CONTENDERS: tuple[Contender, ...] = (
    Spgrad(),
    SpgradDirect(),
    TorchSparseGradUtils(),
    SciPy(),
    Lineax(),
)
