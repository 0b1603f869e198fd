"""One problem in the form that a contender takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from benchmarks.operator.layouts import entries_of, specified

if TYPE_CHECKING:
    from collections.abc import Callable

Leaves = tuple[Tensor, ...]


def _update(leaf: Tensor, gradient: Tensor, rate: float) -> None:
    specified(leaf).sub_(specified(gradient), alpha=rate)


@dataclass(frozen=True)
class Case:
    """What a contender multiplies, and how."""

    leaves: Leaves
    """What gradients are taken for on the side of A: one tensor, or one for each item."""
    multiply: Callable[[Leaves, Tensor], Tensor]
    """Computes the product from the leaves and B."""
    entries: Callable[[Leaves], Tensor] = entries_of
    """Finds the specified entries in gradients of the leaves, in the order of the problem."""
    update: Callable[[Tensor, Tensor, float], None] = _update
    """Takes one step of gradient descent on a leaf, in its own pattern."""
