"""Times the contenders against each other."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demo.contenders import Contender, backward
from demo.problem import Operands

MINIMUM_ROUNDS = 3
MAXIMUM_ROUNDS = 100


@dataclass(frozen=True)
class Timing:
    """Seconds: the forward pass alone, and forward and backward together."""

    forward: float
    total: float


def time_once(contender: Contender, operands: Operands) -> Timing:
    """Time one forward and backward pass."""
    matrix, dense = contender.leaves(operands)
    start = time.perf_counter()
    product = contender.multiply(matrix, dense)
    middle = time.perf_counter()
    # Kept until the clock is read: giving the memory back is not part of the work.
    results = backward(product, matrix, dense, operands.product_gradient)
    end = time.perf_counter()
    del results
    return Timing(middle - start, end - start)


def time_contenders(
    contenders: Sequence[Contender],
    operands: Operands,
    seconds: float,
    on_progress: Callable[[int, int], None],
) -> dict[Contender, Timing]:
    """Return medians over as many rounds as fit in the time.

    Every contender runs once in a round, so that a slow spell of the machine falls on all of them.
    The first round warms up and tells how many will fit.
    """
    start = time.perf_counter()
    for contender in contenders:
        time_once(contender, operands)
    round_seconds = time.perf_counter() - start
    rounds = min(max(int(seconds / round_seconds), MINIMUM_ROUNDS), MAXIMUM_ROUNDS)

    timings: dict[Contender, list[Timing]] = {contender: [] for contender in contenders}
    for done in range(rounds):
        on_progress(done, rounds)
        # Another contender goes first in every round, so that none always follows the same one.
        first = done % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            timings[contender].append(time_once(contender, operands))
    on_progress(rounds, rounds)
    return {
        contender: Timing(
            statistics.median(timing.forward for timing in taken),
            statistics.median(timing.total for timing in taken),
        )
        for contender, taken in timings.items()
    }
