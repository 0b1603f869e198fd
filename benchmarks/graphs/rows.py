"""Rows of a table: calls that compute the same, timed side by side in one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.table import Table

from benchmarks.operator.layouts import specified
from benchmarks.operator.modes import Outcome
from benchmarks.operator.timing import Pace, time_rounds
from benchmarks.operator.units import two_digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from benchmarks.operator.modes import Call

# Rounding, of sums in another order.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Row:
    """One computation, by spgrad and by others."""

    name: str
    ours: Call
    others: dict[str, Call]


def forward(function: Callable[[], Tensor]) -> Call:
    """Make a call that computes a result."""

    def call() -> Outcome:
        with torch.no_grad():
            return Outcome(function())

    return call


def forward_and_backward(function: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Call:
    """Make a call that computes a result, and the gradients of leaves of it."""
    with torch.no_grad():
        G = torch.randn(function().shape, generator=torch.Generator().manual_seed(0))

    def call() -> Outcome:
        out = function()
        return Outcome(out.detach(), torch.autograd.grad(out, leaves, G))

    return call


def compare(rows: Iterable[Row], pace: Pace) -> Table:
    """Time the calls of each row; end with a message if their results differ."""
    table = Table("what", "spgrad (ms)", "beside", "its time (ms)", "ratio")
    for row in rows:
        expected = _tensors(row.ours())
        for name, call in row.others.items():
            found = _tensors(call())
            if not all(_agree(*pair) for pair in zip(found, expected, strict=True)):
                message = f"{row.name} should give the same as {name}"
                raise SystemExit(message)
        times = time_rounds({"spgrad": row.ours, **row.others}, pace)
        ours = times["spgrad"].median
        for name in row.others:
            theirs = times[name].median
            seconds = (two_digits(1e3 * ours), name, two_digits(1e3 * theirs))
            table.add_row(row.name, *seconds, f"{theirs / ours:.1f}")
    return table


def _tensors(outcome: Outcome) -> list[Tensor]:
    tensors = [x for x in (outcome.C, *(outcome.dA or ())) if x is not None]
    return [x if x.layout == torch.strided else specified(x).flatten() for x in tensors]


def _agree(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
