"""Everything that a run measures, and the text file that keeps it.

The file has tables of cells with tabs between them, each under a heading in brackets, so that two
runs can be compared line by line. Medians are rounded to three digits, which is less than they
vary, and quartiles to per cent of them. A workload and what follows it are left out where they are
those of the row above.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, TypeVar

from benchmarks.operator.contenders import LAYER_REFERENCE, REFERENCE, is_ours
from benchmarks.operator.modes import Mode
from benchmarks.operator.timing import Times
from benchmarks.operator.units import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

Kind = TypeVar("Kind")


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


@dataclass(frozen=True)
class Setting:
    """What was measured together."""

    workload: str
    dtype: str
    threads: int
    mode: str

    def __str__(self) -> str:
        """Name all of it."""
        return f"{self.workload}, {self.mode}, {self.dtype}, {count(self.threads, 'thread')}"


@dataclass(frozen=True)
class PhysicalLimit:
    """What the memory allows for one forward product."""

    bytes: int
    bytes_per_second: float
    mapped: float
    """Seconds that spgrad's reference takes into memory that is mapped already."""

    @property
    def seconds(self) -> float:
        """The least time, if everything comes from memory once."""
        return self.bytes / self.bytes_per_second


Table = dict[Setting, dict[str, "Kind | str"]]
"""For each setting what was measured of each contender, or the reason why nothing was."""


