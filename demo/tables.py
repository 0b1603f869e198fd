"""The printed tables."""

from collections.abc import Sequence

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from demo.agreement import TOLERANCE
from demo.comparison import Measurement
from demo.problem import Operands
from demo.units import three_digits

ABSENT = "—"


def comparison_table(measurements: Sequence[Measurement], operands: Operands) -> Table:
    """Tabulate times, ratios and memory."""
    table = Table(
        title="Time (median) and memory of one forward and backward pass",
        caption="ratio: forward + backward over that of spgrad on the same layout\n"
        "peak memory is above that of the operands",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("contender", no_wrap=True)
    table.add_column("forward\nms", justify="right")
    table.add_column("forward +\nbackward\nms", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("peak\nmemory\nMB", justify="right")
    table.add_column("note")
    for measurement in measurements:
        complete = measurement.contender.differentiates_matrix
        peak = measurement.peak_extra_bytes
        table.add_row(
            measurement.contender.name,
            three_digits(measurement.timing.forward * 1e3),
            three_digits(measurement.timing.total * 1e3) if complete else ABSENT,
            ABSENT if measurement.ratio is None else f"{measurement.ratio:.2f}",
            ABSENT if peak is None else three_digits(peak / 1e6),
            note(measurement, operands),
            style="bold" if measurement.contender.library == "spgrad" else None,
        )
    return table


def note(measurement: Measurement, operands: Operands) -> str:
    """Explain what a row of the comparison does not show."""
    contender = measurement.contender
    if not contender.differentiates_matrix:
        return (
            f"needs {decimal(operands.dense_gradient_bytes)} for the dense gradient, "
            f"not run; {three_digits(measurement.timing.total * 1e3)} ms with that of B alone"
        )
    if (contender.library, contender.layout) == ("torch.sparse.mm", "COO"):
        return f"builds the dense gradient, {decimal(operands.dense_gradient_bytes)}"
    return ""


def agreement_table(measurements: Sequence[Measurement]) -> Table:
    """Tabulate the deviations."""
    table = Table(
        title=f"Largest deviation from SciPy in float64, at most {TOLERANCE:g}",
        caption="relative to the sum of the sizes of the terms added up",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("contender", no_wrap=True)
    for heading in ("product", "gradient of A", "gradient of B", "agrees"):
        table.add_column(heading, justify="right")
    for measurement in measurements:
        deviation = measurement.deviation
        table.add_row(
            measurement.contender.name,
            scientific(deviation.product),
            scientific(deviation.matrix_gradient),
            scientific(deviation.dense_gradient),
            "yes" if deviation.agrees else Text("no", style="red"),
        )
    return table


def scientific(error: float | None) -> str:
    """Write an error in two digits."""
    return ABSENT if error is None else f"{error:.1e}"
