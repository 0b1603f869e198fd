"""Compares the contenders on one problem: agreement, time and memory."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from demo.agreement import Deviation, Reference
from demo.contenders import Contender, contenders_for
from demo.peak_memory import peak_extra_bytes
from demo.problem import Operands
from demo.timing import Timing, time_contenders


@dataclass(frozen=True)
class Measurement:
    """What was found out about a contender."""

    contender: Contender
    deviation: Deviation
    timing: Timing
    # Total time over that of spgrad on the same layout; None where the work was not the same.
    ratio: float | None
    # None where the gradient of A was not computed.
    peak_extra_bytes: int | None


def compare(console: Console, operands: Operands, timing_seconds: float) -> list[Measurement]:
    """Measure all contenders, with progress bars."""
    contenders = contenders_for(operands)
    deviations: dict[Contender, Deviation] = {}
    peaks: dict[Contender, int] = {}
    columns = (TextColumn("{task.description:<30}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        checking = progress.add_task("checking against SciPy", total=len(contenders) + 1)
        timing = progress.add_task("timing", start=False, total=None)
        weighing = progress.add_task("measuring memory", start=False, total=None)

        reference = Reference(operands)
        progress.advance(checking)
        for contender in contenders:
            deviations[contender] = reference.deviation(contender)
            progress.advance(checking)
        del reference

        progress.start_task(timing)
        timings = time_contenders(
            contenders,
            operands,
            timing_seconds,
            lambda done, total: progress.update(timing, completed=done, total=total),
        )

        weighed = [contender for contender in contenders if contender.differentiates_matrix]
        progress.start_task(weighing)
        progress.update(weighing, total=len(weighed))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "operands.pt"
            operands.save(path)
            for contender in weighed:
                peaks[contender] = peak_extra_bytes(contender, path)
                progress.advance(weighing)

    return [
        Measurement(
            contender,
            deviations[contender],
            timings[contender],
            timings[contender].total / timings[Contender("spgrad", contender.layout)].total
            if contender.differentiates_matrix
            else None,
            peaks.get(contender),
        )
        for contender in contenders
    ]
