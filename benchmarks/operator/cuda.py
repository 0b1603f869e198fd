"""Times on a CUDA device: ``python -m benchmarks.operator.cuda --help``.

What matters most comes first, each time is printed as soon as it is known, and the file with all of
them is written again after each setting: a run that is cut off still counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import spgrad
from benchmarks.operator import units
from benchmarks.operator.bandwidth import compulsory_bytes
from benchmarks.operator.check import Checker
from benchmarks.operator.contenders import ON_DEVICES, Limits, is_ours, silence_warnings
from benchmarks.operator.device import DEVICES, Host
from benchmarks.operator.machine import commit
from benchmarks.operator.memory import result_bytes
from benchmarks.operator.modes import Call, Mode
from benchmarks.operator.results import Results, Setting
from benchmarks.operator.session import Plan, Session, name_of
from benchmarks.operator.timing import Pace, Times, time_rounds
from benchmarks.operator.workloads import add_size_options, workloads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.operator.problem import Problem
    from benchmarks.operator.workloads import Workload


PACES = {
    # Many calls in a row, so that the host is ahead of the device, as it is in a training loop.
    "full": Pace(seconds=0.4, least_rounds=7, most_rounds=50, sample=1e-2),
    "quick": Pace(seconds=0.1, least_rounds=3, most_rounds=10),
    "tiny": Pace(seconds=0.0, least_rounds=2, most_rounds=2, sample=0.0),
}
COPIED = {"full": 1 << 28, "quick": 1 << 24, "tiny": 1 << 16}
"""Length of the arrays that the bandwidth is measured with."""
WHOLE = (Mode.FORWARD, Mode.BOTH)
PARTS = (Mode.GRADIENT_A, Mode.GRADIENT_B)
OTHER_DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.complex64,
    torch.complex128,
)
OTHER_COLUMNS = (1, 3, 16, 32, 64, 256)
QUEUED = 20
"""Calls in a row whose time on the host is taken; what they launch fits into a device's queue."""


@dataclass(frozen=True)
class Row:
    """A problem, and what is timed of it."""

    workload: str
    dtype: torch.dtype = torch.float32
    modes: tuple[Mode, ...] = WHOLE
    columns: int | None = None
    """Of B; None for those of the workload."""

    def __str__(self) -> str:
        """Name the problem."""
        columns = "" if self.columns is None else f", p = {self.columns}"
        return f"{self.workload}{columns}"


def rows(names: list[str]) -> list[Row]:
    """List what is measured of the workloads of these names, what matters most first."""
    large = [name for name in ("fem", "power_law") if name in names]
    others = [name for name in names if name not in large and not name.startswith("narrow")]
    return [
        *(Row(name, modes=(mode,)) for mode, name in product(WHOLE, large)),
        *(Row(name, modes=PARTS) for name in large),
        *(Row("fem", dtype) for dtype in OTHER_DTYPES if "fem" in large),
        *(Row(name) for name in others if name != "sparse_layer"),
        *(Row(name, modes=(*WHOLE, Mode.STEP)) for name in others if name == "sparse_layer"),
        *(Row(name, columns=columns) for columns, name in product(OTHER_COLUMNS, large)),
        *(Row(name, modes=PARTS) for name in others),
    ]


