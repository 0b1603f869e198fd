"""The pictures: speed, memory, and time against the physical limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.operator.contenders import REFERENCE
from benchmarks.operator.modes import Mode
from benchmarks.operator.report import count, size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.operator.results import Results, Setting

Points = dict[str, dict[str, float]]
"""Value by workload, for each series."""

MODES = {
    Mode.FORWARD.value: "o",
    Mode.BOTH.value: "s",
    Mode.GRADIENT_A.value: "^",
    Mode.GRADIENT_B.value: "v",
    Mode.STEP.value: "*",
}
SHOWN = {
    REFERENCE: "o",
    "spgrad COO": "D",
    "torch.sparse.mm CSR int32": "s",
    "torch.sparse.mm COO": "X",
    "torchsparsegradutils CSR int32": "^",
    "torch_sparse": "P",
    "SciPy": "v",
    "dense": "*",
}
"""One form of each library is enough in a picture; the tables have all."""


def _colours(names: Mapping[str, str]) -> dict[str, str]:
    # Okabe and Ito's colours, which colour-blind readers can tell apart.
    palette = ["#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#999", "#000"]
    return dict(zip(names, palette, strict=False))


def _settings(results: Results) -> list[Setting]:
    """Choose the first dtype with the largest number of threads: what most users run."""
    settings = results.settings()
    dtype = settings[0].dtype
    threads = max(setting.threads for setting in settings)
    return [s for s in settings if (s.dtype, s.threads) == (dtype, threads)]


def _dots(axes: Axes, points: Points, workloads: list[str], markers: Mapping[str, str]) -> None:
    """Draw one line for each workload with a marker for each series."""
    colours = _colours(markers)
    heights = {workload: -i for i, workload in enumerate(workloads)}
    for workload, height in heights.items():
        values = [series[workload] for series in points.values() if workload in series]
        if values:
            axes.plot([min(values), max(values)], [height] * 2, color="0.85", lw=2, zorder=1)
    for name, series in points.items():
        if series:
            axes.scatter(
                list(series.values()),
                [heights[workload] for workload in series],
                marker=markers[name],
                color=colours[name],
                s=90 if markers[name] == "*" else 48,
                linewidths=0,
                label=name,
                zorder=3 if name == REFERENCE else 2,
            )
    axes.set_yticks(list(heights.values()), workloads)
    axes.set_ylim(-len(workloads) + 0.4, 0.6)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", color="0.92", zorder=0)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _times(value: float, _: int) -> str:
    return f"{value:g}×"


def _bytes(value: float, _: int) -> str:
    return size(value)


def _save(  # noqa: PLR0913
    path: Path,
    points: Points,
    workloads: list[str],
    markers: Mapping[str, str],
    *,
    title: str,
    label: str,
    format_x: Callable[[float, int], str],
    line: float | None = None,
) -> Path:
    figure, axes = plt.subplots(figsize=(9.5, 1.8 + 0.42 * len(workloads)), layout="constrained")
    _dots(axes, points, workloads, markers)
    if line is not None:
        axes.axvline(line, color="0.2", lw=1.3, zorder=1.5)
    low, high = axes.get_xlim()
    if high / low < 100:  # noqa: PLR2004 - too narrow for powers of ten to be enough
        axes.set_xticks([v for v in _ticks() if low <= v <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(format_x))
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(label)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _ticks() -> list[float]:
    return [digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 5)]


def _speed(results: Results, folder: Path) -> Path:
    points: Points = {mode: {} for mode in MODES}
    for setting in _settings(results):
        ours, peer = results.median(setting), results.fastest_peer(setting)
        if ours is not None and peer is not None:
            points[setting.mode][setting.workload] = peer[1] / ours
    setting = _settings(results)[0]
    return _save(
        folder / "speed.png",
        points,
        [workload.name for workload in results.workloads],
        MODES,
        title="Speed of spgrad relative to the fastest peer of each case",
        label=f"time of the fastest peer / time of spgrad: right of the line spgrad is faster\n"
        f"({setting.dtype}, {count(setting.threads)}; medians)",
        format_x=_times,
        line=1,
    )


def _memory(results: Results, folder: Path) -> Path:
    points: Points = {name: {} for name in SHOWN}
    for record in results.memory:
        if record.mode == Mode.BOTH.value and record.contender in SHOWN and record.peak:
            points[record.contender][record.workload] = max(1.0, record.peak.bytes_per_entry)
    return _save(
        folder / "memory.png",
        points,
        [workload.name for workload in results.workloads],
        SHOWN,
        title="Peak memory of forward + backward, above operands, results and gradients",
        label=f"for each entry of A ({results.memory[0].dtype}; less than 1 B is drawn as 1 B)",
        format_x=_bytes,
    )


def _limit(results: Results, folder: Path) -> Path:
    points: Points = {name: {} for name in SHOWN}
    for setting in _settings(results):
        limit = results.limit(setting)
        if limit is None:
            continue
        for name in SHOWN:
            median = results.median(setting, name)
            if median is not None:
                points[name][setting.workload] = median / limit.seconds
    setting = _settings(results)[0]
    return _save(
        folder / "limit.png",
        points,
        [workload.name for workload in results.workloads],
        SHOWN,
        title="Time of the forward product against the limit of the memory",
        label="time / time to move A, B and C once; the line is the limit outside the caches\n"
        f"({setting.dtype}, {count(setting.threads)}; medians)",
        format_x=_times,
        line=1,
    )


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw all pictures for which there are results."""
    pictures = [_speed(results, folder)]
    if results.memory:
        pictures.append(_memory(results, folder))
    if results.limits:
        pictures.append(_limit(results, folder))
    return pictures
