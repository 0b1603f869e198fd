"""What graph networks compute round a product: times beside what others offer for the same.

``python -m benchmarks.graphs``; times are medians of rounds in one process.
"""

from __future__ import annotations

import argparse
from itertools import chain

from rich.console import Console

from benchmarks.graphs import layers, products
from benchmarks.graphs.rows import compare
from benchmarks.operator.contenders import silence_warnings
from benchmarks.operator.machine import describe
from benchmarks.operator.timing import Pace

PARTS = {"products": products.rows, "layers": layers.rows}


def main(arguments: list[str] | None = None) -> None:
    """Time the rows, and print them; end with a message if results differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graphs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small graphs")
    parser.add_argument("--only", choices=PARTS, help="some of the rows")
    options = parser.parse_args(arguments)
    quick: bool = options.quick
    pace = Pace(seconds=0.1 if quick else 30, least_rounds=3 if quick else 7, most_rounds=50)
    silence_warnings()
    parts = [options.only] if options.only else list(PARTS)
    rows = chain.from_iterable(PARTS[part](quick=quick) for part in parts)
    Console().print(
        *(f"{name}: {text}" for name, text in describe().items()),
        "Forward and backward where nothing else is said, float32",
        compare(rows, pace),
        sep="\n",
    )


if __name__ == "__main__":
    main()
