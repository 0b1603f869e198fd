"""The libraries that are compared, each behind the same small interface."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import spgrad
from benchmarks.operator.layouts import coo_tensor, csr_tensor, entries_of, specified

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.operator.modes import Mode
    from benchmarks.operator.problem import Problem

Leaves = tuple[Tensor, ...]


@dataclass(frozen=True)
class Limits:
    """How much memory a contender may be expected to take, in bytes."""

    dense: float = 2e9
    """For a dense matrix of the size of A."""
    temporary: float = 8e9
    """For everything else."""


def _update(leaf: Tensor, gradient: Tensor, rate: float) -> None:
    specified(leaf).sub_(specified(gradient), alpha=rate)


@dataclass(frozen=True)
class Case:
    """One problem in the form that a contender takes."""

    leaves: Leaves
    """What gradients are taken for on the side of A: one tensor, or one for each item."""
    multiply: Callable[[Leaves, Tensor], Tensor]
    """Computes the product from the leaves and B."""
    entries: Callable[[Leaves], Tensor] = entries_of
    """Finds the specified entries in gradients of the leaves, in the order of the problem."""
    update: Callable[[Tensor, Tensor, float], None] = _update
    """Takes one step of gradient descent on a leaf, in its own pattern."""


class Contender(ABC):
    """A way to compute the product."""

    name: str
    family: str
    package: str | None = None
    """What has to be installed."""

    def why_not(self, problem: Problem, mode: Mode, limits: Limits) -> str | None:
        """Say why the contender cannot run; None if it can be tried."""
        if self.package is not None and importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        return self.obstacle(problem, mode, limits)

    def obstacle(self, problem: Problem, mode: Mode, limits: Limits) -> str | None:
        """Say why the problem is out of reach in this mode; None if it is not."""
        del problem, mode, limits
        return None

    @abstractmethod
    def prepare(self, problem: Problem) -> Case:
        """Bring the problem into the contender's own form; not timed."""


def _one_by_one(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Leaves, Tensor], Tensor]:
    def multiply(leaves: Leaves, B: Tensor) -> Tensor:
        if B.dim() == 2:  # noqa: PLR2004
            return product(leaves[0], B)
        return torch.stack(
            [product(*operands) for operands in zip(leaves, B.unbind(), strict=True)]
        )

    return multiply


def _at_once(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Leaves, Tensor], Tensor]:
    return lambda leaves, B: product(leaves[0], B)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2g} GB"


@dataclass
class Layout:
    """A layout of sparse tensors with its name."""

    name: str
    make: Callable[[Problem], Tensor]


CSR32 = Layout("CSR int32", lambda problem: csr_tensor(problem, torch.int32))
CSR64 = Layout("CSR int64", lambda problem: csr_tensor(problem, torch.int64))
COO = Layout("COO", lambda problem: coo_tensor(problem, coalesced=True))
UNFLAGGED = Layout("COO unflagged", lambda problem: coo_tensor(problem, coalesced=False))


class Spgrad(Contender):
    """``spgrad.sparse_mm``."""

    family = "spgrad"

    def __init__(self, layout: Layout) -> None:
        """Choose the layout of A."""
        self.layout = layout
        self.name = f"spgrad {layout.name}"

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        return Case((self.layout.make(problem),), _at_once(spgrad.sparse_mm))


class SpgradValues(Contender):
    """``spgrad.csr_mm``: plain tensors, with the values as the leaf."""

    family = "spgrad"
    name = "spgrad csr_mm"

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        crow_indices, col_indices = problem.crow_indices.int(), problem.col_indices.int()

        def product(values: Tensor, B: Tensor) -> Tensor:
            return spgrad.csr_mm(crow_indices, col_indices, values, B)

        return Case((problem.values.clone(),), _at_once(product))


class SpgradPattern(Contender):
    """``spgrad.Pattern``: the structure is prepared beforehand; the values are the leaf."""

    family = "spgrad"
    name = "spgrad Pattern"

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        pattern = spgrad.Pattern(csr_tensor(problem, torch.int32))
        return Case((problem.values.clone(),), _at_once(pattern.mm))


class TorchSparse(Contender):
    """``torch.sparse.mm``; batches are multiplied one item after the other."""

    family = "torch.sparse.mm"

    def __init__(self, layout: Layout) -> None:
        """Choose the layout of A."""
        self.layout = layout
        self.name = f"torch.sparse.mm {layout.name}"

    def obstacle(self, problem: Problem, mode: Mode, limits: Limits) -> str | None:  # noqa: D102
        n, m = problem.size
        dense = n * m * problem.dtype.itemsize
        if self.layout is COO and mode.wants_a and dense > limits.dense:
            return f"its gradient of A is multiplied out as a dense matrix of {_gigabytes(dense)}"
        return None

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        leaves = tuple(self.layout.make(item) for item in problem.items())
        return Case(leaves, _one_by_one(torch.sparse.mm))


