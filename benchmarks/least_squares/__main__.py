"""The command line: ``python -m benchmarks.least_squares --help``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.least_squares.contenders import CONTENDERS
from benchmarks.least_squares.problems import problems
from benchmarks.operator.contenders import silence_warnings
from benchmarks.operator.machine import describe
from benchmarks.operator.output import make_folder
from benchmarks.operator.timing import Pace, time_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.least_squares.contenders import Contender
    from benchmarks.least_squares.problems import Numbers, Problem

# Of x and of both gradients. Each library gets the first tolerance that reaches it.
ERROR = 1e-9
TOLERANCES = (1e-8, 1e-10, 1e-12, 1e-14)
PACE = Pace(seconds=3.0, least_rounds=3, most_rounds=20)
QUICK_PACE = Pace(seconds=0.0, least_rounds=2, most_rounds=2, sample=0.0)
# Seconds of one call, above which a contender is left out.
LONGEST = 30.0
HEADER = """| | seconds forward | backward | spgrad is faster by | | error |
|---|---:|---:|---:|---:|---:|"""


def relative_error(results: dict[str, Numbers], exact: dict[str, Numbers]) -> float:
    """Return the largest of the errors of x, dA and dB."""
    return max(
        float(np.linalg.norm(results[name] - exact[name]) / np.linalg.norm(exact[name]))
        for name in exact
    )


def reach(contender: Contender, problem: Problem, exact: dict[str, Numbers]) -> Any:
    """Find the tolerance that reaches the error: the calls and the error, or why there are none."""
    error = np.inf
    for tolerance in TOLERANCES:
        start = time.perf_counter()
        try:
            solve, differentiate = contender.prepare(problem, tolerance)
            x, (dA, dB) = solve(), differentiate()
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is reported
            return f"{type(failure).__name__}: {str(failure).splitlines()[0][:100]}"
        error = relative_error({"x": x, "dA": dA, "dB": dB}, exact)
        if error <= ERROR:
            return solve, differentiate, error
        if time.perf_counter() - start > 3 * LONGEST:
            return f"left out: more than {LONGEST:.0f} s"
    return f"reaches an error of {error:.0e} only"


def compare(problem: Problem, contenders: Sequence[Contender], pace: Pace) -> tuple[str, list[str]]:
    """Time all contenders on a problem: lines of a table, and what went wrong with spgrad."""
    exact = problem.exact()
    reached = {
        contender.name: reach(contender, problem, exact)
        if contender.is_there()
        else "not installed"
        for contender in contenders
    }
    ready = {name: found for name, found in reached.items() if not isinstance(found, str)}
    times = [
        time_rounds({name: found[index] for name, found in ready.items()}, pace) for index in (0, 1)
    ]
    lines = []
    for name, found in reached.items():
        if isinstance(found, str):
            lines.append(f"| {name} | {found} | | | | |")
            continue
        forward, backward = (measured[name].median for measured in times)
        ratios = ["", ""]
        if name != "spgrad" and "spgrad" in ready:
            ratios = [
                f"{measured[name].median / measured['spgrad'].median:.2g} ×" for measured in times
            ]
        lines.append(
            f"| {name} | {forward:.2g} | {backward:.2g} | {' | '.join(ratios)} | {found[2]:.0e} |"
        )
    wrong = (
        [f"{problem.name}: {reached['spgrad']}"] if isinstance(reached.get("spgrad"), str) else []
    )
    return "\n".join([f"### {problem.name}\n", HEADER, *lines, ""]), wrong


def main(command_line: list[str] | None = None) -> None:
    """Compare, and write a page; end with an error where spgrad does not reach the error."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.least_squares",
        description="Times of least squares and their gradients, to the same error.",
    )
    parser.add_argument("--quick", action="store_true", help="small problems")
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"), help="folder")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="of PyTorch's libraries"
    )
    arguments = parser.parse_args(command_line)
    make_folder(arguments.output)
    silence_warnings()
    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    console = Console(stderr=True, markup=False)
    parts = ["# Least squares\n", *(f"- {name}: {text}" for name, text in describe().items()), ""]
    errors = []
    try:
        for problem in problems(quick=arguments.quick):
            console.print(problem.name)
            part, wrong = compare(problem, CONTENDERS, QUICK_PACE if arguments.quick else PACE)
            console.print(part)
            parts.append(part)
            errors += wrong
    finally:
        torch.set_num_threads(before)
    path = arguments.output / "least_squares.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    console.print(f"wrote {path}")
    if errors:
        sys.exit("\n".join(errors))


if __name__ == "__main__":
    main()
