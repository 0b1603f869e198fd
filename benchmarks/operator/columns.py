"""Products and gradients by the number of columns of B, beside the limit of memory.

``python -m benchmarks.operator.columns`` prints a table for each matrix, and draws the times over
those in which memory moves A, B and C once, or A, B, G, dA and dB.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from rich.console import Console
from rich.table import Table

import spgrad
from benchmarks.operator.bandwidth import Memory, compulsory_bytes
from benchmarks.operator.check import Checker
from benchmarks.operator.contenders import find, silence_warnings
from benchmarks.operator.modes import Mode, Outcome, make_call
from benchmarks.operator.timing import Pace, time_rounds
from benchmarks.operator.units import two_digits
from benchmarks.operator.workloads import rmat, stencil, uniform

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.operator.case import Case
    from benchmarks.operator.modes import Call
    from benchmarks.operator.problem import Problem

COLUMNS = (1, 2, 3, 4, 8, 16, 32, 64, 128)
FORMS = ("csr_mm", "COO", "Pattern")
FORWARD, BOTH, PATTERN = Mode.FORWARD.value, "both gradients", "both gradients, Pattern"
CURVES = {FORWARD: ("o", "#0072B2"), BOTH: ("s", "#56B4E9"), PATTERN: ("D", "#009E73")}
SECONDS_EACH = 2.0


def matrices(*, quick: bool) -> dict[str, Callable[[], Problem]]:
    """List makers of the matrices: near columns, a power law, random places."""
    return {
        "stencil": partial(stencil, (16,) * 3 if quick else (50,) * 3, max(COLUMNS)),
        "graph": partial(rmat, *((12, 30_000) if quick else (17, 1_200_000)), max(COLUMNS)),
        "random": partial(
            uniform, *(((4096, 4096), 40_000) if quick else ((2**17, 2**17), 2**20)), max(COLUMNS)
        ),
    }


def backward_bytes(problem: Problem) -> int:
    """Count the bytes of A, B, G, dA and dB, each of which both gradients move once at least."""
    return compulsory_bytes(problem) + problem.values.nbytes + problem.B.nbytes


def both_gradients(case: Case, problem: Problem) -> Call:
    """Make a call that computes both gradients, of a product that was computed beforehand."""
    leaves = tuple(leaf.detach().requires_grad_() for leaf in case.leaves)
    B = problem.B.detach().requires_grad_()
    C = case.multiply(leaves, B)

    def call() -> Outcome:
        *dA, dB = torch.autograd.grad(C, (*leaves, B), problem.G, retain_graph=True)
        return Outcome(dA=tuple(dA), dB=dB)

    return call


def checked_calls(problem: Problem) -> dict[str, Call]:
    """Make the calls that are timed; end with a message if one gives a wrong result."""
    csr, coo, pattern = (find(f"spgrad {form}").prepare(problem) for form in FORMS)
    alone = {
        mode.value: (csr, make_call(csr, problem, mode))
        for mode in (Mode.FORWARD, Mode.GRADIENT_A, Mode.GRADIENT_B)
    }
    together = {BOTH: csr, f"{BOTH}, COO": coo, PATTERN: pattern}
    calls = alone | {name: (case, both_gradients(case, problem)) for name, case in together.items()}
    checker = Checker(problem)
    for name, (case, call) in calls.items():
        # Written so that NaN does not agree.
        if not all(size <= checker.tolerance for size in checker.deviations(call(), case).values()):
            message = f"{name}, p = {problem.columns}: wrong result"
            raise SystemExit(message)
    return {name: call for name, (_, call) in calls.items()}


@dataclass(frozen=True)
class Measured:
    """Seconds of each call at one number of columns, and the bytes that it has to move."""

    seconds: dict[str, float]
    forward_bytes: int
    backward_bytes: int

    def over_limit(self, name: str, bandwidth: float) -> float:
        """Give the time over that of the bytes."""
        moved = self.forward_bytes if name == FORWARD else self.backward_bytes
        return self.seconds[name] * bandwidth / moved


def measure(problem: Problem, pace: Pace) -> Measured:
    """Check all calls, then time them in rounds."""
    times = time_rounds(checked_calls(problem), pace)
    seconds = {name: measured.median for name, measured in times.items()}
    return Measured(seconds, compulsory_bytes(problem), backward_bytes(problem))


def table_of(matrix: str, rows: dict[int, Measured], bandwidth: float) -> Table:
    """Tabulate times in ms, and those of CURVES over the limit."""
    names = next(iter(rows.values())).seconds
    heads = (*names, "both / (forward + dA)", *(f"{curve} / limit" for curve in CURVES))
    table = Table("p", *heads, title=f"{matrix}, ms")
    for p, row in rows.items():
        apart = row.seconds[FORWARD] + row.seconds[Mode.GRADIENT_A.value]
        table.add_row(
            str(p),
            *(two_digits(1e3 * seconds) for seconds in row.seconds.values()),
            two_digits(row.seconds[BOTH] / apart),
            *(two_digits(row.over_limit(curve, bandwidth)) for curve in CURVES),
        )
    return table


def draw(results: dict[str, dict[int, Measured]], bandwidth: float, path: Path) -> None:
    """Draw the times over the limit by p: a panel for each matrix, a curve for each of CURVES."""
    figure = Figure(figsize=(3.6 * len(results), 3.4), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (matrix, rows) in zip(panels, results.items(), strict=True):
        for name, (marker, colour) in CURVES.items():
            ratios = [row.over_limit(name, bandwidth) for row in rows.values()]
            axes.plot(list(rows), ratios, marker=marker, color=colour, label=name)
        axes.axhline(1, color="0.2", lw=1.3)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_title(matrix, loc="left", fontweight="bold")
        axes.set_xlabel("columns of B")
        axes.grid(color="0.92")
    panels[0].set_ylabel("time / time that memory needs")
    panels[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> None:
    """Time all matrices and numbers of columns, print the tables, and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator.columns")
    parser.add_argument("--quick", action="store_true", help="small matrices")
    parser.add_argument("--columns", type=int, nargs="+", default=COLUMNS, metavar="P")
    parser.add_argument("--picture", type=Path, default=Path("benchmark-output/columns.png"))
    options = parser.parse_args(arguments)
    quick: bool = options.quick
    pace = Pace(seconds=0.1 if quick else SECONDS_EACH, least_rounds=3, most_rounds=50)
    silence_warnings()
    memory = Memory(1 << 20) if quick else Memory()
    results: dict[str, dict[int, Measured]] = {}
    bandwidths = []
    for matrix, make in matrices(quick=quick).items():
        problem = make().to(torch.float32)
        results[matrix] = {p: measure(problem.with_columns(p), pace) for p in options.columns}
        bandwidths.append(memory.bandwidth())
    bandwidth = max(bandwidths)  # others on the machine can only take of it
    tables = (table_of(matrix, rows, bandwidth) for matrix, rows in results.items())
    draw(results, bandwidth, options.picture)
    Console().print(
        *tables,
        f"float32, {torch.get_num_threads()} threads, {spgrad.instruction_set()}. The limit is the "
        f"time of the compulsory bytes at {two_digits(bandwidth / 1e9)} GB/s. "
        f"Picture: {options.picture}",
        sep="\n",
    )


if __name__ == "__main__":
    main()
