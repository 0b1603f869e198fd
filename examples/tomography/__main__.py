"""The command line of the example."""

import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from examples.command_line import run_example
from examples.threads import one_thread
from examples.tomography import figures
from examples.tomography.learning import Faults, learn
from examples.tomography.scanner import Measurements, measure

DESCRIPTION = (
    "A tomograph whose detector gains and axis are unknown. What it scans is a photograph by Lav "
    "Varshney (CC0), which scikit-image ships; the measurements are computed, with noise."
)
PICTURES = {
    "tomography.png": (
        "The photograph and its measurements, both reconstructions with their errors, the "
        "learned gains of the detector, and how the learning went"
    ),
}
SEED = 0
SIDE, QUICK_SIDE = 72, 32
VIEWS, QUICK_VIEWS = 144, 80
# Of the shift alone, then of all: gains learned around a wrong axis would have to be unlearned.
STEPS, QUICK_STEPS = (25, 50), (15, 25)
ALL = slice(None)


def run(console: Console, output: Path, quick: bool) -> None:  # noqa: FBT001 - as the command has it
    """Reconstruct as if nothing were wrong, learn what is, and reconstruct again."""
    generator = torch.Generator().manual_seed(SEED)
    side, views = (QUICK_SIDE, QUICK_VIEWS) if quick else (SIDE, VIEWS)
    data = measure(side, views, generator)
    faults = Faults(data)
    rays, _ = faults.matrix(data, ALL)
    rows, columns = rays.pattern.shape
    console.print(
        f"{rows:,} rays, {columns:,} pixels, {rays.pattern.nnz:,} entries", highlight=False
    )
    pictures = {"no faults assumed": faults.reconstruct(data, ALL).detach()}
    states = [(0.0, error_of_gains(faults.gains(), data))]
    start = time.perf_counter()
    course: list[tuple[float, float]] = []
    for names, steps in zip(
        (("shift", "log_damp"), ("shift", "log_gains", "log_damp")),
        QUICK_STEPS if quick else STEPS,
        strict=True,
    ):
        course += learn(faults, data, names, steps)
    learning = time.perf_counter() - start
    pictures["faults learned"] = faults.reconstruct(data, ALL).detach()
    states.append((faults.shift.item(), error_of_gains(faults.gains(), data)))
    console.print(
        f"{len(course)} steps in {learning:.1f} s: misfit of the odd views "
        f"{course[0][0]:.2f} → {course[-1][0]:.2f}, damp {faults.log_damp.exp().item():.1f}",
        highlight=False,
    )
    table = Table("", "error of the picture", "shift of the axis", "error of the gains")
    for (name, pixels), (shift, of_gains) in zip(pictures.items(), states, strict=True):
        table.add_row(name, f"{error(pixels, data):.1%}", f"{shift:.2f}", f"{of_gains:.1%}")
    known = with_true_faults(faults, data).reconstruct(data, ALL).detach()
    table.add_row("faults known", f"{error(known, data):.1%}", f"{data.shift:.2f}", "0.0%")
    console.print(table)
    path = output / "tomography.png"
    figures.save_reconstructions(path, data, pictures, faults.gains().detach(), course)
    console.print(f"saved {path}", highlight=False)
    before, after = (error(pixels, data) for pixels in pictures.values())
    if after > before / 2:
        message = "learned faults should halve the error of the picture"
        raise SystemExit(message)


def with_true_faults(faults: Faults, data: Measurements) -> Faults:
    """Return faults with the truth, damped as these."""
    true = Faults(data)
    with torch.no_grad():
        true.shift.fill_(data.shift)
        true.log_gains.copy_(data.gains.log())
        true.log_damp.copy_(faults.log_damp)
    return true


def error(pixels: Tensor, data: Measurements) -> float:
    """Return the norm of the error, as a share of the picture's."""
    return float((pixels - data.pixels).norm() / data.pixels.norm())


def error_of_gains(gains: Tensor, data: Measurements) -> float:
    """Return the scatter of what the picture's part of the detector is off by, but for a factor."""
    offset = torch.arange(len(gains)) - (len(gains) - 1) / 2 - data.shift
    ratio = (gains.detach() / data.gains)[offset.abs() < data.scanner.side / 2 - 1].log()
    return float(ratio.std())


def main(arguments: list[str] | None = None) -> None:
    """Learn and reconstruct; end with a message if the error is not halved."""
    with one_thread():
        run_example("tomography", DESCRIPTION, run, arguments)


if __name__ == "__main__":
    main()
