"""How DTensor shares out the plain operators: each rank works on its part of the dense operands.

The structure is on every rank. Dense operands may be sharded by their last dimension: columns of B
are multiplied for themselves, and sums of `sddmm` run over them. Where all operands have the same
heads, those may be sharded, too. What is linear in an operand takes partial sums of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.experimental import register_sharding

from spgrad import _library  # noqa: F401 - registers the operators

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.distributed.tensor import Placement

    # Placements of the results and of the dense operands, over one dimension of a mesh.
    Rule = tuple[list[Placement], list[Placement]]

_R, _P = Replicate(), Partial()


class _Operand(Protocol):
    """What DTensor tells of a tensor."""

    shape: torch.Size
    ndim: int


class _Operands(NamedTuple):
    """The operands of an operator beside its structure."""

    first: _Operand  # the values, or X
    dense: _Operand
    of_one_matrix: tuple[int, int]  # their dimensions without heads
    heads_are_alike: bool

    def columns(self) -> list[Placement]:
        """Shard the last dimension of the result of a product, which has the heads of both."""
        first, second = self.of_one_matrix
        has_them_all = self.first.ndim - first <= self.dense.ndim - second
        return [Shard(self.dense.ndim - 1)] if has_them_all else []

    def heads(self) -> list[Placement]:
        """Shard one of the leading dimensions."""
        count = self.dense.ndim - self.of_one_matrix[1]
        return [Shard(dim) for dim in range(count)] if self.heads_are_alike else []


def _mm(operands: _Operands) -> list[Rule]:
    rules: list[Rule] = [([_R], [_R, _R]), ([_P], [_P, _R]), ([_P], [_R, _P])]
    rules += [([columns], [_R, columns]) for columns in operands.columns()]
    return rules + [([heads], [heads] * 2) for heads in operands.heads()]


def _mm_backward(operands: _Operands) -> list[Rule]:
    rules: list[Rule] = [([_R, _R], [_R] * 3), ([_P, _P], [_R, _R, _P])]
    rules += [([_P, columns], [_R, columns, columns]) for columns in operands.columns()]
    return rules + [([heads] * 2, [heads] * 3) for heads in operands.heads()]


def _sddmm(operands: _Operands) -> list[Rule]:
    rules: list[Rule] = [([_R], [_R, _R]), ([_P], [_P, _R]), ([_P], [_R, _P])]
    X, Y = operands[:2]
    rules += [([_P], [Shard(X.ndim - 1), Shard(Y.ndim - 1)])]
    return rules + [([heads], [heads] * 2) for heads in operands.heads()]


# Rules of an operation, and the dimensions of its first operand for one matrix.
_OPERATIONS: dict[str, tuple[Callable[[_Operands], list[Rule]], int]] = {
    "mm": (_mm, 1),
    "mm_transposed": (_mm, 1),
    "mm_backward": (_mm_backward, 1),
    "sddmm": (_sddmm, 2),
}
_TENSORS_OF_STRUCTURE = {"csr": 2, "coo": 1, "pattern": 4}


def _is_batched(structure: str, arguments: tuple[Any, ...], first: _Operand) -> bool:
    if structure == "pattern":
        return len(arguments[4]) == 3  # noqa: PLR2004 - its size
    return first.shape[0] == 3 if structure == "coo" else first.ndim > 1  # noqa: PLR2004


def _register(structure: str, name: str) -> None:
    rules, of_first = _OPERATIONS[name]
    leading = _TENSORS_OF_STRUCTURE[structure]

    def rules_of(*arguments: Any) -> list[Rule]:
        tensors = [argument for argument in arguments if hasattr(argument, "ndim")]
        first, second = tensors[leading : leading + 2]
        alike = not _is_batched(structure, arguments, tensors[0])
        alike = alike and first.shape[:-of_first] == second.shape[:-2]
        return [
            (results, [_R] * leading + dense)
            for results, dense in rules(_Operands(first, second, (of_first, 2), alike))
        ]

    register_sharding(getattr(torch.ops.spgrad, f"{structure}_{name}").default)(rules_of)


for _structure in _TENSORS_OF_STRUCTURE:
    for _name in _OPERATIONS:
        _register(_structure, _name)
