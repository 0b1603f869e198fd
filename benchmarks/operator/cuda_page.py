"""Makes the page of a CUDA device from what a run of the benchmark there has written.

``python -m benchmarks.operator.cuda_page benchmark-output/cuda.json --name h200`` writes
docs/performance/h200.md, the table of that name in docs/performance.md, and the sentence in
README.md. The two stand between the lines ``<!-- generated: NAME -->`` and ``<!-- end -->``, the
name of the sentence is cuda.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.operator.contenders import is_ours
from benchmarks.operator.modes import Mode
from benchmarks.operator.pages import MACHINES, PERFORMANCE, README, ROOT, filled
from benchmarks.operator.report import ABSENT, table
from benchmarks.operator.units import two_digits

FORMS = ("CSR int32", "COO", "Pattern")
SENTENCE = "cuda"
IN_SENTENCE = {"fem": "finite elements", "power_law": "graph", "batched_many": "batch"}
TORCH = "torch.sparse.mm CSR int32"

READING = """\
Made by `python -m benchmarks.operator.cuda_page` of what `make bench-cuda` wrote. All contenders
ran on the same matrix in the same process, round by round in random order, timed by CUDA events,
after their results had been checked. Times are medians in µs, with the fastest other library's time
over them in brackets: above (1), spgrad is faster. *Fastest other* is `torch.sparse.mm` or
torchsparsegradutils, with CSR (int32) or COO. *Limit* is the time in which the memory moves A, B
and C once, at the bandwidth of a copy. *Memory* is the peak above operands, results and gradients,
in MB: of spgrad with CSR, COO and Pattern, and of the fastest other."""


@dataclass(frozen=True)
class Found:
    """What a setting gave: medians in seconds and peaks in bytes, by contender."""

    workload: str
    p: int
    dtype: str
    mode: Mode
    limit: float | None
    times: dict[str, float]
    peaks: dict[str, int | None]

    @classmethod
    def of(cls, record: dict[str, Any]) -> Found:
        """Read a setting of the file."""
        timed = {name: c for name, c in record["contenders"].items() if "seconds" in c}
        return cls(
            record["workload"].partition(",")[0],
            record["p"],
            record["dtype"],
            Mode(record["mode"]),
            record["seconds_of_compulsory_bytes"],
            {name: c["seconds"]["median"] for name, c in timed.items()},
            {name: c["bytes_above_results"] for name, c in timed.items()},
        )

    @property
    def fastest_other(self) -> str | None:
        """Name the fastest contender that is no form of spgrad."""
        others = [name for name in self.times if not is_ours(name)]
        return min(others, key=lambda name: self.times[name]) if others else None

    def ratio(self, form: str) -> str:
        """Give the time of the fastest other contender over that of a form of spgrad."""
        other, ours = self.fastest_other, self.times.get(f"spgrad {form}")
        return two_digits(self.times[other] / ours) if other and ours else ABSENT

    def time(self, name: str | None) -> str:
        """Give a time in microseconds."""
        return two_digits(1e6 * self.times[name]) if name in self.times else ABSENT

    def peak(self, name: str | None) -> str:
        """Give a peak in megabytes."""
        peak = self.peaks.get(name) if name else None
        return ABSENT if peak is None else two_digits(peak / 1e6)


def settings(report: dict[str, Any]) -> list[Found]:
    """List what was measured by workload, dtype, p and mode, each in the order of the run."""
    found = [Found.of(record) for record in report["settings"]]
    workloads = list(dict.fromkeys(f.workload for f in found))
    dtypes = list(dict.fromkeys(f.dtype for f in found))
    modes = list(Mode)
    return sorted(
        found,
        key=lambda f: (
            workloads.index(f.workload),
            dtypes.index(f.dtype),
            f.p,
            modes.index(f.mode),
        ),
    )


def _row(f: Found) -> list[str]:
    other = f.fastest_other
    forms = [f"{f.time(f'spgrad {form}')} ({f.ratio(form)})" for form in FORMS]
    peaks = " / ".join(f.peak(name) for name in (*(f"spgrad {form}" for form in FORMS), other))
    limit = ABSENT if f.limit is None else two_digits(1e6 * f.limit)
    fastest = f"{f.time(other)} {other}" if other else ABSENT
    title = f"{f.workload}, {f.p}, {f.dtype}, {f.mode.value}"
    return [title, fastest, *forms, limit, peaks]


def _measured(report: dict[str, Any]) -> str:
    """Name the machine and the versions."""
    versions = ", ".join(f"{what} {number}" for what, number in report["versions"].items())
    return f"{report['device']}; {versions}."


def page(report: dict[str, Any], name: str) -> str:
    """Write the whole page."""
    head = ["workload, p, dtype, mode", "fastest other", *FORMS, "limit", "memory"]
    bandwidth = report["copy_bytes_per_second"] / 1e12
    lines = [f"# {name.upper()}\n", f"{_measured(report)} A copy moves "]
    lines[-1] += f"{two_digits(bandwidth)} TB/s, read and written.\n"
    lines += [f"{READING}\n", table(head, map(_row, settings(report)))]
    if report["skipped"]:
        skipped = "; ".join(report["skipped"])
        lines.append(f"Left out for want of time, but for the rows above: {skipped}.\n")
    return "\n".join(lines)


def _common(report: dict[str, Any]) -> dict[str, dict[Mode, Found]]:
    """Give what was measured in float32 with the workloads' own p, forward and both."""
    common: dict[str, dict[Mode, Found]] = {}
    for record in report["settings"]:
        f = Found.of(record)
        if f.workload == record["workload"] and f.dtype == "float32":
            common.setdefault(f.workload, {})[f.mode] = f
    return common


