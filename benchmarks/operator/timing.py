"""Times of several calls, taken round by round so that all meet the same disturbances."""

from __future__ import annotations

import math
import random
import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.operator.modes import Call


@dataclass(frozen=True)
class Pace:
    """How long to measure."""

    seconds: float
    """Aim for all contenders of one mode together."""
    least_rounds: int
    most_rounds: int
    sample: float = 1e-3
    """Calls are repeated within a sample until it takes about this many seconds."""


@dataclass(frozen=True)
class Times:
    """Times of one call, in seconds."""

    median: float
    lower_quartile: float
    upper_quartile: float


def host_sample(call: Call, calls: int) -> float:
    """Give the seconds that each of several calls in a row takes, by the clock of the host."""
    outcome = None
    start = time.perf_counter()
    for _ in range(calls):
        outcome = call()
    seconds = (time.perf_counter() - start) / calls
    del outcome
    return seconds


def _rounds(
    calls: dict[str, Call],
    repeats: dict[str, int],
    pace: Pace,
    sample: Callable[[Call, int], float],
) -> dict[str, list[float]]:
    order = list(calls)
    shuffle = random.Random(0).shuffle  # noqa: S311 - nothing secret
    samples: dict[str, list[float]] = {name: [] for name in order}
    start = time.perf_counter()
    for done in range(pace.most_rounds):
        if done >= pace.least_rounds and time.perf_counter() - start > pace.seconds:
            break
        shuffle(order)
        for name in order:
            samples[name].append(sample(calls[name], repeats[name]))
    return samples


def time_rounds(
    calls: dict[str, Call], pace: Pace, sample: Callable[[Call, int], float] = host_sample
) -> dict[str, Times]:
    """Time calls in rounds, each of which makes all calls in another random order.

    Calls that take 20 times as long as the fastest have rounds of their own afterwards, the least
    number of them. Otherwise they would leave no time for more rounds, and what they leave of the
    caches and of the system's memory would be in all times.

    Args:
        calls: The calls by name, each made once before.
        pace: How long to measure.
        sample: Takes the time of several calls in a row, and gives that of each.

    Returns:
        The times by name.

    """
    # The second call says how long the others will take.
    second = {name: sample(call, 1) for name, call in calls.items()}
    repeats = {name: max(1, math.ceil(pace.sample / seconds)) for name, seconds in second.items()}
    limit = 20 * min(second.values(), default=0.0)
    quick = {name: call for name, call in calls.items() if second[name] <= limit}
    slow = {name: call for name, call in calls.items() if second[name] > limit}
    samples = _rounds(quick, repeats, pace, sample)
    samples |= _rounds(slow, repeats, replace(pace, seconds=0.0), sample)

    times = {}
    for name in calls:
        lower, median, upper = statistics.quantiles(samples[name], n=4, method="inclusive")
        times[name] = Times(median, lower, upper)
    return times
