"""Draws the comparison with PyTorch as bars."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter
from rich.filesize import decimal

from demo.comparison import Measurement
from demo.problem import Operands, Problem
from demo.units import three_digits

FORWARD_COLOR = "#1f5f8b"
BACKWARD_COLOR = "#8fbbd9"
MEMORY_COLOR = "#d9a24a"
# The kernel counts whole pages; the log scale needs something above zero.
PAGE_BYTES = 4096


def save(
    path: Path, problem: Problem, measurements: Sequence[Measurement], operands: Operands
) -> None:
    """Save the figure: times to the left, memory to the right."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    # Without mathematics, as the name of a file may have dollar signs in it.
    figure.suptitle(
        f"{problem.name} — {operands.dense.shape[1]} columns, float32", parse_math=False
    )
    time_axes, memory_axes = figure.subplots(1, 2, sharey=True)
    draw_times(time_axes, measurements)
    draw_memory(memory_axes, measurements, operands)
    time_axes.set_yticks(
        range(len(measurements)), [measurement.contender.name for measurement in measurements]
    )
    time_axes.invert_yaxis()
    for axes in (time_axes, memory_axes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            frameon=False,
            fontsize="small",
            handles=None if axes is memory_axes else time_legend(measurements),
        )
    figure.savefig(path, dpi=150)


def draw_times(axes: Axes, measurements: Sequence[Measurement]) -> None:
    """Draw the times of the passes, one after the other."""
    for place, measurement in enumerate(measurements):
        complete = measurement.contender.differentiates_matrix
        timing = measurement.timing
        axes.barh(place, timing.forward * 1e3, height=0.6, color=FORWARD_COLOR)
        axes.barh(
            place,
            (timing.total - timing.forward) * 1e3,
            left=timing.forward * 1e3,
            height=0.6,
            facecolor=BACKWARD_COLOR if complete else "none",
            edgecolor=BACKWARD_COLOR,
            hatch=None if complete else "///",
        )
        label = f" {three_digits(timing.total * 1e3)} ms"
        if measurement.ratio is not None and measurement.contender.library != "spgrad":
            label += f" ({measurement.ratio:.2f} × spgrad)"
        axes.text(timing.total * 1e3, place, label, va="center")
    # Room for the labels to the right of the bars.
    axes.set_xlim(0, 1.45e3 * max(measurement.timing.total for measurement in measurements))
    axes.set_xlabel("median time, ms")


def time_legend(measurements: Sequence[Measurement]) -> list[Patch]:
    """Explain the colours of the times, and the hatching where there is any."""
    handles = [
        Patch(color=FORWARD_COLOR, label="forward"),
        Patch(color=BACKWARD_COLOR, label="backward"),
    ]
    if not all(measurement.contender.differentiates_matrix for measurement in measurements):
        handles.append(
            Patch(
                facecolor="none",
                edgecolor=BACKWARD_COLOR,
                hatch="///",
                label="backward without the gradient of A",
            )
        )
    return handles


def draw_memory(axes: Axes, measurements: Sequence[Measurement], operands: Operands) -> None:
    """Draw the peak memory on a log scale, which a dense gradient would not fit on otherwise."""
    axes.set_xscale("log")
    lengths = []
    for place, measurement in enumerate(measurements):
        peak = measurement.peak_extra_bytes
        length = operands.dense_gradient_bytes if peak is None else max(peak, PAGE_BYTES)
        lengths.append(length)
        axes.barh(
            place,
            length,
            height=0.6,
            facecolor="none" if peak is None else MEMORY_COLOR,
            edgecolor=MEMORY_COLOR,
            hatch="///" if peak is None else None,
        )
        label = decimal(length) + (", not run" if peak is None else "")
        axes.annotate(
            label,
            (length, place),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2, "alpha": 0.8},
        )
    for size, style, label in (
        (operands.result_bytes, "dotted", "the product and both gradients"),
        (operands.dense_gradient_bytes, "dashed", "a dense n × m gradient of A"),
    ):
        lengths.append(max(size, PAGE_BYTES))
        axes.axvline(
            size,
            color="black",
            linestyle=style,
            linewidth=1,
            label=f"{label}: {decimal(size)}",
        )
    # Room for the labels inside the shortest bar.
    axes.set_xlim(min(lengths) / 20, max(lengths) * 2)
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.set_xlabel("peak memory above the operands, log scale")