def short_table(report: dict[str, Any]) -> str:
    """Tabulate the speed with float32 and the workloads' own p, for docs/performance.md."""
    head = ["workload", "p"]
    for mode in (Mode.FORWARD, Mode.BOTH):
        head += [f"{mode.value}: CSR, µs", "fastest ×", "Pattern: fastest ×"]
    rows = []
    for name, found in _common(report).items():
        row = [name, str(next(iter(found.values())).p)]
        for mode in (Mode.FORWARD, Mode.BOTH):
            if mode not in found:
                row += [ABSENT] * 3
                continue
            f = found[mode]
            other = "" if f.fastest_other in {TORCH, None} else f" {f.fastest_other}"
            row += [f.time("spgrad CSR int32"), f.ratio("CSR int32") + other, f.ratio("Pattern")]
        rows.append(row)
    return f"{_measured(report)}\n\n{table(head, rows)}"


def sentence(report: dict[str, Any], name: str) -> str:
    """Write what README.md says of the speed."""
    common = _common(report)
    found = {
        what: common[workload][Mode.BOTH]
        for workload, what in IN_SENTENCE.items()
        if Mode.BOTH in common.get(workload, {})
    }
    ratios = ", ".join(
        f"{f.ratio('CSR int32')} × for the {what} ({f.ratio('Pattern')} × with a `Pattern`)"
        for what, f in found.items()
    )
    text = f"The same on an {name.upper()}, over the fastest of the first two: {ratios}"
    return f"{text}; [all figures]({(MACHINES / name).as_posix()}.md).\n"


def texts(root: Path, report: dict[str, Any], name: str) -> dict[Path, str]:
    """Make all texts, by path below the root."""
    documents = {path: (root / path).read_text(encoding="utf-8") for path in (PERFORMANCE, README)}
    return {
        MACHINES / f"{name}.md": page(report, name),
        PERFORMANCE: filled(PERFORMANCE, documents[PERFORMANCE], name, short_table(report)),
        README: filled(README, documents[README], SENTENCE, sentence(report, name)),
    }


def main(command_line: list[str] | None = None, root: Path = ROOT) -> None:
    """Write all texts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.operator.cuda_page", description="The page of a CUDA device."
    )
    parser.add_argument("file", type=Path, help="that benchmarks.operator.cuda wrote")
    parser.add_argument("--name", default="h200", help="of the page (h200)")
    arguments = parser.parse_args(command_line)
    report = json.loads(arguments.file.read_text(encoding="utf-8"))
    for path, text in texts(root, report, arguments.name).items():
        (root / path).write_text(text, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