@dataclass
class Results:
    """A whole run."""

    machine: dict[str, str]
    workloads: list[WorkloadRecord] = field(default_factory=list)
    times: Table[Times] = field(default_factory=dict)
    peaks: Table[int] = field(default_factory=dict)
    """Bytes above operands, results and gradients."""
    limits: dict[Setting, PhysicalLimit] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    deviations: defaultdict[str, dict[str, float]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """The largest of each contender and quantity; not kept in the file."""

    def common(self) -> tuple[str, int]:
        """Give the first dtype with the largest number of threads: what most users run."""
        return next(iter(self.times)).dtype, max(setting.threads for setting in self.times)

    def median(self, setting: Setting, contender: str | None = None) -> float | None:
        """Give the median of a contender, in seconds; by default, of spgrad's reference."""
        reference = LAYER_REFERENCE if setting.mode == Mode.STEP.value else REFERENCE
        times = self.times.get(setting, {}).get(contender or reference)
        return times.median if isinstance(times, Times) else None

    def fastest_peer(self, setting: Setting) -> tuple[str, float] | None:
        """Find the fastest contender that is not spgrad, and its median."""
        medians = [
            (times.median, name)
            for name, times in self.times.get(setting, {}).items()
            if isinstance(times, Times) and not is_ours(name)
        ]
        return min(medians)[::-1] if medians else None

    def add_deviations(self, contender: str, deviations: Mapping[str, float]) -> None:
        """Keep the largest deviation of each quantity."""
        kept = self.deviations[contender]
        for name, deviation in deviations.items():
            # Written so that NaN is kept.
            if not deviation <= kept.get(name, -1.0):
                kept[name] = deviation

    def write(self, path: Path) -> None:
        """Write everything but the deviations to a file."""
        reasons: dict[str, int] = {}
        times = _cells(self.times, _write_times, reasons)
        peaks = _cells(self.peaks, str, reasons)
        tables: dict[str, Iterable[Iterable[object]]] = {
            MACHINE: self.machine.items(),
            WORKLOADS: map(astuple, self.workloads),
            REASONS: ((number, reason) for reason, number in reasons.items()),
            TIMES: times,
            PEAKS: peaks,
            LIMITS: (
                (
                    *astuple(setting),
                    limit.bytes,
                    _round(limit.bytes_per_second),
                    _microseconds(limit.mapped),
                )
                for setting, limit in self.limits.items()
            ),
            ERRORS: ([error] for error in self.errors),
        }
        path.write_text(
            "\n".join(
                "\n".join([f"[{heading}]", *("\t".join(map(_text, row)) for row in rows), ""])
                for heading, rows in tables.items()
            ),
            encoding="utf-8",
        )

    @staticmethod
    def read(path: Path) -> Results:
        """Read what `write` wrote."""
        tables: dict[str, list[list[str]]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                rows = tables.setdefault(line[1:-1], [])
            elif line:
                rows.append(line.split("\t"))
        reasons = {f"({number})": reason for number, reason in tables[REASONS]}
        return Results(
            machine=dict(map(_pair, tables[MACHINE])),
            workloads=[
                WorkloadRecord(name, description, int(batch) if batch else None, *map(int, sizes))
                for name, description, batch, *sizes in tables[WORKLOADS]
            ],
            times=_table(tables[TIMES], _read_times, reasons),
            peaks=_table(tables[PEAKS], int, reasons),
            limits={
                _setting(row): PhysicalLimit(int(row[4]), float(row[5]), float(row[6]) / 1e6)
                for row in tables[LIMITS]
            },
            errors=[error for (error,) in tables[ERRORS]],
        )


MACHINE = "machine"
WORKLOADS = "workloads: name, description, items, n, m, p, entries"
REASONS = "reasons for cells without figures"
TIMES = "times in µs: median, how many per cent the lower quartile is below it, and the upper above"
PEAKS = "peak memory in bytes, above operands, results and gradients"
LIMITS = (
    "limits of the forward product: bytes of A, B and C, bytes per second, "
    "µs of spgrad into memory that is mapped already"
)
ERRORS = "errors"
SETTING = ("workload", "dtype", "threads", "mode")


def _round(value: float) -> str:
    """Write three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):.12g}"


def _microseconds(seconds: float) -> str:
    return _round(seconds * 1e6)


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def _write_times(times: Times) -> str:
    below = 1 - times.lower_quartile / times.median
    above = times.upper_quartile / times.median - 1
    return f"{_microseconds(times.median)} {100 * below:.0f} {100 * above:.0f}"


def _read_times(cell: str) -> Times:
    number, below, above = map(float, cell.split())
    median = number / 1e6
    return Times(median, median * (1 - below / 100), median * (1 + above / 100))


def _cells(
    table: Table[Kind], write: Callable[[Kind], str], reasons: dict[str, int]
) -> list[list[object]]:
    """Lay a table out, a row for each setting and a column for each contender.

    A reason is written as a number in parentheses, under which `reasons` lists it.
    """
    names = list(dict.fromkeys(name for row in table.values() for name in row))

    def text(measured: Kind | str | None) -> str:
        if measured is None:
            return ""
        if isinstance(measured, str):
            return f"({reasons.setdefault(measured, len(reasons) + 1)})"
        return write(measured)

    rows: list[list[object]] = []
    above: tuple[object, ...] = ()
    for setting, row in table.items():
        now = astuple(setting)
        same = next((i for i, cell in enumerate(now) if now[: i + 1] != above[: i + 1]), 0)
        rows.append([*[""] * same, *now[same:], *(text(row.get(name)) for name in names)])
        above = now
    return [[*SETTING, *names], *rows] if rows else []


def _pair(row: list[str]) -> tuple[str, str]:
    name, value = row
    return name, value


def _setting(row: list[str]) -> Setting:
    workload, dtype, threads, mode = row[: len(SETTING)]
    return Setting(workload, dtype, int(threads), mode)


def _table(
    rows: list[list[str]], read: Callable[[str], Kind], reasons: dict[str, str]
) -> Table[Kind]:
    names = rows[0][len(SETTING) :] if rows else []
    table: Table[Kind] = {}
    above: list[str] = []
    for row in rows[1:]:
        above = [cell or above[i] for i, cell in enumerate(row[: len(SETTING)])]
        table[_setting(above)] = {
            name: reasons[cell] if cell in reasons else read(cell)
            for name, cell in zip(names, row[len(SETTING) :], strict=True)
            if cell
        }
    return table
