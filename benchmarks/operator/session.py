"""Runs the workloads one after the other and collects what was measured."""

from __future__ import annotations

import gc
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.operator.bandwidth import Memory, physical_limit
from benchmarks.operator.check import Checker, DisagreementError
from benchmarks.operator.contenders import (
    CONTENDERS,
    REFERENCE,
    Case,
    Limits,
    explain,
    silence_warnings,
)
from benchmarks.operator.memory import MemoryMeter
from benchmarks.operator.modes import Call, Mode, make_call
from benchmarks.operator.results import (
    LimitRecord,
    MemoryRecord,
    Results,
    Setting,
    TimeRecord,
    WorkloadRecord,
)
from benchmarks.operator.timing import Pace, time_first, time_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    bandwidth_elements: int

    def settings(self, workload: Workload) -> Iterator[tuple[torch.dtype, int, Mode]]:
        """List what to time on a workload."""
        for dtype in self.dtypes:
            for threads in self.threads:
                for mode in modes(workload):
                    yield dtype, threads, mode

    @property
    def steps(self) -> int:
        """Number of steps of which the session reports progress."""
        timed = sum(len(list(self.settings(workload))) for workload in self.workloads)
        apart = 1 + len(self.memory) if self.memory else 0
        return timed + len(self.workloads) * apart


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
        self._memory = Memory(plan.bandwidth_elements)

    def run(self) -> None:
        """Run everything."""
        silence_warnings()
        _warm_up()
        for workload in self._plan.workloads:
            problem = workload.make()
            checked = False
            for dtype in self._plan.dtypes:
                checked |= self._time(workload, problem.to(dtype))
                gc.collect()
            self._record(workload, problem, checked_against_float64=checked)
            if self._plan.memory:
                self._measure_apart(workload, problem.to(self._plan.dtypes[0]))

    def _record(
        self, workload: Workload, problem: Problem, *, checked_against_float64: bool
    ) -> None:
        self._results.workloads.append(
            WorkloadRecord(
                workload.name,
                workload.description,
                problem.batch,
                *problem.size,
                problem.columns,
                problem.entries,
                checked_against_float64,
            )
        )

    def _time(self, workload: Workload, problem: Problem) -> bool:
        checker = Checker(problem)
        dtype = name_of(problem.dtype)
        for threads in self._plan.threads:
            with _threads(threads):
                for mode in modes(workload):
                    setting = Setting(workload.name, dtype, threads, mode.value)
                    self._report(f"{workload.name}: {mode.value}, {dtype}, {threads} threads")
                    self._time_mode(setting, problem, mode, checker)
        return checker.against_float64

    def _time_mode(self, setting: Setting, problem: Problem, mode: Mode, checker: Checker) -> None:
        calls: dict[str, Call] = {}
        first: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for contender in CONTENDERS:
            reason = contender.why_not(problem, mode, self._plan.limits)
            if reason is not None:
                reasons[contender.name] = reason
                continue
            try:
                case: Case = contender.prepare(problem)
                call = make_call(case, problem, mode)
                first[contender.name], outcome = time_first(call)
                checker.check(outcome, case)
                calls[contender.name] = call
            except DisagreementError as error:
                reasons[contender.name] = f"WRONG RESULT: {error}"
                self._results.errors.append(f"{setting}: {contender.name}: {error}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
                reasons[contender.name] = explain(error, contender)
                if contender.family == "spgrad":
                    self._results.errors.append(f"{setting}: {reasons[contender.name]}")
        times = time_rounds(calls, first, self._plan.pace)
        for contender in CONTENDERS:
            name, family = contender.name, contender.family
            self._results.times.append(
                TimeRecord(setting, name, family, times.get(name), reasons.get(name))
            )

    def _measure_apart(self, workload: Workload, problem: Problem) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "problem.pt"
            problem.save(path)
            meter = MemoryMeter(path)
            self._report(f"{workload.name}: physical limit")
            for threads in self._plan.threads:
                self._measure_limit(workload, problem, meter, threads)
            for mode in self._plan.memory:
                self._report(f"{workload.name}: {mode.value}, peak memory")
                self._measure_memory(workload, problem, meter, mode)

    def _measure_limit(
        self, workload: Workload, problem: Problem, meter: MemoryMeter, threads: int
    ) -> None:
        setting = Setting(workload.name, name_of(problem.dtype), threads, Mode.FORWARD.value)
        with _threads(threads):
            limit = physical_limit(problem, self._memory.bandwidth())
        answer = meter.time_mapped(REFERENCE, threads)
        if isinstance(answer, str):
            self._results.errors.append(f"{setting}: {answer}")
            return
        self._results.limits.append(LimitRecord(setting, limit, answer))

    def _measure_memory(
        self, workload: Workload, problem: Problem, meter: MemoryMeter, mode: Mode
    ) -> None:
        for contender in CONTENDERS:
            reason = contender.why_not(problem, mode, self._plan.limits)
            answer = reason or meter.measure(contender.name, mode, max(self._plan.threads))
            record = (
                workload.name,
                name_of(problem.dtype),
                mode.value,
                contender.name,
                contender.family,
            )
            peak, failure = (None, answer) if isinstance(answer, str) else (answer, None)
            self._results.memory.append(MemoryRecord(*record, peak, failure))
