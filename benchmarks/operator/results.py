"""Everything that a run measures, as plain records."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.operator.bandwidth import PhysicalLimit  # noqa: TC001 - records keep their types
from benchmarks.operator.contenders import LAYER_REFERENCE, REFERENCE
from benchmarks.operator.memory import Peak  # noqa: TC001
from benchmarks.operator.modes import Mode
from benchmarks.operator.timing import Times  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class WorkloadRecord:
    """Sizes of a workload."""

    name: str
    description: str
    batch: int | None
    n: int
    m: int
    p: int
    entries: int
    checked_against_float64: bool


@dataclass(frozen=True)
class Setting:
    """What was timed together, round by round."""

    workload: str
    dtype: str
    threads: int
    mode: str


@dataclass(frozen=True)
class TimeRecord:
    """Times of one contender, or the reason why there are none."""

    setting: Setting
    contender: str
    family: str
    times: Times | None
    reason: str | None = None


@dataclass(frozen=True)
class MemoryRecord:
    """Peak memory of one contender, or the reason why it is not known."""

    workload: str
    dtype: str
    mode: str
    contender: str
    family: str
    peak: Peak | None
    reason: str | None = None


@dataclass(frozen=True)
class LimitRecord:
    """The physical limit of the forward product."""

    setting: Setting
    limit: PhysicalLimit
    mapped: float
    """Seconds of spgrad's reference into memory that is mapped already."""


@dataclass
class Results:
    """A whole run."""

    machine: dict[str, str]
    options: dict[str, Any]
    workloads: list[WorkloadRecord] = field(default_factory=list)
    times: list[TimeRecord] = field(default_factory=list)
    memory: list[MemoryRecord] = field(default_factory=list)
    limits: list[LimitRecord] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def settings(self) -> list[Setting]:
        """List what was timed, in order."""
        return list(dict.fromkeys(record.setting for record in self.times))

    def timed(self, setting: Setting) -> dict[str, TimeRecord]:
        """Give the contenders that were timed in a setting, by name."""
        return {
            record.contender: record
            for record in self.times
            if record.setting == setting and record.times is not None
        }

    def median(self, setting: Setting, contender: str | None = None) -> float | None:
        """Give the median of a contender, in seconds; by default, of spgrad's reference."""
        reference = LAYER_REFERENCE if setting.mode == Mode.STEP.value else REFERENCE
        record = self.timed(setting).get(contender or reference)
        return record.times.median if record and record.times else None

    def fastest_peer(self, setting: Setting) -> tuple[str, float] | None:
        """Find the fastest contender that is not spgrad, and its median."""
        medians = [
            (record.times.median, name)
            for name, record in self.timed(setting).items()
            if record.times and record.family != "spgrad"
        ]
        return min(medians)[::-1] if medians else None

    def limit(self, setting: Setting) -> PhysicalLimit | None:
        """Find the physical limit of a setting."""
        found = (record.limit for record in self.limits if record.setting == setting)
        return next(found, None)

    def write(self, path: Path) -> None:
        """Write everything as JSON, with the ratios that are derived from the medians."""
        document = asdict(self)
        for record, written in zip(self.times, document["times"], strict=True):
            if record.times is None:
                continue
            reference, peer = self.median(record.setting), self.fastest_peer(record.setting)
            written["ratio_to_spgrad"] = reference and record.times.median / reference
            written["ratio_to_fastest_peer"] = peer and record.times.median / peer[1]
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