class TorchSparseGradUtils(Contender):
    """``torchsparsegradutils.sparse_mm``: gather and multiply, in Python."""

    family = package = "torchsparsegradutils"

    def __init__(self, layout: Layout) -> None:
        """Choose the layout of A."""
        self.layout = layout
        self.name = f"torchsparsegradutils {layout.name}"

    def obstacle(self, problem: Problem, mode: Mode, limits: Limits) -> str | None:  # noqa: D102
        gathered = 3 * problem.entries * problem.columns * problem.dtype.itemsize
        if mode.wants_a and gathered > limits.temporary:
            return f"its gradient of A gathers {_gigabytes(gathered)}"
        return None

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        library: Any = importlib.import_module("torchsparsegradutils")
        return Case((self.layout.make(problem),), _at_once(library.sparse_mm))


class PygTorchSparse(Contender):
    """``torch_sparse.matmul``; batches are multiplied one item after the other.

    Its SparseTensor keeps the transposed structure once it was needed, so only the first call pays
    for that.
    """

    family = name = package = "torch_sparse"

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        library: Any = importlib.import_module("torch_sparse")
        items = problem.items()
        patterns = [
            library.SparseTensor(
                rowptr=item.crow_indices,
                col=item.col_indices,
                sparse_sizes=item.size,
                is_sorted=True,
                trust_data=True,
            )
            for item in items
        ]

        def multiply(leaves: Leaves, B: Tensor) -> Tensor:
            matrices = [
                pattern.set_value(values, layout="coo")
                for pattern, values in zip(patterns, leaves, strict=True)
            ]
            if B.dim() == 2:  # noqa: PLR2004
                product: Tensor = library.matmul(matrices[0], B)
                return product
            pairs = zip(matrices, B.unbind(), strict=True)
            return torch.stack([library.matmul(matrix, operand) for matrix, operand in pairs])

        return Case(tuple(item.values.clone() for item in items), multiply)


class SciPy(Contender):
    """``scipy.sparse.csr_array``; batches are multiplied one item after the other."""

    family = name = "SciPy"

    def obstacle(self, problem: Problem, mode: Mode, limits: Limits) -> str | None:  # noqa: D102
        del problem, limits
        return "has no gradients" if mode.wants_gradients else None

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        library: Any = importlib.import_module("scipy.sparse")
        matrices = [
            library.csr_array(
                (
                    item.values.numpy(),
                    item.col_indices.int().numpy(),
                    item.crow_indices.int().numpy(),
                ),
                shape=item.size,
            )
            for item in problem.items()
        ]

        def multiply(_: Leaves, B: Tensor) -> Tensor:
            if B.dim() == 2:  # noqa: PLR2004
                return torch.from_numpy(matrices[0] @ B.numpy())
            pairs = zip(matrices, B.numpy(), strict=True)
            return torch.stack([torch.from_numpy(matrix @ operand) for matrix, operand in pairs])

        return Case((), multiply)


class Dense(Contender):
    """``torch.matmul`` with A written out, zeros and all."""

    family = name = "dense"

    def obstacle(self, problem: Problem, mode: Mode, limits: Limits) -> str | None:  # noqa: D102
        size = (problem.batch or 1) * problem.size[0] * problem.size[1] * problem.dtype.itemsize
        size *= 2 if mode.wants_a else 1
        if size > limits.dense:
            what = "A and its gradient" if mode.wants_a else "A"
            return f"{what} as a dense matrix: {_gigabytes(size)}"
        return None

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        A = coo_tensor(problem, coalesced=True)
        places = A.indices().unbind()
        dense = A.to_dense()
        mask = dense != 0

        def update(leaf: Tensor, gradient: Tensor, rate: float) -> None:
            leaf.addcmul_(gradient, mask, value=-rate)

        return Case(
            (dense,),
            _at_once(torch.matmul),
            entries=lambda gradients: gradients[0][places],
            update=update,
        )


REFERENCE = "spgrad CSR int32"
"""The contender that all others are compared with, except in training steps."""
LAYER_REFERENCE = "spgrad csr_mm"
"""The one for training steps: the form for layers."""

CONTENDERS: tuple[Contender, ...] = (
    Spgrad(CSR32),
    Spgrad(CSR64),
    Spgrad(COO),
    Spgrad(UNFLAGGED),
    SpgradValues(),
    SpgradPattern(),
    TorchSparse(CSR32),
    TorchSparse(CSR64),
    TorchSparse(COO),
    TorchSparseGradUtils(CSR32),
    TorchSparseGradUtils(COO),
    PygTorchSparse(),
    SciPy(),
    Dense(),
)


def find(name: str) -> Contender:
    """Find a contender by its name."""
    return next(contender for contender in CONTENDERS if contender.name == name)


def silence_warnings() -> None:
    """Ignore what PyTorch says about any sparse tensor that anybody makes."""
    for message in ("Sparse CSR tensor support is in beta", "Sparse invariant checks are implicit"):
        warnings.filterwarnings("ignore", message, UserWarning)


def explain(error: Exception, contender: Contender) -> str:
    """Say in one line why a contender failed."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else "no message"
    return f"{contender.family} raised {type(error).__name__}: {text[:200]}"
