"""Results that disagree are errors: a fast wrong product is worth nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.operator.contenders import REFERENCE, Case, find
from benchmarks.operator.modes import Mode, Outcome, make_call

if TYPE_CHECKING:
    from benchmarks.operator.problem import Problem

TOLERANCE = 64
"""Allowed difference in units of machine epsilon, relative to the sum of absolute terms."""
SMALL = 1 << 24
"""Largest number of multiplications for which spgrad is compared with a float64 reference."""


class DisagreementError(Exception):
    """A contender computed something else than spgrad did."""


def _reference(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    contender = find(REFERENCE)
    case = contender.prepare(problem)
    outcome = make_call(case, problem, Mode.BOTH)()
    return _plain(outcome, case)


def _plain(outcome: Outcome, case: Case) -> tuple[Tensor, Tensor, Tensor]:
    if outcome.C is None or outcome.dA is None or outcome.dB is None:
        message = "an outcome is incomplete"
        raise ValueError(message)
    return outcome.C, case.entries(outcome.dA), outcome.dB


def _float64(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Compute product and gradients by their definitions, without any sparse operator."""
    parts = []
    for item in problem.to(torch.float64).items():
        rows, cols = item.row_indices(), item.col_indices
        values = item.values[:, None]
        C = torch.zeros_like(item.G).index_add_(0, rows, values * item.B[cols])
        dB = torch.zeros_like(item.B).index_add_(0, cols, values * item.G[rows])
        parts.append((C, (item.G[rows] * item.B[cols]).sum(1), dB))
    C, dA, dB = (torch.stack(part) for part in zip(*parts, strict=True))
    return (C, dA.flatten(), dB) if problem.batch is not None else (C[0], dA[0], dB[0])


class Checker:
    """Compares outcomes on one problem with those of spgrad."""

    def __init__(self, problem: Problem) -> None:
        """Compute spgrad's results, and check them where the problem is small."""
        names = ("C", "dA", "dB")
        self._expected = dict(zip(names, _reference(problem), strict=True))
        self._scale = dict(zip(names, _reference(problem.absolute()), strict=True))
        self._epsilon = torch.finfo(problem.dtype).eps
        self.against_float64 = problem.entries * problem.columns <= SMALL
        if self.against_float64:
            for name, exact in zip(names, _float64(problem), strict=True):
                self._compare(name, exact)

    def _compare(self, name: str, result: Tensor) -> None:
        expected, scale = self._expected[name], self._scale[name]
        if result.shape != expected.shape:
            message = f"{name} has shape {tuple(result.shape)} instead of {tuple(expected.shape)}"
            raise DisagreementError(message)
        allowed = TOLERANCE * self._epsilon * scale
        if not bool(((result - expected).abs() <= allowed).all()):  # also when there is a NaN
            worst = float((result - expected).abs().max())
            message = f"{name} differs from spgrad's by up to {worst:.3g}"
            raise DisagreementError(message)

    def check(self, outcome: Outcome, case: Case) -> None:
        """Compare all that a call computed.

        Raises:
            DisagreementError: Something differs by more than rounding explains.

        """
        if outcome.C is not None:
            self._compare("C", outcome.C)
        if outcome.dA is not None:
            self._compare("dA", case.entries(outcome.dA))
        if outcome.dB is not None:
            self._compare("dB", outcome.dB)
