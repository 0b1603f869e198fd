"""The pages and tables that are made of the records, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.operator.contenders import LAYER_REFERENCE, REFERENCE
from benchmarks.operator.machine import busy
from benchmarks.operator.modes import Mode
from benchmarks.operator.results import Setting
from benchmarks.operator.units import count, seconds, size, two_digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.operator.results import Results, WorkloadRecord

TORCH = "torch.sparse.mm CSR int32"
GATHER = "torchsparsegradutils CSR int32"
DENSE = "dense"
ABSENT = "-"

READING = f"""\
All contenders ran on the same matrix in the same process, round by round in random order, and only
the operator was timed, after its results had been checked. Times are medians of `{REFERENCE}`;
**×** is another's median over that: above 1, spgrad is faster. *Fastest* is the fastest of all
others, with its name where it is not `{TORCH}`. dA and dB are the gradients alone, of a
product computed beforehand. All medians with their quartiles are in [results.tsv](results.tsv)."""
BUSY = """\
**The machine was busy with other programs when this ran. Several threads then wait for each other's
turn, so their times are unreliable; those of one thread suffer less.**"""
FORMS = """\
One form of spgrad over another, forward (f) and forward + backward (fb). A `Pattern` saves the
transposition; COO is flagged as coalesced, and has the int64 indices of the CSR form beside it."""
LIMIT = """\
The time in which the memory moves A (CSR, int32), B and C once, at the bandwidth measured beside
the workload, and the time of spgrad: as above, with C in fresh memory, and with C in memory that is
mapped already, without page faults. The limit binds where A, B and C exceed the caches; below that,
less than 1 is possible."""
PEAKS = """\
Of one pass forward and backward, above operands, results and gradients, each in a fresh process."""

PEAKS_SHOWN = {
    REFERENCE: "spgrad CSR",
    "spgrad COO": "spgrad COO",
    "spgrad Pattern": "spgrad Pattern",
    TORCH: "torch CSR",
    "torch.sparse.mm COO": "torch COO",
    GATHER: "torchsparsegradutils",
    DENSE: "dense",
}

README_ROWS = {
    "fem": "finite elements",
    "power_law": "graph",
    "batched_many": "batch",
    "narrow_3": "finite elements",
    "random_small": "small",
    "sparse_layer": "layer with 5 % of its weights",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _ratio(numerator: float | None, denominator: float | None) -> str:
    if numerator is None or not denominator:
        return ABSENT
    return two_digits(numerator / denominator)


def _time(median: float | None) -> str:
    return ABSENT if median is None else seconds(median)


class _Speeds:
    """Times and ratios at one dtype and number of threads."""

    def __init__(self, results: Results, dtype: str, threads: int) -> None:
        self.results, self.dtype, self.threads = results, dtype, threads

    def setting(self, workload: str, mode: Mode) -> Setting:
        return Setting(workload, self.dtype, self.threads, mode.value)

    def time(self, workload: str, mode: Mode) -> str:
        return _time(self.results.median(self.setting(workload, mode)))

    def times(self, workload: str, mode: Mode, peer: str) -> str:
        """Give the time of a peer over that of spgrad."""
        setting = self.setting(workload, mode)
        return _ratio(self.results.median(setting, peer), self.results.median(setting))

    def fastest(self, workload: str, mode: Mode) -> str:
        """Give the time of the fastest peer over that of spgrad, and its name."""
        setting = self.setting(workload, mode)
        peer = self.results.fastest_peer(setting)
        if peer is None:
            return ABSENT
        name, median = peer
        ratio = _ratio(median, self.results.median(setting))
        return ratio if name == TORCH else f"{ratio} {name}"

    def within(self, workload: str, mode: Mode, form: str, other: str) -> str:
        """Give the time of one form of spgrad over that of another."""
        setting = self.setting(workload, mode)
        return _ratio(
            self.results.median(setting, f"spgrad {form}"),
            self.results.median(setting, f"spgrad {other}"),
        )

    def on_one_thread(self, workload: str, mode: Mode) -> str:
        """Give the time on one thread over that on these."""
        alone = Setting(workload, self.dtype, 1, mode.value)
        return _ratio(self.results.median(alone), self.results.median(self.setting(workload, mode)))


def _names(results: Results) -> list[str]:
    return [workload.name for workload in results.workloads]


def speed_table(speeds: _Speeds, *modes: Mode) -> str:
    """Tabulate spgrad's times, and the others' over them."""
    head = ["workload"]
    for mode in modes:
        head += [f"{mode.value}: spgrad", "torch CSR ×", "fastest ×"]
    rows = [
        [
            name,
            *(
                cell
                for mode in modes
                for cell in (
                    speeds.time(name, mode),
                    speeds.times(name, mode, TORCH),
                    speeds.fastest(name, mode),
                )
            ),
        ]
        for name in _names(speeds.results)
    ]
    return table(head, rows)


def machine_table(results: Results) -> str:
    """Tabulate what most users run: for the page on performance."""
    dtype, threads = results.common()
    measured = f"{dtype}, {count(threads, 'thread')}, PyTorch {results.machine['torch']}"
    speeds = speed_table(_Speeds(results, dtype, threads), Mode.FORWARD, Mode.BOTH)
    return f"{_named(results.machine)}; {measured}.\n\n{speeds}"


def _steps(speeds: _Speeds) -> str:
    """Say how long training steps take."""
    lines = [
        f"Training step of {setting.workload}, by {LAYER_REFERENCE}: "
        f"{speeds.time(setting.workload, Mode.STEP)}; "
        f"fastest × {speeds.fastest(setting.workload, Mode.STEP)}.\n"
        for setting in speeds.results.times
        if setting == speeds.setting(setting.workload, Mode.STEP)
    ]
    return "\n".join(lines)


def _speeds(results: Results) -> list[str]:
    kinds = dict.fromkeys((setting.dtype, setting.threads) for setting in results.times)
    parts = []
    for dtype, threads in kinds:
        speeds = _Speeds(results, dtype, threads)
        parts += [
            f"## {dtype}, {count(threads, 'thread')}\n",
            speed_table(speeds, Mode.FORWARD, Mode.BOTH),
            speed_table(speeds, Mode.GRADIENT_A, Mode.GRADIENT_B),
            _steps(speeds),
        ]
    return [part for part in parts if part]


def _forms(results: Results) -> list[str]:
    dtype, threads = results.common()
    speeds = _Speeds(results, dtype, threads)
    head = ["workload", "csr_mm / Pattern, fb", "COO / CSR, f", "COO / CSR, fb"]
    if threads > 1:
        head += [f"1 thread / {threads}, f", f"1 thread / {threads}, fb"]
    rows = []
    for name in _names(results):
        row = [name, speeds.within(name, Mode.BOTH, "csr_mm", "Pattern")]
        passes = (Mode.FORWARD, Mode.BOTH)
        row += [speeds.within(name, mode, "COO", "CSR int64") for mode in passes]
        if threads > 1:
            row += [speeds.on_one_thread(name, mode) for mode in passes]
        rows.append(row)
    heading = f"## Forms of spgrad: {dtype}, {count(threads, 'thread')}\n"
    return [heading, FORMS + "\n", table(head, rows)]


def _limits(results: Results) -> list[str]:
    if not results.limits:
        return []
    head = ["workload", "dtype", "threads", "bandwidth", "A, B and C", "limit", "spgrad"]
    rows = [
        [
            setting.workload,
            setting.dtype,
            str(setting.threads),
            f"{two_digits(limit.bytes_per_second / 1e9)} GB/s",
            size(limit.bytes),
            seconds(limit.seconds),
            _time(results.median(setting)),
            seconds(limit.mapped),
            _ratio(limit.mapped, limit.seconds),
        ]
        for setting, limit in results.limits.items()
    ]
    head += ["into mapped memory", "over the limit"]
    return ["## Physical limit of the forward product\n", LIMIT + "\n", table(head, rows)]


def _peak(measured: Mapping[str, int | str], contender: str) -> str:
    peak = measured.get(contender)
    return size(peak) if isinstance(peak, int) else ABSENT


def _peaks(results: Results) -> list[str]:
    rows = [
        [setting.workload, *(_peak(measured, name) for name in PEAKS_SHOWN)]
        for setting, measured in results.peaks.items()
        if setting.mode == Mode.BOTH.value
    ]
    if not rows:
        return []
    return ["## Peak memory\n", PEAKS + "\n", table(["workload", *PEAKS_SHOWN.values()], rows)]


def _sizes(workload: WorkloadRecord) -> str:
    shape = f"{workload.n:,} × {workload.m:,}"
    if workload.batch is not None:
        shape = f"{workload.batch} of {shape}"
    return f"{shape}, {workload.entries:,} entries, p = {workload.p}"


def _workloads(results: Results) -> list[str]:
    rows = [[w.name, w.description, _sizes(w)] for w in results.workloads]
    return ["## Workloads\n", table(["", "matrix", "sizes"], rows)]


def _absent(results: Results) -> list[str]:
    where: dict[tuple[str, str], list[str]] = {}
    rows: list[tuple[Setting, Mapping[str, object]]]
    rows = [*results.times.items(), *results.peaks.items()]
    for setting, row in rows:
        for contender, reason in row.items():
            if isinstance(reason, str):
                where.setdefault((contender, reason), []).append(setting.workload)
    every = len(results.workloads)
    lines = []
    for (contender, reason), workloads in where.items():
        names = list(dict.fromkeys(workloads))
        lines.append(
            f"- {contender}: {reason}" + ("" if len(names) == every else f" ({', '.join(names)})")
        )
    return ["## Not run\n", "\n".join(lines) + "\n"] if lines else []


def page(results: Results, picture: str) -> str:
    """Write the page of a run."""
    errors = "".join(f"- {error}\n" for error in results.errors)
    parts = [
        f"# spgrad beside other libraries on {results.machine['processor']}\n",
        "Made from [results.tsv](results.tsv), and not to be changed by hand.\n",
        READING + "\n",
        *([BUSY + "\n"] if busy(results.machine) else []),
        *(["## Errors\n", errors] if errors else []),
        f"![times of the fastest others over those of spgrad]({picture})\n",
        *_speeds(results),
        *_forms(results),
        *_limits(results),
        *_peaks(results),
        *_workloads(results),
        *_absent(results),
        "## Machine\n",
        table(["", ""], results.machine.items()),
    ]
    return "\n".join(parts)


def _short(workload: WorkloadRecord, label: str) -> str:
    """Describe a workload in a few words."""
    n, m = f"{workload.n:,}", f"{workload.m:,}"
    shape = f"{n}²" if n == m else f"{n} × {m}"
    entries = workload.entries // (workload.batch or 1)
    number = f"{entries / 1e6:.1f} M" if entries >= 1e6 else f"{entries:,}"  # noqa: PLR2004
    each = ""
    if workload.batch is not None:
        label, each = f"{label} of {workload.batch}", " each"
    return f"{label}: {shape}, {number} entries{each}, p = {workload.p}"


def readme_table(results: Results, page_path: str) -> str:
    """Tabulate the table of speed for the README: whole passes beside three others."""
    dtype, threads = results.common()
    speeds = _Speeds(results, dtype, threads)
    peers = {
        "`torch.sparse.mm`, CSR": TORCH,
        "torchsparsegradutils": GATHER,
        "a dense product": DENSE,
    }
    records = {workload.name: workload for workload in results.workloads}
    rows = []
    for name, label in README_ROWS.items():
        ratios = (speeds.times(name, Mode.BOTH, peer) for peer in peers.values())
        cells = (ratio if ratio == ABSENT else f"{ratio} ×" for ratio in ratios)
        rows.append([_short(records[name], label), *cells])
    machine = results.machine
    return (
        f"Speed-up of `spgrad.sparse_mm` over each library: forward and backward, {dtype}, "
        f"{count(threads, 'thread')}\n({_named(machine)}; [all figures]({page_path})).\n\n"
        + table(["", *peers], rows)
    )


def _named(machine: Mapping[str, str]) -> str:
    """Name the machine and the version of the code."""
    return f"{machine['processor']}, {machine['instruction set']}, commit {machine['commit'][:7]}"


def _three_figures(results: Results) -> dict[str, str]:
    dtype, threads = results.common()
    setting = Setting("fem", dtype, threads, Mode.BOTH.value)
    speeds = _Speeds(results, dtype, threads)
    peaks = {name: _peak(results.peaks[setting], name) for name in (REFERENCE, TORCH, GATHER)}
    return {
        f"{speeds.times('fem', Mode.BOTH, TORCH)} ×": "as fast as `torch.sparse.mm` on CSR",
        f"{speeds.times('fem', Mode.BOTH, GATHER)} ×": "as fast as torchsparsegradutils",
        peaks[REFERENCE]: f"of memory above the results, instead of {peaks[TORCH]} and "
        f"{peaks[GATHER]}",
    }


def three_figures_of_readme(results: Results) -> str:
    """Write the figures of README's first lines, which a table further down tells more of."""
    figures = [f"**{figure}** {text}" for figure, text in _three_figures(results).items()]
    return " · ".join(figures) + " ([finite elements](#how-fast), forward and backward)\n"


def three_figures(results: Results) -> str:
    """Write the figures of the site's first page."""
    dtype, threads = results.common()
    (fem,) = (record for record in results.workloads if record.name == "fem")
    cells = [
        f":::{{grid-item-card}} {figure}\n:class-title: number\n\n{text}\n:::"
        for figure, text in _three_figures(results).items()
    ]
    return (
        "::::{grid} 1 1 3 3\n:gutter: 3\n\n" + "\n".join(cells) + "\n::::\n\n"
        f"Forward and backward on {_short(fem, README_ROWS['fem'])}; {dtype}, "
        f"{count(threads, 'thread')} ({_named(results.machine)}).\n"
    )
