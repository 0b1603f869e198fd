"""What differs where the products are computed on a device: clocks, peak memory, bandwidth."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from benchmarks.operator.modes import Outcome
from benchmarks.operator.timing import Pace, host_sample, time_rounds

if TYPE_CHECKING:
    from benchmarks.operator.modes import Call

CYCLES = 100_000
"""That the device waits before a sample, so that the first call is in its queue in time."""


class Host:
    """The CPU: to rehearse what is to run on a device."""

    name = "cpu"

    def describe(self) -> str:
        """Name the device."""
        return "CPU"

    def sample(self, call: Call, calls: int) -> float:
        """Give the seconds that each of several calls in a row takes."""
        return host_sample(call, calls)

    def wait(self) -> None:
        """Wait until everything is computed."""

    def peak(self, call: Call) -> int | None:
        """Give the bytes that a call needs at its peak, its results among them; None if unknown."""
        del call
        return None

    def host_seconds(self, call: Call, calls: int) -> float:
        """Give the seconds after which the host can go on, for each of several calls in a row."""
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        seconds = (time.perf_counter() - start) / calls
        self.wait()
        return seconds

    def copy_bandwidth(self, elements: int) -> float:
        """Measure bytes per second, read and written, of a copy of float32 numbers."""
        source = torch.randn(elements, device=self.name)
        target = torch.empty_like(source)

        def copy() -> Outcome:
            return Outcome(target.copy_(source))

        copy()
        pace = Pace(seconds=0.2, least_rounds=5, most_rounds=50)
        return 2 * source.nbytes / time_rounds({"copy": copy}, pace, self.sample)["copy"].median


class Cuda(Host):
    """A CUDA device: times are taken by its events."""

    name = "cuda"

    def __init__(self, cycles: int = CYCLES) -> None:
        """Take how many cycles the device waits before a sample."""
        self._cycles = cycles

    def describe(self) -> str:  # noqa: D102
        properties = torch.cuda.get_device_properties(0)
        return f"{properties.name}, CUDA {torch.version.cuda}"

    def sample(self, call: Call, calls: int) -> float:  # noqa: D102
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        outcome = None
        torch.cuda._sleep(self._cycles)  # noqa: SLF001 - PyTorch's own tests wait by it
        start.record()
        for _ in range(calls):
            outcome = call()
        end.record()
        end.synchronize()
        del outcome
        return float(start.elapsed_time(end)) / 1e3 / calls

    def wait(self) -> None:  # noqa: D102
        torch.cuda.synchronize()

    def peak(self, call: Call) -> int | None:  # noqa: D102
        self.wait()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        outcome = call()
        self.wait()
        del outcome
        return torch.cuda.max_memory_allocated() - before


DEVICES = {device.name: device for device in (Host(), Cuda())}
