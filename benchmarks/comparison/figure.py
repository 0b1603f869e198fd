"""Draws a comparison as bars: times to the left, memory to the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from benchmarks.operator.units import seconds, size, two_digits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

FORWARD_COLOR = "#1f5f8b"
BACKWARD_COLOR = "#8fbbd9"
MEMORY_COLOR = "#d9a24a"
HATCH = "///"
# The kernel counts whole pages; the log scale needs something above zero.
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Bar:
    """What is drawn of a contender."""

    name: str
    forward: float
    backward: float
    complete: bool
    """Whether the backward pass has the gradient of A."""
    ratio: float | None
    """Time over that of spgrad, where it is shown."""
    peak: int | None


def save(path: Path, title: str, bars: Sequence[Bar], result_bytes: int, dense_bytes: int) -> None:
    """Save the figure; the sizes are those of the results, and of a dense gradient of A."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    # Without mathematics, as the name of a file may have dollar signs in it.
    figure.suptitle(title, parse_math=False)
    time_axes, memory_axes = figure.subplots(1, 2, sharey=True)
    _draw_times(time_axes, bars)
    _draw_memory(memory_axes, bars, result_bytes, dense_bytes)
    time_axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    time_axes.invert_yaxis()
    for axes, handles in ((time_axes, _time_legend(bars)), (memory_axes, None)):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            frameon=False,
            fontsize="small",
            handles=handles,
        )
    figure.savefig(path, dpi=150)


def _draw_times(axes: Axes, bars: Sequence[Bar]) -> None:
    """Draw the times of the passes, one after the other."""
    for place, bar in enumerate(bars):
        total = bar.forward + bar.backward
        axes.barh(place, bar.forward * 1e3, height=0.6, color=FORWARD_COLOR)
        axes.barh(
            place,
            bar.backward * 1e3,
            left=bar.forward * 1e3,
            height=0.6,
            facecolor=BACKWARD_COLOR if bar.complete else "none",
            edgecolor=BACKWARD_COLOR,
            hatch=None if bar.complete else HATCH,
        )
        ratio = "" if bar.ratio is None else f" ({two_digits(bar.ratio)} × spgrad)"
        axes.text(total * 1e3, place, f" {seconds(total)}{ratio}", va="center")
    # Room for the labels to the right of the bars.
    axes.set_xlim(0, 1.45e3 * max(bar.forward + bar.backward for bar in bars) or 1.0)
    axes.set_xlabel("median time, ms")


def _time_legend(bars: Sequence[Bar]) -> list[Patch]:
    """Explain the colours of the times, and the hatching where there is any."""
    handles = [
        Patch(color=FORWARD_COLOR, label="forward"),
        Patch(color=BACKWARD_COLOR, label="backward"),
    ]
    if not all(bar.complete for bar in bars):
        label = "gradient of B alone"
        handles.append(Patch(facecolor="none", edgecolor=BACKWARD_COLOR, hatch=HATCH, label=label))
    return handles


def _draw_memory(axes: Axes, bars: Sequence[Bar], result_bytes: int, dense_bytes: int) -> None:
    """Draw the peak memory on a log scale, which a dense gradient would not fit on otherwise."""
    axes.set_xscale("log")
    lengths = []
    for place, bar in enumerate(bars):
        run = bar.peak is not None
        length = max(dense_bytes if bar.peak is None else bar.peak, PAGE_BYTES)
        lengths.append(length)
        axes.barh(
            place,
            length,
            height=0.6,
            facecolor=MEMORY_COLOR if run else "none",
            edgecolor=MEMORY_COLOR,
            hatch=None if run else HATCH,
        )
        axes.annotate(
            size(length) + ("" if run else ", not run"),
            (length, place),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2, "alpha": 0.8},
        )
    for count, style, label in (
        (result_bytes, "dotted", "the product and both gradients"),
        (dense_bytes, "dashed", "a dense n × m gradient of A"),
    ):
        lengths.append(max(count, PAGE_BYTES))
        axes.axvline(
            count, color="black", linestyle=style, linewidth=1, label=f"{label}: {size(count)}"
        )
    # Room for the labels inside the shortest bar.
    axes.set_xlim(min(lengths) / 20, max(lengths) * 2)
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.set_xlabel("peak memory above operands, product and gradients, log scale")
