"""The report as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.operator.contenders import CONTENDERS, LAYER_REFERENCE, REFERENCE
from benchmarks.operator.machine import busy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.operator.results import Results, Setting, TimeRecord, WorkloadRecord

READING = f"""\
How to read this: all contenders ran on the same matrix in the same process, round by round in
random order, and only the operator was timed; those that take 20 times as long as the fastest have
rounds of their own afterwards. Times are medians with quartiles; compare them within one
table only. **×** is the time divided by that of {REFERENCE} (in training steps of
{LAYER_REFERENCE}): above 1 is slower. *First* is the first call on new tensors. dA and dB are the
gradients alone, of a product computed beforehand. All results were compared with spgrad's before
anything was timed."""
BUSY = """\
**The machine was busy with other programs when this ran. Several threads then wait for each other's
turn, so their times are unreliable; those of one thread suffer less.**"""

LIMIT = """\
The time in which the memory moves A (CSR, int32), B and C once, at the bandwidth measured beside
the workload, and the time of spgrad: as above, with C in fresh memory, and with C in memory that is
mapped already, without page faults. The limit binds where A, B and C exceed the caches; below that,
less than 1 is possible."""


def seconds(value: float) -> str:
    """Format a time with three digits."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value / 1e-6:.3g} µs"


def count(threads: int) -> str:
    """Format a number of threads."""
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def size(value: float) -> str:
    """Format a number of bytes with three digits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.3g} B"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _machine(results: Results) -> str:
    return table(["", ""], results.machine.items())


def _summary(results: Results) -> str:
    rows = []
    for setting in results.settings():
        ours, peer = results.median(setting), results.fastest_peer(setting)
        if ours is None or peer is None:
            continue
        name, theirs = peer
        rows.append(
            [*_names(setting), seconds(ours), name, seconds(theirs), f"{theirs / ours:.2f}"]
        )
    head = ["workload", "what", "dtype", "threads", "spgrad", "fastest peer", "its time", "ratio"]
    return table(head, rows)


def _names(setting: Setting) -> list[str]:
    return [setting.workload, setting.mode, setting.dtype, str(setting.threads)]


def _limits(results: Results) -> str:
    rows = []
    for record in results.limits:
        ours = results.median(record.setting)
        if ours is None:
            continue
        limit = record.limit
        workload, _, dtype, threads = _names(record.setting)
        rows.append(
            [
                workload,
                dtype,
                threads,
                f"{limit.bytes_per_second / 1e9:.3g} GB/s",
                size(limit.bytes),
                seconds(limit.seconds),
                seconds(ours),
                seconds(record.mapped),
                f"{record.mapped / limit.seconds:.2f}",
            ]
        )
    head = [
        "workload",
        "dtype",
        "threads",
        "bandwidth",
        "A, B and C",
        "limit",
        REFERENCE,
        "into mapped memory",
        "over the limit",
    ]
    return table(head, rows)


def _cell(record: TimeRecord | None, reference: float | None) -> str:
    if record is None or record.times is None:
        return "-"
    times = record.times
    ratio = f" ×{times.median / reference:.2f}" if reference else ""
    spread = f"{seconds(times.lower_quartile)} to {seconds(times.upper_quartile)}"
    return f"**{seconds(times.median)}**{ratio}<br>{spread}<br>first {seconds(times.first)}"


def _times(results: Results, workload: str) -> str:
    parts = []
    settings = [setting for setting in results.settings() if setting.workload == workload]
    for dtype, threads in dict.fromkeys((setting.dtype, setting.threads) for setting in settings):
        shown = [s for s in settings if (s.dtype, s.threads) == (dtype, threads)]
        timed = [results.timed(setting) for setting in shown]
        rows = [
            [
                contender.name,
                *(
                    _cell(records.get(contender.name), results.median(setting))
                    for setting, records in zip(shown, timed, strict=True)
                ),
            ]
            for contender in CONTENDERS
            if any(contender.name in records for records in timed)
        ]
        rounds = [
            str(next((r.times.rounds for r in records.values() if r.times), 0)) for records in timed
        ]
        rows.append(["rounds", *rounds])
        heading = f"#### {dtype}, {count(threads)}\n\n"
        parts.append(heading + table(["", *(setting.mode for setting in shown)], rows))
    return "\n".join(parts)


def _memory(results: Results, workload: str) -> str:
    records = [record for record in results.memory if record.workload == workload]
    modes = list(dict.fromkeys(record.mode for record in records))
    rows = []
    for contender in CONTENDERS:
        peaks = {r.mode: r.peak for r in records if r.contender == contender.name and r.peak}
        if peaks:
            cells = (peaks.get(mode) for mode in modes)
            rows.append(
                [
                    contender.name,
                    *(
                        f"{size(p.bytes)}, {p.bytes_per_entry:.3g} B/entry" if p else "-"
                        for p in cells
                    ),
                ]
            )
    if not rows:
        return ""
    heading = "#### Peak memory above operands, results and gradients\n\n"
    return heading + table(["", *modes], rows)


def _absent(results: Results, workload: str) -> str:
    reasons: dict[tuple[str, str], list[str]] = {}
    for record in results.times:
        if record.setting.workload == workload and record.reason is not None:
            where = f"{record.setting.mode} ({record.setting.dtype})"
            reasons.setdefault((record.contender, record.reason), []).append(where)
    for memory in results.memory:
        if memory.workload == workload and memory.reason is not None:
            where = f"memory of {memory.mode}"
            reasons.setdefault((memory.contender, memory.reason), []).append(where)
    lines = [
        f"- {contender}: {reason}. {', '.join(dict.fromkeys(where))}"
        for (contender, reason), where in reasons.items()
    ]
    return "#### Not run\n\n" + "\n".join(lines) + "\n" if lines else ""


def _workload(results: Results, workload: WorkloadRecord) -> str:
    items = f"{workload.batch} items of " if workload.batch is not None else ""
    checked = (
        "spgrad's results were compared with a float64 reference."
        if workload.checked_against_float64
        else "Too large for the float64 reference; the peers are the check."
    )
    facts = (
        f"{workload.description}: {items}{workload.n:,} × {workload.m:,}, "
        f"{workload.entries:,} entries, p = {workload.p}. {checked}\n"
    )
    parts = [
        f"### {workload.name}\n",
        facts,
        _times(results, workload.name),
        _memory(results, workload.name),
        _absent(results, workload.name),
    ]
    return "\n".join(part for part in parts if part)


def markdown(results: Results, pictures: Sequence[Path]) -> str:
    """Write the whole report."""
    errors = [f"- {error}" for error in results.errors]
    parts = [
        "# spgrad beside other libraries\n",
        READING + "\n",
        *([BUSY + "\n"] if busy(results.machine) else []),
        _machine(results),
        *(["## Errors\n", *errors, ""] if errors else []),
        *(f"![{path.stem}]({path.name})\n" for path in pictures),
        "## Summary\n",
        "*ratio* is the fastest peer's time divided by spgrad's: above 1, spgrad is faster.\n",
        _summary(results),
        "## Physical limit of the forward product\n",
        LIMIT + "\n",
        _limits(results),
        "## Workloads\n",
        *(_workload(results, workload) for workload in results.workloads),
    ]
    return "\n".join(parts)
