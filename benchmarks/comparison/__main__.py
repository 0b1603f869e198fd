"""The command line: ``python -m benchmarks.comparison --help``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.comparison.figure import Bar, save
from benchmarks.comparison.finite_elements import elastic_ball
from benchmarks.operator import matrix_market
from benchmarks.operator.check import TOLERANCE
from benchmarks.operator.contenders import Limits, find, is_ours
from benchmarks.operator.machine import available_memory
from benchmarks.operator.modes import Mode
from benchmarks.operator.output import make_folder
from benchmarks.operator.results import Results, Setting
from benchmarks.operator.session import Plan, run
from benchmarks.operator.timing import Pace
from benchmarks.operator.units import size, two_digits
from benchmarks.operator.workloads import Workload

if TYPE_CHECKING:
    from benchmarks.operator.problem import Problem

# Each with the form of spgrad that it is compared with: the same layout, PyTorch's usual indices.
CONTENDERS = {
    "spgrad CSR int64": "spgrad CSR int64",
    "torch.sparse.mm CSR int64": "spgrad CSR int64",
    "spgrad COO": "spgrad COO",
    "torch.sparse.mm COO": "spgrad COO",
}
PACE = Pace(seconds=3.0, least_rounds=3, most_rounds=50)
QUICK_PACE = Pace(seconds=0.2, least_rounds=3, most_rounds=20)
MODES = (Mode.FORWARD, Mode.GRADIENT_A, Mode.GRADIENT_B, Mode.BOTH)
QUANTITIES = {"C": "product", "dA": "gradient of A", "dB": "gradient of B"}
ABSENT = "-"


def positive_integer(text: str) -> int:
    """Parse an option that counts something."""
    number = int(text)
    if number < 1:
        message = f"{number} is not positive"
        raise argparse.ArgumentTypeError(message)
    return number


def parse(command_line: list[str] | None) -> argparse.Namespace:
    """Read the options, by default those of this process."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison",
        description="Compare the time and memory of spgrad.sparse_mm and torch.sparse.mm on a "
        "finite-element matrix.",
    )
    parser.add_argument(
        "--matrix",
        type=Path,
        metavar="PATH",
        help="Matrix Market file (real, integer or pattern) in place of that one",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("demo-output"),
        help="folder for the figure (default: %(default)s)",
    )
    parser.add_argument(
        "--p",
        type=positive_integer,
        metavar="COLUMNS",
        default=128,
        help="columns of the dense matrix (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="time fewer rounds")
    return parser.parse_args(command_line)


class Comparison:
    """What was measured on one problem, by contender."""

    def __init__(self, results: Results, setting: Setting) -> None:
        """Look results up in a setting, whatever its mode."""
        self.results = results
        self.setting = setting

    def _in(self, mode: Mode) -> Setting:
        setting = self.setting
        return Setting(setting.workload, setting.dtype, setting.threads, mode.value)

    def median(self, name: str, mode: Mode) -> float | None:
        """Give a median in seconds, if there is one."""
        return self.results.median(self._in(mode), name)

    def ratio(self, name: str) -> float | None:
        """Give the time of a whole pass over that of spgrad on the same layout."""
        ours, theirs = self.median(CONTENDERS[name], Mode.BOTH), self.median(name, Mode.BOTH)
        return theirs / ours if ours and theirs else None

    def peak(self, name: str) -> int | None:
        """Give the peak memory of a whole pass, if it was measured."""
        peak = self.results.peaks[self._in(Mode.BOTH)][name]
        return peak if isinstance(peak, int) else None

    def reasons(self) -> list[str]:
        """Say what was not run, and why."""
        found = [
            f"{label(name)}, {setting.mode}: {measured}"
            for table in (self.results.times, self.results.peaks)
            for setting, row in table.items()
            for name, measured in row.items()
            if isinstance(measured, str)
        ]
        return list(dict.fromkeys(found))


def label(name: str) -> str:
    """Name a contender without the indices, which are PyTorch's usual ones."""
    return name.removesuffix(" int64")


def milliseconds(median: float | None) -> str:
    """Write a time, if there is one."""
    return ABSENT if median is None else two_digits(median * 1e3)


def speed_table(comparison: Comparison) -> Table:
    """Tabulate times, ratios and memory."""
    table = Table(
        title="Times (medians, in ms) and peak memory (in MB)",
        caption="all: forward and backward, with both gradients\n"
        "×: its time over that of spgrad on the same layout\n"
        "memory: its peak, above operands, product and gradients",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("contender", no_wrap=True)
    # Short, so that the table fits into 80 columns.
    heads = ("forward", "grad.\nof A", "grad.\nof B", "all", "×", "memory")
    for heading in heads:
        table.add_column(heading, justify="right", no_wrap=True)
    for name in CONTENDERS:
        ratio, peak = comparison.ratio(name), comparison.peak(name)
        table.add_row(
            label(name),
            *(milliseconds(comparison.median(name, mode)) for mode in MODES),
            ABSENT if ratio is None else two_digits(ratio),
            ABSENT if peak is None else two_digits(peak / 1e6),
            style="bold" if is_ours(name) else None,
        )
    return table


def agreement_table(results: Results) -> Table:
    """Tabulate the deviations."""
    tolerance = TOLERANCE * torch.finfo(torch.float32).eps
    table = Table(
        title=f"Largest deviation from an exact reference in float64, at most {tolerance:.2g}",
        caption="of each number, relative to the sum of the sizes of the terms added up",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("contender", no_wrap=True)
    for heading in (*QUANTITIES.values(), "agrees"):
        table.add_column(heading, justify="right")
    for name in CONTENDERS:
        found = results.deviations[name]
        agrees = all(deviation <= tolerance for deviation in found.values())
        table.add_row(
            label(name),
            *(f"{found[quantity]:.1e}" if quantity in found else ABSENT for quantity in QUANTITIES),
            "yes" if agrees else Text("no", style="red"),
        )
    return table


def bars(comparison: Comparison) -> list[Bar]:
    """List what the figure shows."""
    listed = []
    for name in CONTENDERS:
        forward, both = comparison.median(name, Mode.FORWARD), comparison.median(name, Mode.BOTH)
        rest = comparison.median(name, Mode.GRADIENT_B)
        if forward is not None and both is not None:
            rest = both - forward
        ratio = None if is_ours(name) else comparison.ratio(name)
        complete = both is not None
        listed.append(
            Bar(label(name), forward or 0.0, rest or 0.0, complete, ratio, comparison.peak(name))
        )
    return listed


def compare(problem: Problem, pace: Pace, console: Console) -> Comparison:
    """Measure all contenders in float32 on all threads."""
    threads = torch.get_num_threads()
    available = available_memory()
    plan = Plan(
        workloads=[Workload("matrix", "matrix", "", lambda: problem)],
        dtypes=[torch.float32],
        threads=[threads],
        pace=pace,
        # A dense gradient may take a quarter: operands and other programs need room too.
        limits=Limits(dense=available / 4, temporary=available / 2),
        memory=(Mode.BOTH,),
        bandwidth_elements=None,
        contenders=tuple(map(find, CONTENDERS)),
    )
    results = Results(machine={})
    run(plan, results, console)
    return Comparison(results, Setting("matrix", "float32", threads, Mode.BOTH.value))


def main(command_line: list[str] | None = None) -> None:
    """Compare; end with a message if something does not work as it should."""
    options = parse(command_line)
    make_folder(options.output)
    # Names of files are printed, and may look like markup.
    console = Console(markup=False)
    with console.status("reading or assembling the matrix"):
        named = matrix_market.read(options.matrix) if options.matrix else elastic_ball()
        problem = named.problem(options.p).to(torch.float32)
    result_bytes = problem.G.nbytes + problem.values.nbytes + problem.B.nbytes
    dense_bytes = problem.size[0] * problem.size[1] * problem.dtype.itemsize
    console.rule("Sparse times dense, with gradients")
    console.print(
        f"{named.description}: {problem.entries:,} entries, times a dense matrix of "
        f"{options.p} columns\nthe product and both gradients take {size(result_bytes)}, "
        f"a dense gradient of A would take {size(dense_bytes)} "
        f"({size(available_memory())} of memory available)",
        highlight=False,
    )
    comparison = compare(problem, QUICK_PACE if options.quick else PACE, console)
    console.print(agreement_table(comparison.results))
    console.print(speed_table(comparison))
    for reason in comparison.reasons():
        console.print(f"not run: {reason}", highlight=False)
    figure = options.output / "comparison.png"
    title = f"{named.description}: {options.p} columns, float32"
    save(figure, title, bars(comparison), result_bytes, dense_bytes)
    console.print(f"saved {figure}", highlight=False)
    if comparison.results.errors:
        raise SystemExit("\n".join(comparison.results.errors))


if __name__ == "__main__":
    main()
