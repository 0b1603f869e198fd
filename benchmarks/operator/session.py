"""Runs the workloads one after the other and collects what was measured."""

from __future__ import annotations

import gc
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.operator.bandwidth import Memory, compulsory_bytes
from benchmarks.operator.check import Checker
from benchmarks.operator.contenders import (
    CONTENDERS,
    REFERENCE,
    Contender,
    Limits,
    explain,
    is_ours,
    silence_warnings,
)
from benchmarks.operator.memory import MemoryMeter
from benchmarks.operator.modes import Call, Mode, make_call
from benchmarks.operator.results import PhysicalLimit, Results, Setting, WorkloadRecord
from benchmarks.operator.timing import Pace, time_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from benchmarks.operator.problem import Problem
    from benchmarks.operator.workloads import Workload


@dataclass(frozen=True)
class Plan:
    """What to run, and how long."""

    workloads: list[Workload]
    dtypes: list[torch.dtype]
    threads: list[int]
    pace: Pace
    limits: Limits
    memory: tuple[Mode, ...]
    """Modes in which peak memory is measured."""
    bandwidth_elements: int | None
    """Length of the arrays to measure the bandwidth of memory with; None leaves its limit out."""
    contenders: tuple[Contender, ...] = CONTENDERS

    @property
    def steps(self) -> int:
        """Number of steps of which the session reports progress."""
        timed = sum(len(modes(workload)) for workload in self.workloads)
        timed *= sum(len(self.threads_of(dtype)) for dtype in self.dtypes)
        apart = len(self.memory) + (self.bandwidth_elements is not None)
        return timed + len(self.workloads) * apart

    def threads_of(self, dtype: torch.dtype) -> list[int]:
        """Give the numbers of threads of a dtype: all for the first, the largest for others."""
        return self.threads if dtype == self.dtypes[0] else [max(self.threads)]


def modes(workload: Workload) -> list[Mode]:
    """List the modes of a workload."""
    return [mode for mode in Mode if mode is not Mode.STEP or workload.trained]


def name_of(dtype: torch.dtype) -> str:
    """Name a dtype without its package."""
    return str(dtype).removeprefix("torch.")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _warm_up() -> None:
    """Let PyTorch import what its first backward pass needs, so that no contender pays for it."""
    x = torch.ones(2, 2, requires_grad=True)
    torch.autograd.grad(x @ x, x, torch.ones(2, 2))


class Session:
    """One run of the benchmark."""

    def __init__(self, plan: Plan, results: Results, report: Callable[[str], None]) -> None:
        """Say what to run, where to put what was measured, and whom to tell at each step."""
        self._plan = plan
        self._results = results
        self._report = report

    def run(self) -> None:
        """Run everything."""
        silence_warnings()
        _warm_up()
        elements = self._plan.bandwidth_elements
        memory = None if elements is None else Memory(elements)
        for workload in self._plan.workloads:
            problem = workload.make()
            sizes = (problem.batch, *problem.size, problem.columns, problem.entries)
            self._results.workloads.append(
                WorkloadRecord(workload.name, workload.description, *sizes)
            )
            for dtype in self._plan.dtypes:
                self._time(workload, problem.to(dtype))
                gc.collect()
            if memory is not None or self._plan.memory:
                self._measure_apart(workload, problem.to(self._plan.dtypes[0]), memory)

    def _measure_apart(self, workload: Workload, problem: Problem, memory: Memory | None) -> None:
        """Measure what needs processes of its own."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "problem.pt"
            problem.save(path)
            meter = MemoryMeter(path)
            if memory is not None:
                self._measure_limits(workload, problem, meter, memory)
            for mode in self._plan.memory:
                self._measure_peaks(workload, problem, meter, mode)

    def _time(self, workload: Workload, problem: Problem) -> None:
        checker = Checker(problem)
        dtype = name_of(problem.dtype)
        for threads in self._plan.threads_of(problem.dtype):
            with _threads(threads):
                for mode in modes(workload):
                    setting = Setting(workload.name, dtype, threads, mode.value)
                    self._report(str(setting))
                    self._time_mode(setting, problem, mode, checker)

    def _time_mode(self, setting: Setting, problem: Problem, mode: Mode, checker: Checker) -> None:
        calls: dict[str, Call] = {}
        reasons: dict[str, str] = {}
        for contender in self._plan.contenders:
            answer = self.checked_call(setting, contender, problem, mode, checker)
            if isinstance(answer, str):
                reasons[contender.name] = answer
            else:
                calls[contender.name] = answer
        measured = reasons | time_rounds(calls, self._plan.pace)
        self._results.times[setting] = {
            contender.name: measured[contender.name] for contender in self._plan.contenders
        }

    def checked_call(
        self,
        setting: Setting,
        contender: Contender,
        problem: Problem,
        mode: Mode,
        checker: Checker,
    ) -> Call | str:
        """Make the call that is timed, or say why there is none."""
        reason = contender.why_not(problem, mode, self._plan.limits)
        if reason is not None:
            return reason
        try:
            case = contender.prepare(problem)
            call = make_call(case, problem, mode)
            deviations = checker.deviations(call(), case)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
            reason = explain(error, contender)
            if is_ours(contender.name):
                self._results.errors.append(f"{setting}: {reason}")
            return reason
        self._results.add_deviations(contender.name, deviations)
        # Written so that NaN does not agree.
        wrong = {name: size for name, size in deviations.items() if not size <= checker.tolerance}
        if not wrong:
            return call
        listed = ", ".join(f"{name} by {deviation:.2g}" for name, deviation in wrong.items())
        reason = f"WRONG RESULT: it deviates from the exact one in {listed}"
        self._results.errors.append(f"{setting}: {contender.name}: {reason}")
        return reason

    def _measure_limits(
        self, workload: Workload, problem: Problem, meter: MemoryMeter, memory: Memory
    ) -> None:
        self._report(f"physical limit of {workload.name}")
        for threads in self._plan.threads:
            setting = Setting(workload.name, name_of(problem.dtype), threads, Mode.FORWARD.value)
            with _threads(threads):
                bandwidth = memory.bandwidth()
            mapped = meter.time_mapped(REFERENCE, threads)
            if isinstance(mapped, str):
                self._results.errors.append(f"{setting}: {mapped}")
            else:
                limit = PhysicalLimit(compulsory_bytes(problem), bandwidth, mapped)
                self._results.limits[setting] = limit

    def _measure_peaks(
        self, workload: Workload, problem: Problem, meter: MemoryMeter, mode: Mode
    ) -> None:
        threads = max(self._plan.threads)
        setting = Setting(workload.name, name_of(problem.dtype), threads, mode.value)
        self._report(f"peak memory of {setting}")
        self._results.peaks[setting] = {
            contender.name: contender.why_not(problem, mode, self._plan.limits)
            or meter.measure(contender.name, mode, threads)
            for contender in self._plan.contenders
        }


def run(plan: Plan, results: Results, console: Console) -> None:
    """Run a plan with a progress bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=plan.steps)

        def report(description: str) -> None:
            progress.update(task, description=description)
            progress.advance(task)

        Session(plan, results, report).run()
        progress.update(task, description="done")
