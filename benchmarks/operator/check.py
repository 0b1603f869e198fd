"""Results that disagree are errors: a fast wrong product is worth nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import scipy.sparse
import torch
from torch import Tensor

from benchmarks.operator.layouts import same_places

if TYPE_CHECKING:
    from benchmarks.operator.case import Case
    from benchmarks.operator.modes import Outcome
    from benchmarks.operator.problem import Problem

TOLERANCE = 64
"""Allowed deviation in units of machine epsilon."""
CHUNK = 1 << 14
"""Entries of A for each step of its gradient, so that what a step needs stays in cache."""


def _by_definition(problem: Problem) -> dict[str, Tensor]:
    """Compute the product and both gradients by SciPy, and by their definition at each entry."""
    parts: dict[str, list[Tensor]] = {"C": [], "dA": [], "dB": []}
    for item in problem.items():
        arrays = (item.values.numpy(), item.col_indices.numpy(), item.crow_indices.numpy())
        A: Any = scipy.sparse.csr_array(arrays, shape=item.size)
        dA = torch.empty_like(item.values)
        places = (item.row_indices(), item.col_indices, dA)
        for rows, cols, terms in zip(*(part.split(CHUNK) for part in places), strict=True):
            terms.copy_((item.G[rows] * item.B[cols]).sum(1))
        parts["C"].append(torch.from_numpy(A @ item.B.numpy()))
        parts["dA"].append(dA)
        parts["dB"].append(torch.from_numpy(A.T @ item.G.numpy()))
    if problem.batch is None:
        return {name: part for name, (part,) in parts.items()}
    return {
        name: torch.cat(part) if name == "dA" else torch.stack(part) for name, part in parts.items()
    }


class Checker:
    """Compares outcomes on one problem with an exact reference in float64."""

    def __init__(self, problem: Problem) -> None:
        """Compute the reference, and the sum of absolute terms that each number is made of."""
        self._exact = _by_definition(problem.to(torch.float64))
        limits = torch.finfo(problem.dtype)
        # The sums of terms so small that they have no digits to lose count as more.
        self._scale = {
            name: scale.clamp_min_(limits.tiny)
            for name, scale in _by_definition(problem.absolute()).items()
        }
        self.tolerance = TOLERANCE * limits.eps

    def deviations(self, outcome: Outcome, case: Case) -> dict[str, float]:
        """Give the largest deviation of all that a call computed, by name.

        Each number's deviation is relative to the sum of its absolute terms, which rounding errors
        grow with. That of a gradient of A with entries at other places is infinite.
        """
        found = {}
        if outcome.C is not None:
            found["C"] = self._deviation("C", outcome.C)
        if outcome.dA is not None:
            right = all(map(same_places, outcome.dA, case.leaves))
            found["dA"] = self._deviation("dA", case.entries(outcome.dA)) if right else float("inf")
        if outcome.dB is not None:
            found["dB"] = self._deviation("dB", outcome.dB)
        return found

    def _deviation(self, name: str, result: Tensor) -> float:
        exact, scale = self._exact[name], self._scale[name]
        if result.shape != exact.shape:
            return float("inf")
        if not exact.numel():
            return 0.0
        relative = (result.detach() - exact).abs_().div_(scale)
        return float(relative.max())  # NaN where there is one
