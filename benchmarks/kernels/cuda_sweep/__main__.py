"""Times of the CUDA kernels with other shapes and constants, beside torch.sparse.mm.

They are compiled on the machine with the GPU, checked against float64, and timed round by round.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import multiprocessing
import os
import statistics
import time
import warnings
from collections import defaultdict
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.kernels.cuda_sweep.compiler import Built, compile_variant
from benchmarks.kernels.cuda_sweep.launches import STATUSES, Case, Runner
from benchmarks.kernels.cuda_sweep.variants import KINDS, Variant, all_variants
from benchmarks.operator.check import Checker
from benchmarks.operator.device import Cuda
from benchmarks.operator.timing import Pace, time_rounds
from benchmarks.operator.workloads import SIZES, workloads

if TYPE_CHECKING:
    from collections.abc import Callable

CYCLES = 1_500_000
SAMPLE = 4e-4
"""Cycles that the device waits, and seconds of a sample: so few that all its calls are in the queue
before the first begins, as a launch from Python takes the host longer than small kernels run.
"""
OFTEN = 5
"""Calls of which each kernel is timed alone."""


class Loaded:
    """A variant whose kernels are on the device: a call makes all its launches."""

    def __init__(self, built: Built, case: Case) -> None:
        """Load the code."""
        count = torch.cuda.get_device_properties(0).multi_processor_count
        self._case, self._runner = case, Runner(built.variant, case, count)
        self._turns = itertools.cycle(self._runner.launches)
        self._statuses, self._early = itertools.cycle(range(STATUSES)), built.variant.early
        self._told = ("status", "of_mirror") if built.variant.kind == "mirror" else ("status",)
        self._lib, module = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
        self._check(self._lib.cuModuleLoadData(ctypes.byref(module), built.code))
        self._functions = {name: ctypes.c_void_p() for name in built.kernels}
        for name, (symbol, *_) in built.kernels.items():
            function = ctypes.byref(self._functions[name])
            self._check(self._lib.cuModuleGetFunction(function, module, symbol.encode()))

    def _check(self, status: int) -> None:
        if status:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorString(status, ctypes.byref(text))
            raise RuntimeError((text.value or b"unknown error").decode())

    def __call__(self, events: list[torch.cuda.Event] | None = None) -> Any:
        """Launch everything for the next operands, with an event before and after each kernel."""
        stream = torch.cuda.current_stream().cuda_stream
        statuses, turn = self._runner.statuses, next(self._statuses)
        address, size = ctypes.c_void_p(statuses.data_ptr()), ctypes.c_size_t(statuses.nbytes)
        if turn == 0:
            self._check(self._lib.cuMemsetD8Async(address, 0, size, ctypes.c_void_p(stream)))
        status = statuses.data_ptr() + turn * statuses.nbytes // STATUSES
        if events:
            events[0].record()
        for number, launch in enumerate(next(self._turns)):
            for name in self._told:
                if hasattr(launch.argument, name):
                    setattr(launch.argument, name, status)
            early = self._early and number > 0  # behind one of ours
            configuration = ctypes.byref(launch.configuration(stream, early=early))
            pointers = (ctypes.c_void_p * 1)(ctypes.addressof(launch.argument))
            function = self._functions[launch.kernel]
            self._check(self._lib.cuLaunchKernelEx(configuration, function, pointers, None))
            if events:
                events[number + 1].record()

    def parts(self) -> dict[str, float]:
        """Give the median seconds of each kernel; the events between them are in it, too."""
        launches = self._runner.launches[0]
        found = defaultdict(list)
        for _ in range(OFTEN):
            events = [torch.cuda.Event(enable_timing=True) for _ in range(len(launches) + 1)]
            torch.cuda._sleep(CYCLES)  # noqa: SLF001 - PyTorch's own tests wait by it
            self(events)
            torch.cuda.synchronize()
            taken = itertools.starmap(torch.cuda.Event.elapsed_time, itertools.pairwise(events))
            for number, (launch, milliseconds) in enumerate(zip(launches, taken, strict=True)):
                found[f"{number} {launch.kernel}"].append(milliseconds / 1e3)
        return {name: statistics.median(samples) for name, samples in found.items()}

    def deviation(self, checker: Checker) -> float:
        """Compare with float64, or with another sort; of both gradients, add the deviations up."""
        results = self._runner.results
        for tensor in results.values():
            tensor.fill_(-1 if tensor.dtype == torch.int32 else float("nan"))
        self()
        torch.cuda.synchronize()
        if self._runner.pending.any():
            return float("inf")
        if "pairs" in results:
            right = all(torch.equal(t, getattr(self._case, name)) for name, t in results.items())
            return 0.0 if right else float("inf")
        return sum(checker.deviation(name, tensor) for name, tensor in results.items())


def baselines(case: Case, kinds: set[str]) -> dict[str, Callable[[], Any]]:
    """Give what PyTorch has for these kinds."""
    values, B, G = case.problem.values, itertools.cycle(case.B), itertools.cycle(case.G)
    A = torch.sparse_csr_tensor(case.crow, case.col, values, case.problem.size)
    rows = case.pairs[:, 0].contiguous()
    At = torch.sparse_csr_tensor(case.ccol, rows, values[case.order], (case.m, case.n))
    calls: dict[str, Callable[[], Any]] = {
        "forward torch.sparse.mm of CSR": lambda: torch.sparse.mm(A, next(B)),
        "transposed torch.sparse.mm of sorted CSR": lambda: torch.sparse.mm(At, next(G)),
        "sort torch.sort of columns": lambda: torch.sort(case.col, stable=True),
    }
    return {name: call for name, call in calls.items() if name.split()[0] in kinds}


def measure_group(title: str, case: Case, members: list[Built], end: float) -> list[dict[str, Any]]:
    """Check and time variants with the same operands, and print a table."""
    checker = Checker(case.problem)
    records: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], Any]] = {}
    for built in members:
        name, found = str(built.variant), dict[str, Any](built.variant._asdict())
        records[name] = found | {"kernels": built.kernels}
        try:
            loaded = Loaded(built, case)
            deviation = records[name]["deviation"] = loaded.deviation(checker)
        except RuntimeError as error:
            records[name]["error"] = str(error)
            print(f"failed {name}: {error}", flush=True)
            continue
        right = deviation <= checker.tolerance  # NaN is not
        used = [resources for _, *resources in built.kernels.values()]
        print(f"{'right' if right else 'WRONG'} {name}: {deviation:.2g}, {used}", flush=True)
        if right:
            calls[name] = loaded
    for name, call in baselines(case, {built.variant.kind for built in members}).items():
        records[name] = {"kind": name.split()[0]}
        try:
            call()
            calls[name] = call
        except RuntimeError as error:
            records[name]["error"] = str(error)
    pace = Pace(seconds=end - time.perf_counter(), least_rounds=3, most_rounds=30, sample=SAMPLE)
    times = time_rounds(calls, pace, Cuda(CYCLES).sample)
    for name in sorted(times, key=lambda n: (KINDS.index(records[n]["kind"]), times[n].median)):
        records[name]["seconds"] = asdict(times[name])
        call, t = calls[name], times[name]
        parts = records[name]["parts"] = call.parts() if isinstance(call, Loaded) else {}
        each = ", ".join(f"{part} {1e6 * seconds:.1f}" for part, seconds in parts.items())
        quartiles = f"[{1e6 * t.lower_quartile:.1f} {1e6 * t.upper_quartile:.1f}]"
        print(f"{1e6 * t.median:8.1f} µs {quartiles:16} {name}  {each}", flush=True)
    return [{"group": title, "name": name, **record} for name, record in records.items()]


def build(variants: list[Variant], architecture: str, processes: int) -> list[Built]:
    """Compile in processes of their own, which import no PyTorch, and say what failed."""
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(min(processes, len(variants))) as pool:
        compiled = partial(compile_variant, architecture=architecture)
        built = pool.map(compiled, variants, chunksize=1)
    for failed in (b for b in built if b.error):
        print(f"not compiled: {failed.variant}\n{failed.error}")
    took = time.perf_counter() - start
    print(f"{len(variants)} variants for {architecture} compiled in {took:.0f} s", flush=True)
    return [b for b in built if not b.error]


def sweep(built: list[Built], arguments: argparse.Namespace) -> None:
    """Measure all groups of variants with a matrix and operands in common, or print grids."""
    listed = workloads(arguments.size)
    problems = {w.name: w.make() for w in listed if w.name in {"fem", "power_law"}}
    groups: dict[tuple[str, int, str], list[Built]] = defaultdict(list)
    for b, matrix in itertools.product(built, problems):
        groups[matrix, b.variant.p, b.variant.dtype].append(b)
    report: dict[str, Any] = {"torch": torch.__version__, "records": []}
    report["device"] = "none" if arguments.dry else Cuda().describe()
    begin = time.perf_counter()
    for number, ((matrix, p, dtype), members) in enumerate(groups.items()):
        now = time.perf_counter()
        left = arguments.seconds - (now - begin)
        title = f"{matrix}, p = {p}, {dtype}"
        print(f"\n{title}{'' if left > 0 else ' is skipped: no time is left'}", flush=True)
        if left <= 0:
            continue
        problem = problems[matrix].with_columns(p).on("cpu" if arguments.dry else "cuda")
        case = Case(problem.to(getattr(torch, dtype)))
        if arguments.dry:
            for b in members:
                launches = Runner(b.variant, case, multiprocessors=132).launches[0]
                grids = (f"{kernel} {x}×{y}×{z}" for kernel, (x, y), z, _ in launches)
                print(f"{b.variant}: {', '.join(grids)}")
            continue
        report["records"] += measure_group(
            title, case, members, now + left / (len(groups) - number)
        )
        if arguments.output:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(report, indent=1), encoding="utf-8")


def main(command_line: list[str] | None = None) -> None:
    """Compile and measure, or rehearse it."""
    name = "python -m benchmarks.kernels.cuda_sweep"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of measuring (60)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="a JSON file to write")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=KINDS, metavar="KIND")
    parser.add_argument("--size", choices=SIZES, default="full", help="of the matrices")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="COUNT")
    parser.add_argument("--dry", action="store_true", help="compile two, and print their grids")
    arguments = parser.parse_args(command_line)
    warnings.filterwarnings("ignore", message="Sparse ")  # of PyTorch, on CSR in general
    variants = [variant for variant in all_variants() if variant.kind in arguments.only]
    if arguments.dry:
        ends = list(dict.fromkeys([variants[0], variants[-1]]))
        sweep(build(ends, "sm_90", arguments.processes), arguments)
        return
    if not torch.cuda.is_available():
        message = "PyTorch finds no CUDA device; --dry rehearses without one"
        raise SystemExit(message)
    torch.zeros(1, device="cuda")  # makes the context that code is loaded into
    major, minor = torch.cuda.get_device_capability()
    sweep(build(variants, f"sm_{major}{minor}", arguments.processes), arguments)


if __name__ == "__main__":
    main()
