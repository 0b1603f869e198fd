"""The model of a step beside steps between network namespaces, whose links have several rates.

``python -m benchmarks.distributed.validate``, by root.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.distributed.model import Costs, Rank, step_seconds
from benchmarks.distributed.network import measure
from benchmarks.operator.report import table

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ranks, megabits a second of each link, and by what the rows of a rank are divided.
CASES = ((2, 10_000, 1), (2, 200, 5), (2, 1000, 5), (4, 200, 5), (4, 1000, 5))
COLUMNS, ROUNDS = 128, 31


def modelled(told: Sequence[dict[str, Any]], p: int) -> float:
    """Give the time of the slowest rank as the model has it, of what each rank measured alone."""
    return max(step_seconds(Rank(**rank["counts"]), p, Costs(**rank["costs"])) for rank in told)


def main() -> None:
    """Print both times, and how far they are apart."""
    rows, errors = [], []
    for ranks, megabits, shrink in CASES:
        options = {"--columns": COLUMNS, "--rounds": ROUNDS, "--shrink": shrink}
        words = [f"{word}" for option in options.items() for word in option]
        told = measure(ranks, f"{megabits}mbit", [*words, "--first"])
        measured = max(rank["seconds"]["RowSharded"] for rank in told)
        expected = modelled(told, COLUMNS)
        alone = max(rank["seconds"]["without exchange"] for rank in told)
        errors.append(expected / measured - 1)
        numbers = (f"{1e3 * seconds:.1f}" for seconds in (alone, measured, expected))
        case = f"{ranks}, {told[0]['rows']:,}, {megabits:,} Mb/s"
        rows.append((case, *numbers, f"{100 * errors[-1]:+.0f} %"))
    head = (
        "ranks, rows of each, links",
        "without exchange, ms",
        "measured, ms",
        "model, ms",
        "model over it",
    )
    print(f"Stencil, p = {COLUMNS}\n\n{table(head, rows)}")
    sizes = [abs(error) for error in errors]
    print(f"Errors: mean {100 * statistics.mean(sizes):.0f} %, most {100 * max(sizes):.0f} %.")


if __name__ == "__main__":
    main()
