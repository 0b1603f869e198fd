"""The command line of the example: one process, then four ranks, side by side."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from examples.colours.photograph import Photograph, load, picture
from examples.command_line import run_example

DESCRIPTION = (
    "A photograph gets its colours back on four ranks. A graph network on its pixels, shared out "
    "to processes of torchrun, is compared with the same in one process. The photograph is of "
    "Chelsea the cat, by Stéfan van der Walt (CC0), and comes with scikit-image."
)
PICTURES = {
    "colours.png": (
        "Three pictures of a cat: with the few colours that are known, with those that the "
        "network tells, and the photograph"
    ),
}
RANKS = 4
# Pixels to the next one in use, and steps.
SIZES = {False: (3, 50), True: (6, 80)}
# Sums over ranks have another order, and each step makes more of that: 4e-7 measured.
MOST_DIFFERENCE = 1e-4


class Run(NamedTuple):
    """What all ranks of a training told."""

    losses: list[float]
    colours: Tensor
    reports: list[dict[str, Any]]


def train(command: list[str], ranks: int, stride: int, steps: int) -> Run:
    """Start a training, and put together what its ranks write down."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ["--output", name, "--stride", str(stride), "--steps", str(steps)]
        settings = os.environ | {"OMP_NUM_THREADS": "1"}
        arguments = [sys.executable, *command, "-m", "examples.colours.train", *options]
        subprocess.run(arguments, check=True, env=settings)  # noqa: S603 - this very Python
        told = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]
        colours = [torch.load(folder / f"colours{rank}.pt") for rank in range(ranks)]
    return Run(told[0]["losses"], torch.cat(colours), [one["report"] for one in told])


def table(alone: Run, together: Run) -> Table:
    """Lay out what each rank had, received in a step both ways, and needed while it trained."""
    laid_out = Table("", "pixels", "edges", "halo", "MB of halo", "MB of memory", "s/step")
    rows = [("one process", alone.reports[0])]
    rows += [(f"rank {rank}", report) for rank, report in enumerate(together.reports)]
    for name, report in rows:
        counts = [f"{report[key]:,}" for key in ("rows", "edges", "halo")]
        sizes = [f"{report['bytes'] / 1e6:.2f}", f"{report['memory'] / 1e6:.0f}"]
        laid_out.add_row(name, *counts, *sizes, f"{report['seconds']:.3f}")
    return laid_out


def check(alone: Run, together: Run, photograph: Photograph) -> str:
    """See that both trainings agree, and that they learned something.

    Raises:
        SystemExit: They do not.

    """
    difference = max(
        abs(one - other) / one for one, other in zip(alone.losses, together.losses, strict=True)
    )
    if not difference < MOST_DIFFERENCE:
        message = f"the losses differ by {difference:.1e}"
        raise SystemExit(message)
    others = ~photograph.known
    error, of_mean = (
        float((colours - photograph.colours)[others].square().mean())
        for colours in (together.colours, photograph.colours[photograph.known].mean(0))
    )
    if not error < of_mean / 2:
        message = f"the colours are not learned: {error:.3f}, beside {of_mean:.3f} of their mean"
        raise SystemExit(message)
    return (
        f"Losses go from {alone.losses[0]:.3f} to {alone.losses[-1]:.4f}, and differ by "
        f"{difference:.1e} at most. Colours that were not known are off by {error / of_mean:.0%} "
        "of what one colour for all would be, in the mean of squares."
    )


def save_pictures(path: Path, photograph: Photograph, colours: Tensor) -> None:
    """Draw what was known, what the network made of it, and the photograph."""
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    shown = {
        "what is known": photograph.colours * photograph.known.unsqueeze(1),
        "what the network tells": colours,
        "the photograph": photograph.colours,
    }
    for axes, (title, numbers) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        axes.imshow(picture(photograph, numbers))
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(path, dpi=150)


def run(console: Console, output: Path, quick: bool) -> None:  # noqa: FBT001 - as the command has it
    """Train in one process, then on all ranks, and compare."""
    size = SIZES[quick]
    alone = train([], 1, *size)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    together = train(torchrun, RANKS, *size)
    photograph = load(size[0])
    console.print(table(alone, together))
    console.print(check(alone, together, photograph))
    save_pictures(output / "colours.png", photograph, together.colours)
    console.print(f"Pictures: {output / 'colours.png'}")


def main(arguments: list[str] | None = None) -> None:
    """Train; end with a message if something does not work as it should."""
    run_example("colours", DESCRIPTION, run, arguments)


if __name__ == "__main__":
    main()
