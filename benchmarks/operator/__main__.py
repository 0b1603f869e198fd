"""The command line: ``python -m benchmarks.operator --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.operator import output
from benchmarks.operator.bandwidth import ELEMENTS
from benchmarks.operator.contenders import Limits
from benchmarks.operator.machine import available_memory, busy, describe
from benchmarks.operator.modes import Mode
from benchmarks.operator.results import Results
from benchmarks.operator.session import Plan, run
from benchmarks.operator.timing import Pace
from benchmarks.operator.workloads import add_size_options, workloads

PACES = {
    "full": Pace(seconds=2.5, least_rounds=7, most_rounds=50),
    "quick": Pace(seconds=0.4, least_rounds=3, most_rounds=20),
    "tiny": Pace(seconds=0.0, least_rounds=2, most_rounds=2, sample=0.0),
}
NAMES = {"float32": torch.float32, "float64": torch.float64}
DTYPES = {
    "full": [torch.float32, torch.float64],
    "quick": [torch.float32],
    "tiny": [torch.float32, torch.float64],
}


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    """Read the options, by default those of this process."""
    groups = list(dict.fromkeys(workload.group for workload in workloads("tiny")))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operator",
        description="Times and peak memory of spgrad beside other libraries.",
    )
    add_size_options(parser)
    parser.add_argument(
        "--matrix", type=Path, help="Matrix Market file (real, integer or pattern) in place of fem"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"), help="folder")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of threads (1 and all; less than all for the first dtype only)",
    )
    parser.add_argument(
        "--workloads", nargs="+", choices=groups, default=groups, metavar="NAME", help=str(groups)
    )
    parser.add_argument(
        "--dtypes", nargs="+", choices=sorted(NAMES), metavar="DTYPE", help="of the values"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out peaks and limits")
    parser.add_argument(
        "--dense-limit", type=float, metavar="BYTES", help="of a dense matrix (2e9; quick: 3e8)"
    )
    return parser.parse_args(command_line)


def _plan(arguments: argparse.Namespace) -> Plan:
    every = torch.get_num_threads()
    threads = {"full": [every, 1], "quick": [every], "tiny": [1]}[arguments.size]
    chosen = workloads(arguments.size, arguments.matrix)
    dense = arguments.dense_limit or (2e9 if arguments.size == "full" else 3e8)
    elements = ELEMENTS if arguments.size != "tiny" else 1 << 16
    return Plan(
        workloads=[workload for workload in chosen if workload.group in arguments.workloads],
        dtypes=(
            [NAMES[name] for name in arguments.dtypes]
            if arguments.dtypes
            else DTYPES[arguments.size]
        ),
        threads=list(dict.fromkeys(arguments.threads or threads)),
        pace=PACES[arguments.size],
        limits=Limits(dense=dense, temporary=available_memory() / 2),
        memory=() if arguments.no_memory else (Mode.BOTH,),
        bandwidth_elements=None if arguments.no_memory else elements,
    )


def main(command_line: list[str] | None = None) -> None:
    """Run the benchmark and write its results."""
    arguments = parse(command_line)
    output.make_folder(arguments.output)
    plan = _plan(arguments)
    results = Results(describe())
    console = Console(stderr=True)
    run(plan, results, console)
    if busy(results.machine):
        console.print("[yellow]warning:[/yellow] the machine was busy; times are unreliable")
    for path in output.write(results, arguments.output):
        console.print(f"wrote {path}", markup=False)
    for error in results.errors:
        console.print("error:", error, style="red", markup=False)
    if results.errors:
        sys.exit(1)


if __name__ == "__main__":
    main()
