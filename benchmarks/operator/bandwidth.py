"""The speed of memory, and what a product has to move."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from benchmarks.operator.problem import Problem

ELEMENTS = 1 << 25
"""Length of the float32 arrays that are moved: 128 MiB each, above all common caches."""


class Memory:
    """Arrays to measure the bandwidth with, mapped once."""

    def __init__(self, elements: int = ELEMENTS) -> None:
        """Map and touch the arrays."""
        self._a, self._b, self._c = (torch.ones(elements) for _ in range(3))

    def bandwidth(self, rounds: int = 5) -> float:
        """Measure bytes per second with the threads in use: the faster one of copy and triad."""

        def copy() -> int:
            self._a.copy_(self._b)
            return 2 * self._a.nbytes

        def triad() -> int:
            torch.add(self._b, self._c, alpha=0.5, out=self._a)
            return 3 * self._a.nbytes

        rates: dict[str, list[float]] = {"copy": [], "triad": []}
        for _ in range(rounds):
            for move in (copy, triad):
                start = time.perf_counter()
                moved = move()
                rates[move.__name__].append(moved / (time.perf_counter() - start))
        return max(statistics.median(rate) for rate in rates.values())


def compulsory_bytes(problem: Problem) -> int:
    """Count the bytes of A (CSR with int32 indices), B and C: each is moved once at least."""
    indices = 4 * (problem.crow_indices.numel() + problem.col_indices.numel())
    return indices + problem.values.nbytes + problem.B.nbytes + problem.G.nbytes
