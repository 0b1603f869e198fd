"""What has to be measured in a process of its own: peak memory, and time in memory that is mapped.

A server process imports the libraries once and never computes anything; each measurement is a fresh
fork of it. There the operands are loaded, a small problem is run so that threads and libraries are
set up, the kernel's high-water mark of resident memory is reset, and the call is made once.

Fresh memory costs page faults, which are the system's time and not the operator's. For the
comparison with the physical limit, the C library is told to keep what is freed, so that the result
of each call takes the place of the one before.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.operator.contenders import explain, find, silence_warnings
from benchmarks.operator.modes import Mode, make_call
from benchmarks.operator.problem import Problem
from benchmarks.operator.timing import Pace, time_rounds
from benchmarks.operator.workloads import stencil

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

PRELOADED = (
    "benchmarks.operator.memory",
    "scipy.sparse",
    "torch.fx.experimental.symbolic_shapes",  # PyTorch's first backward pass imports it, for 0.5 s
    "torch.nested._internal.nested_tensor",  # and this
    "torchsparsegradutils",
    "torch_sparse",
)
TIMEOUT = 300.0


def _status(field: str) -> int:
    """Read a field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    message = f"/proc/self/status has no {field}"
    raise OSError(message)


def result_bytes(problem: Problem, mode: Mode) -> int:
    """Count the bytes of the results that a call makes: C, values of dA, dB."""
    count = problem.G.nbytes if mode in {Mode.FORWARD, Mode.BOTH, Mode.STEP} else 0
    count += problem.values.nbytes if mode.wants_a else 0
    return count + (problem.B.nbytes if mode.wants_b else 0)


def measure_here(problem: Problem, contender: str, mode: Mode) -> int:
    """Make one call and count the bytes above operands and results at its peak.

    For a process that does nothing else.
    """
    small = stencil((3, 3, 3), problem.columns).to(problem.dtype)
    make_call(find(contender).prepare(small), small, mode)()

    call = make_call(find(contender).prepare(problem), problem, mode)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    outcome = call()
    peak = _status("VmHWM")
    del outcome
    return max(0, peak - before - result_bytes(problem, mode))


def time_mapped_here(problem: Problem, contender: str) -> float:
    """Time the forward product into memory that is mapped; for a process that does nothing else."""
    call = make_call(find(contender).prepare(problem), problem, Mode.FORWARD)
    pace = Pace(seconds=0.0, least_rounds=11, most_rounds=11, sample=0.0)
    call()
    return time_rounds({contender: call}, pace)[contender].median


# Options of the C library's mallopt, and a size that no allocation exceeds.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
UNLIMITED = 1 << 30


def _child(
    connection: Connection, path: Path, contender: str, mode: Mode | None, threads: int
) -> None:
    """Measure the peak of a mode or, without one, the time of the forward product when mapped."""
    libc = ctypes.CDLL(None)
    if mode is None:
        libc.mallopt(M_MMAP_THRESHOLD, UNLIMITED)
        libc.mallopt(M_TRIM_THRESHOLD, UNLIMITED)
    else:
        # Allocations from this size on are mapped and unmapped, so that none hides in freed memory.
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
    torch.set_num_threads(threads)
    silence_warnings()
    try:
        problem = Problem.load(path)
        if mode is None:
            connection.send(time_mapped_here(problem, contender))
        else:
            connection.send(measure_here(problem, contender, mode))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
        connection.send(explain(error, find(contender)))


class MemoryMeter:
    """Starts a process for each measurement."""

    def __init__(self, problem_file: Path) -> None:
        """Choose the file in which the problem is saved."""
        self._file = problem_file
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))

    def measure(self, contender: str, mode: Mode, threads: int) -> int | str:
        """Measure the peak of one call, or say why that failed."""
        answer: int | str = self._ask(contender, mode, threads)
        return answer

    def time_mapped(self, contender: str, threads: int) -> float | str:
        """Time the forward product into memory that is mapped, or say why that failed."""
        answer: float | str = self._ask(contender, None, threads)
        return answer

    def _ask(self, contender: str, mode: Mode | None, threads: int) -> Any:
        with self._child_process(contender, mode, threads) as (process, receiver):
            try:
                if receiver.poll(TIMEOUT):
                    return receiver.recv()
            except EOFError:
                process.join()
                if process.exitcode == -signal.SIGKILL:
                    return "was killed, probably because memory ran out"
                return f"the process ended with status {process.exitcode}"
            process.kill()
            return f"took longer than {TIMEOUT:.0f} s"

    @contextlib.contextmanager
    def _child_process(
        self, contender: str, mode: Mode | None, threads: int
    ) -> Iterator[tuple[multiprocessing.process.BaseProcess, Connection]]:
        receiver, sender = self._context.Pipe(duplex=False)
        arguments = (sender, self._file, contender, mode, threads)
        process = self._context.Process(target=_child, args=arguments)
        process.start()
        sender.close()
        try:
            yield process, receiver
        finally:
            process.join()
            receiver.close()
