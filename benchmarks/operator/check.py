"""Results that disagree are errors: a fast wrong product is worth nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import scipy.sparse
import torch
from torch import Tensor

from benchmarks.operator.layouts import coo_tensor, same_places

if TYPE_CHECKING:
    from benchmarks.operator.case import Case
    from benchmarks.operator.modes import Outcome
    from benchmarks.operator.problem import Problem

TOLERANCE = 64
"""Allowed deviation in units of machine epsilon."""
CHUNK = 1 << 14
"""Entries of A for each step of its gradient, so that what a step needs stays in cache."""
CHUNK_ON_DEVICE = 1 << 19
"""The same where a step is to keep a device busy."""


def _products_by_scipy(item: Problem) -> tuple[Tensor, Tensor]:
    arrays = (item.values.numpy(), item.col_indices.numpy(), item.crow_indices.numpy())
    A: Any = scipy.sparse.csr_array(arrays, shape=item.size)
    return torch.from_numpy(A @ item.B.numpy()), torch.from_numpy(A.conj().T @ item.G.numpy())


def _products_on_device(item: Problem) -> tuple[Tensor, Tensor]:
    A = coo_tensor(item, coalesced=True)
    transposed = torch.sparse_coo_tensor(
        A.indices().flip(0), A.values().conj().resolve_conj(), A.shape[::-1]
    )
    return torch.sparse.mm(A, item.B), torch.sparse.mm(transposed.coalesce(), item.G)


def _by_definition(problem: Problem) -> dict[str, Tensor]:
    """Compute both products by another library, and the gradient of A by its definition."""
    parts: dict[str, list[Tensor]] = {"C": [], "dA": [], "dB": []}
    for item in problem.items():
        on_host = item.values.device.type == "cpu"
        C, dB = _products_by_scipy(item) if on_host else _products_on_device(item)
        dA = torch.empty_like(item.values)
        places = (item.row_indices(), item.col_indices, dA)
        chunk = CHUNK if on_host else CHUNK_ON_DEVICE
        for rows, cols, terms in zip(*(part.split(chunk) for part in places), strict=True):
            terms.copy_((item.G[rows] * item.B[cols].conj()).sum(1))
        parts["C"].append(C)
        parts["dA"].append(dA)
        parts["dB"].append(dB)
    if problem.batch is None:
        return {name: part for name, (part,) in parts.items()}
    return {
        name: torch.cat(part) if name == "dA" else torch.stack(part) for name, part in parts.items()
    }


class Checker:
    """Compares outcomes on one problem with an exact reference in float64."""

    def __init__(self, problem: Problem) -> None:
        """Compute the reference, and the sum of absolute terms that each number is made of."""
        exact = torch.complex128 if problem.dtype.is_complex else torch.float64
        self._exact = _by_definition(problem.to(exact))
        limits = torch.finfo(problem.dtype)
        absolute = problem.absolute()
        absolute = absolute.to(torch.promote_types(absolute.dtype, torch.float32))
        # The sums of terms so small that they have no digits to lose count as more.
        self._scale = {
            name: scale.clamp_min_(limits.tiny) for name, scale in _by_definition(absolute).items()
        }
        self.tolerance = TOLERANCE * limits.eps

    def deviations(self, outcome: Outcome, case: Case) -> dict[str, float]:
        """Give the largest deviation of all that a call computed, by name.

        Each number's deviation is relative to the sum of its absolute terms, which rounding errors
        grow with. That of a gradient of A with entries at other places is infinite.
        """
        found = {}
        if outcome.C is not None:
            found["C"] = self.deviation("C", outcome.C)
        if outcome.dA is not None:
            right = all(map(same_places, outcome.dA, case.leaves))
            found["dA"] = self.deviation("dA", case.entries(outcome.dA)) if right else float("inf")
        if outcome.dB is not None:
            found["dB"] = self.deviation("dB", outcome.dB)
        return found

    def deviation(self, name: str, result: Tensor) -> float:
        """Give the largest deviation of C, dA (one number for each entry) or dB."""
        exact, scale = self._exact[name], self._scale[name]
        if result.shape != exact.shape:
            return float("inf")
        if not exact.numel():
            return 0.0
        relative = (result.detach() - exact).abs().div_(scale)
        return float(relative.max())  # NaN where there is one
