"""What is timed: the product, its gradients, and both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from benchmarks.operator.case import Case
    from benchmarks.operator.problem import Problem

RATE = 1e-7
"""Learning rate of training steps: so small that the matrix stays what it is."""


class Mode(Enum):
    """A part of the work of a training loop."""

    FORWARD = "forward"
    BOTH = "forward + backward"
    GRADIENT_A = "dA"
    GRADIENT_B = "dB"
    STEP = "training step"

    @property
    def wants_gradients(self) -> bool:
        """Whether any gradient is computed."""
        return self is not Mode.FORWARD

    @property
    def wants_a(self) -> bool:
        """Whether the gradient of A is computed."""
        return self in {Mode.BOTH, Mode.GRADIENT_A, Mode.STEP}

    @property
    def wants_b(self) -> bool:
        """Whether the gradient of B is computed."""
        return self in {Mode.BOTH, Mode.GRADIENT_B, Mode.STEP}


@dataclass(frozen=True)
class Outcome:
    """What a call computed; None for what it did not."""

    C: Tensor | None = None
    dA: tuple[Tensor, ...] | None = None  # noqa: N815
    dB: Tensor | None = None  # noqa: N815


Call = Callable[[], Outcome]


def make_call(case: Case, problem: Problem, mode: Mode) -> Call:
    """Make the function that is timed.

    The gradients alone are those of a product that was computed beforehand, so that their time
    holds no forward pass.
    """
    leaves = tuple(leaf.detach().requires_grad_(mode.wants_a) for leaf in case.leaves)
    B = problem.B.detach().requires_grad_(mode.wants_b)
    G = problem.G
    multiply = case.multiply
    gradient = torch.autograd.grad

    if mode is Mode.FORWARD:
        return lambda: Outcome(multiply(leaves, B))

    if mode is Mode.GRADIENT_A:
        C_of_a = multiply(leaves, B)
        return lambda: Outcome(dA=gradient(C_of_a, leaves, G, retain_graph=True))

    if mode is Mode.GRADIENT_B:
        C_of_b = multiply(leaves, B)
        return lambda: Outcome(dB=gradient(C_of_b, B, G, retain_graph=True)[0])

    def forward_and_backward() -> Outcome:
        C = multiply(leaves, B)
        *dA, dB = gradient(C, (*leaves, B), G)
        return Outcome(C.detach(), tuple(dA), dB)

    def step() -> Outcome:
        outcome = forward_and_backward()
        for leaf, dA in zip(leaves, outcome.dA or (), strict=True):
            case.update(leaf.detach(), dA, RATE)
        return outcome

    return step if mode is Mode.STEP else forward_and_backward
