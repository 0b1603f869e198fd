"""The picture of speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image

from benchmarks.operator.modes import Mode
from benchmarks.operator.units import count

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.operator.results import Results

COLOURS = 64

# Okabe and Ito's colours, which colour-blind readers can tell apart.
MARKERS = {
    Mode.FORWARD.value: ("o", "#0072B2"),
    Mode.BOTH.value: ("s", "#56B4E9"),
    Mode.GRADIENT_A.value: ("^", "#D55E00"),
    Mode.GRADIENT_B.value: ("v", "#E69F00"),
    Mode.STEP.value: ("*", "#009E73"),
}


def _ratios(results: Results, threads: int, dtype: str) -> dict[str, dict[str, float]]:
    """Give the time of the fastest peer over that of spgrad, by mode and workload."""
    ratios: dict[str, dict[str, float]] = {mode: {} for mode in MARKERS}
    for setting in results.times:
        ours, peer = results.median(setting), results.fastest_peer(setting)
        if (setting.dtype, setting.threads) == (dtype, threads) and ours and peer:
            ratios[setting.mode][setting.workload] = peer[1] / ours
    return ratios


def draw_speed(results: Results, path: Path) -> None:
    """Draw a line for each workload, with a marker for each mode."""
    dtype, threads = results.common()
    ratios = _ratios(results, threads, dtype)
    workloads = [workload.name for workload in results.workloads]
    heights = {workload: -i for i, workload in enumerate(workloads)}
    figure = Figure(figsize=(9.5, 1.8 + 0.42 * len(workloads)), layout="constrained")
    axes = figure.subplots()
    for workload, height in heights.items():
        values = [series[workload] for series in ratios.values() if workload in series]
        if values:
            axes.plot([min(values), max(values)], [height] * 2, color="0.85", lw=2, zorder=1)
    for mode, series in ratios.items():
        marker, colour = MARKERS[mode]
        if series:
            axes.scatter(
                list(series.values()),
                [heights[workload] for workload in series],
                marker=marker,
                color=colour,
                s=90 if marker == "*" else 48,
                linewidths=0,
                label=mode,
                zorder=2,
            )
    axes.axvline(1, color="0.2", lw=1.3, zorder=1.5)
    axes.set_yticks(list(heights.values()), workloads)
    axes.set_ylim(-len(workloads) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    low, high = axes.get_xlim()
    if high / low < 100:  # noqa: PLR2004 - too narrow for powers of ten to be enough
        ticks = [digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 5)]
        axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.grid(axis="x", color="0.92", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(
        "Speed of spgrad relative to the fastest peer of each case",
        loc="left",
        fontsize=12,
        fontweight="bold",
    )
    axes.set_xlabel(
        "time of the fastest peer / time of spgrad: right of the line spgrad is faster\n"
        f"({dtype}, {count(threads, 'thread')}; medians)"
    )
    if axes.collections:
        figure.legend(loc="outside lower center", ncols=5, frameon=False)
    # Without the version of matplotlib, which is in a picture's metadata by default.
    figure.savefig(path, dpi=150, metadata={"Software": None})
    # In few colours, which look the same and take a third of the space.
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
