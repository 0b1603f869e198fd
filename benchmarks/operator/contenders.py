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
from benchmarks.operator.case import Case
from benchmarks.operator.layouts import coo_tensor, csr_tensor
from benchmarks.operator.units import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.operator.case import Leaves
    from benchmarks.operator.modes import Mode
    from benchmarks.operator.problem import Problem


@dataclass(frozen=True)
class Limits:
    """How much memory a contender may be expected to take, in bytes."""

    dense: float = 2e9
    """For a dense matrix of the size of A."""
    temporary: float = 8e9
    """For everything else."""


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


def _by_item(
    operands: Iterable[Any], B: Tensor, product: Callable[[Any, Tensor], Tensor]
) -> Tensor:
    """Multiply a matrix by B, or the items of a batch one after the other."""
    if B.dim() == 2:  # noqa: PLR2004
        (operand,) = operands
        return product(operand, B)
    return torch.stack([product(*pair) for pair in zip(operands, B.unbind(), strict=True)])


def _at_once(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Leaves, Tensor], Tensor]:
    return lambda leaves, B: product(leaves[0], B)


@dataclass
class Layout:
    """A layout of sparse tensors with its name."""

    name: str
    make: Callable[[Problem], Tensor]


CSR32 = Layout("CSR int32", lambda problem: csr_tensor(problem, torch.int32))
CSR64 = Layout("CSR int64", lambda problem: csr_tensor(problem, torch.int64))
COO = Layout("COO", lambda problem: coo_tensor(problem, coalesced=True))


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


class _CompositeProduct(torch.autograd.Function):
    """``spgrad.csr_mm`` by the implementation that serves devices without kernels."""

    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> Tensor:
        """Compute the product of crow_indices, col_indices, values and B."""
        ctx.save_for_backward(*arguments)
        product: Tensor = _composite("csr_mm", *arguments)
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients that are asked for."""
        (G,) = gradients
        crow_indices, col_indices, values, B = ctx.saved_tensors
        *_, wants_a, wants_b = ctx.needs_input_grad
        dA, dB = None, None
        if wants_a and wants_b:
            dA, dB = _composite("csr_mm_backward", *ctx.saved_tensors, G)
        elif wants_a:
            dA = _composite("csr_sddmm", crow_indices, col_indices, G, B.conj())
        elif wants_b:
            columns = B.size(-2)
            conjugated = values.conj().resolve_conj()
            dB = _composite("csr_mm_transposed", crow_indices, col_indices, conjugated, columns, G)
        return None, None, dA, dB


def _composite(name: str, *arguments: Any) -> Any:
    operator = getattr(torch.ops.spgrad, name).default
    key = torch._C.DispatchKey.CompositeExplicitAutograd  # noqa: SLF001
    return operator._op_dk(key, *arguments)  # noqa: SLF001


class SpgradComposite(Contender):
    """What a device without kernels of its own gets of ``spgrad.csr_mm``."""

    family = "spgrad"
    name = "spgrad composite"

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        indices = problem.crow_indices.int(), problem.col_indices.int()

        def product(values: Tensor, B: Tensor) -> Tensor:
            C: Tensor = _CompositeProduct.apply(*indices, values, B)
            return C

        return Case((problem.values.clone(),), _at_once(product))


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
            return f"its gradient of A is multiplied out as a dense matrix of {size(dense)}"
        return None

    def prepare(self, problem: Problem) -> Case:  # noqa: D102
        leaves = tuple(self.layout.make(item) for item in problem.items())
        return Case(leaves, lambda leaves, B: _by_item(leaves, B, torch.sparse.mm))


class TorchSparseGradUtils(Contender):
    """``torchsparsegradutils.sparse_mm``: gather and multiply, in Python."""

    family = package = "torchsparsegradutils"

    def __init__(self, layout: Layout) -> None:
        """Choose the layout of A."""
        self.layout = layout
        self.name = f"torchsparsegradutils {layout.name}"

    def obstacle(self, problem: Problem, mode: Mode, limits: Limits) -> str | None:  # noqa: D102
        if problem.dtype.is_complex and mode.wants_gradients:
            return "its gradients of complex numbers are not conjugated"
        gathered = 3 * problem.entries * problem.columns * problem.dtype.itemsize
        if mode.wants_a and gathered > limits.temporary:
            return f"its gradient of A gathers {size(gathered)}"
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
            matrices = (
                pattern.set_value(values, layout="coo")
                for pattern, values in zip(patterns, leaves, strict=True)
            )
            return _by_item(matrices, B, library.matmul)

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

        def product(matrix: Any, B: Tensor) -> Tensor:
            return torch.from_numpy(matrix @ B.numpy())

        return Case((), lambda _, B: _by_item(matrices, B, product))


class Dense(Contender):
    """``torch.matmul`` with A written out, zeros and all."""

    family = name = "dense"

    def obstacle(self, problem: Problem, mode: Mode, limits: Limits) -> str | None:  # noqa: D102
        needed = (problem.batch or 1) * problem.size[0] * problem.size[1] * problem.dtype.itemsize
        needed *= 2 if mode.wants_a else 1
        if needed > limits.dense:
            what = "A and its gradient" if mode.wants_a else "A"
            return f"{what} as a dense matrix: {size(needed)}"
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


ON_DEVICES: tuple[Contender, ...] = (
    Spgrad(CSR32),
    Spgrad(COO),
    SpgradPattern(),
    SpgradComposite(),
    TorchSparse(CSR32),
    TorchSparse(COO),
    TorchSparseGradUtils(CSR32),
    TorchSparseGradUtils(COO),
)


def find(name: str) -> Contender:
    """Find a contender by its name."""
    return next(contender for contender in CONTENDERS if contender.name == name)


def is_ours(name: str) -> bool:
    """Say whether a contender is a form of spgrad."""
    return name.startswith(f"{Spgrad.family} ")


def silence_warnings() -> None:
    """Ignore what PyTorch says about any sparse tensor that anybody makes."""
    for message in ("Sparse CSR tensor support is in beta", "Sparse invariant checks are implicit"):
        warnings.filterwarnings("ignore", message, UserWarning)


def explain(error: Exception, contender: Contender) -> str:
    """Say in one line why a contender failed."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else "no message"
    return f"{contender.family} raised {type(error).__name__}: {text[:200]}"