@dataclass
class Report:
    """All that is written to the file."""

    device: str
    versions: dict[str, str]
    copy_bytes_per_second: float = 0.0
    settings: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    deviations: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0

    def write(self, path: Path) -> None:
        """Write everything in place of what was there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".part")
        scratch.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        scratch.replace(path)


class Run:
    """One run of the benchmark on a device."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Look at the device."""
        self._begin = time.perf_counter()
        self._arguments = arguments
        self._device: Host = DEVICES[arguments.device]
        self._pace = PACES[arguments.size]
        contenders = [c for c in ON_DEVICES if c.name in arguments.contenders]
        self._results = Results({})
        plan = Plan(
            workloads=[],
            dtypes=[],
            threads=[],
            pace=self._pace,
            limits=Limits(dense=arguments.memory_limit, temporary=arguments.memory_limit),
            memory=(),
            bandwidth_elements=None,
            contenders=tuple(contenders),
        )
        self._plan = plan
        self._session = Session(plan, self._results, lambda _: None)
        self._report = Report(
            device=self._device.describe(),
            versions={
                "torch": torch.__version__,
                "spgrad": spgrad.__version__,
                "commit": commit(),
            },
        )

    @cached_property
    def _workloads(self) -> dict[str, Workload]:
        return {workload.name: workload for workload in workloads(self._arguments.size)}

    @property
    def errors(self) -> list[str]:
        """List what must not be: wrong results, and failures of our own."""
        return self._results.errors

    def _left(self) -> float:
        return float(self._arguments.seconds) - (time.perf_counter() - self._begin)

    def measure(self) -> None:
        """Measure everything for which there is time, and list what was left out."""
        silence_warnings()
        bandwidth = self._device.copy_bandwidth(COPIED[self._arguments.size])
        self._report.copy_bytes_per_second = bandwidth
        print(f"{self._report.device}, {self._report.versions}", flush=True)
        print(f"a copy moves {units.size(bandwidth)}/s, read and written", flush=True)
        chosen = [row for row in rows(list(self._workloads)) if self._is_wanted(row)]
        for row, problem in self._with_problems(chosen):
            if problem is not None:
                self._measure_row(row, problem)
            else:
                self._report.skipped += [f"{row}, {name_of(row.dtype)}"]
        for skipped in self._report.skipped:
            print(f"skipped: {skipped}")
        self._write()

    def _is_wanted(self, row: Row) -> bool:
        chosen = self._arguments.workloads
        return not chosen or row.workload in chosen

    def _with_problems(self, chosen: list[Row]) -> Iterator[tuple[Row, Problem | None]]:
        """Make each matrix once, and its operands on the device; None when time is over."""
        made: dict[str, Problem] = {}
        last: dict[str, int] = {row.workload: number for number, row in enumerate(chosen)}
        for number, row in enumerate(chosen):
            if self._left() <= 0:
                yield row, None
                continue
            if row.workload not in made:
                start = time.perf_counter()
                problem = self._workloads[row.workload].make()
                made[row.workload] = problem.on(self._device.name)
                took = units.seconds(time.perf_counter() - start)
                print(f"{row.workload} has {problem.entries:,} entries; made in {took}", flush=True)
            problem = made[row.workload]
            yield row, problem if row.columns is None else problem.with_columns(row.columns)
            if last[row.workload] == number:
                del made[row.workload]

    def _measure_row(self, row: Row, problem: Problem) -> None:
        problem = problem.to(row.dtype)
        checker = Checker(problem)
        for mode in row.modes:
            setting = Setting(str(row), name_of(row.dtype), torch.get_num_threads(), mode.value)
            if self._left() <= 0:
                self._report.skipped.append(f"{row}, {setting.dtype}, {mode.value}")
                continue
            self._measure_setting(setting, problem, mode, checker)
            gc.collect()
            self._write()

    def _measure_setting(
        self, setting: Setting, problem: Problem, mode: Mode, checker: Checker
    ) -> None:
        calls: dict[str, Call] = {}
        found: dict[str, dict[str, Any]] = {}
        for contender in self._plan.contenders:
            answer = self._session.checked_call(setting, contender, problem, mode, checker)
            if isinstance(answer, str):
                found[contender.name] = {"reason": answer}
                continue
            peak = self._device.peak(answer)
            above = None if peak is None else max(0, peak - result_bytes(problem, mode))
            calls[contender.name] = answer
            found[contender.name] = {"bytes_above_results": above}
        times = time_rounds(calls, self._pace, self._device.sample)
        for name, call in calls.items():
            found[name] |= {"seconds": asdict(times[name])}
            if times[name].median < 1e-2:  # noqa: PLR2004 - else the host's part is no question
                found[name]["seconds_of_host"] = self._device.host_seconds(call, QUEUED)
        least = compulsory_bytes(problem) / self._report.copy_bytes_per_second
        record = asdict(setting) | {
            "p": problem.columns,
            "entries": problem.entries,
            "seconds_of_compulsory_bytes": least if mode is Mode.FORWARD else None,
            "contenders": found,
        }
        self._report.settings.append(record)
        self._print(record, {name: times[name] for name in calls})

    def _print(self, record: dict[str, Any], times: dict[str, Times]) -> None:
        others = [t.median for name, t in times.items() if not is_ours(name)]
        title = f"{record['workload']:16} {record['dtype']:10} {record['mode']:18}"
        for name, found in record["contenders"].items():
            if name not in times:
                print(f"{title} {name:30} - {found['reason']}", flush=True)
                continue
            taken = times[name]
            quartiles = (
                f"{1e6 * taken.median:10.1f} µs "
                f"[{1e6 * taken.lower_quartile:.1f} {1e6 * taken.upper_quartile:.1f}]"
            )
            parts = []
            if is_ours(name) and others:
                parts.append(f"{min(others) / taken.median:6.2f} times as fast")
            if record["seconds_of_compulsory_bytes"]:
                floor = record["seconds_of_compulsory_bytes"]
                parts.append(f"{taken.median / floor:6.2f} of floor")
            if found["bytes_above_results"] is not None:
                parts.append(f"peak +{units.size(found['bytes_above_results'])}")
            if "seconds_of_host" in found:
                parts.append(f"host {1e6 * found['seconds_of_host']:.0f} µs")
            print(f"{title} {name:30} {quartiles:34} {'; '.join(parts)}", flush=True)

    def _write(self) -> None:
        self._report.errors = self._results.errors
        self._report.deviations = dict(self._results.deviations)
        self._report.seconds = time.perf_counter() - self._begin
        if self._arguments.output is not None:
            self._report.write(self._arguments.output)


def parse(command_line: list[str] | None = None) -> argparse.Namespace:
    """Read the options, by default those of this process."""
    names = [contender.name for contender in ON_DEVICES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operator.cuda",
        description="Times and peak memory of spgrad beside other libraries, on a CUDA device.",
    )
    add_size_options(parser)
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="cpu: to rehearse")
    parser.add_argument(
        "--seconds", type=float, default=240, help="after which what is left is skipped (240)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="a JSON file to write")
    parser.add_argument("--workloads", nargs="+", metavar="NAME", help="all, if left out")
    parser.add_argument(
        "--contenders", nargs="+", choices=names, default=names, metavar="NAME", help=str(names)
    )
    parser.add_argument(
        "--memory-limit", type=float, default=20e9, metavar="BYTES", help="of one contender (20e9)"
    )
    return parser.parse_args(command_line)


def main(command_line: list[str] | None = None) -> None:
    """Run the benchmark, and fail where results were wrong."""
    arguments = parse(command_line)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        message = "PyTorch finds no CUDA device; --device cpu rehearses on the CPU"
        raise SystemExit(message)
    run = Run(arguments)
    run.measure()
    for error in run.errors:
        print("error:", error)
    if run.errors:
        sys.exit(1)


if __name__ == "__main__":
    main()
