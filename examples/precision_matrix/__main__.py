"""The command line of the example."""

import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from examples.command_line import run_example
from examples.precision_matrix import data as measured
from examples.precision_matrix import figures, posterior
from examples.precision_matrix.field import Field, fit
from examples.threads import one_thread

DESCRIPTION = (
    "A precision matrix learned from a depth map with gaps. Disparities and photograph are those "
    "of Scharstein et al., 'High-resolution stereo datasets with subpixel-accurate ground truth' "
    "(2014), reduced, which scikit-image ships without naming a licence of theirs."
)
PICTURES = {
    "precision_matrix.png": (
        "The photograph, its depth as measured with gaps, and what fills them: the mean, two "
        "samples and the standard deviation"
    ),
}
SEED = 0
STEPS, QUICK_STEPS = 120, 30
SAMPLES, QUICK_SAMPLES = 16, 8


def run(console: Console, output: Path, quick: bool) -> None:  # noqa: FBT001 - as the command has it
    """Fit two fields, compare what they say of hidden pixels, and draw the better one."""
    generator = torch.Generator().manual_seed(SEED)
    data = measured.load(measured.QUICK_STEP if quick else measured.STEP, generator)
    hidden = data.is_hidden
    truth = data.disparity[hidden].double()
    console.print(
        f"{data.height} × {data.width} pixels, {int(data.is_seen.sum()):,} seen, "
        f"{int(hidden.sum()):,} hidden to compare with",
        highlight=False,
    )
    table = Table("of hidden pixels", "error", "in 90 % range", "fit", "sampling", "iterations")
    start = time.perf_counter()
    inpainted = inpaint(data)
    seconds = time.perf_counter() - start
    table.add_row(
        "scikit-image, biharmonic", f"{error(inpainted, truth):.2f}", "", "", f"{seconds:.1f} s", ""
    )
    errors = []
    for uses_colors, name in ((False, "one stencil for all"), (True, "entries from colours")):
        torch.manual_seed(SEED)
        field = Field(data, uses_colors=uses_colors)
        start = time.perf_counter()
        losses = fit(field, data.disparity, QUICK_STEPS if quick else STEPS)
        fitted = time.perf_counter()
        filled = posterior.sample(field, data, QUICK_SAMPLES if quick else SAMPLES, generator)
        sampled = time.perf_counter()
        errors.append(error(filled.mean[hidden], truth))
        deviation = filled.samples[hidden].std(dim=1)
        inside = ((filled.mean[hidden] - truth).abs() < 1.645 * deviation).double().mean()
        console.print(
            f"{name}: {losses[0]:.2f} → {losses[-1]:.2f} nats for each pixel; "
            f"{field.pattern.nnz:,} entries",
            highlight=False,
        )
        table.add_row(
            name,
            f"{errors[-1]:.2f}",
            f"{inside:.0%}",
            f"{fitted - start:.1f} s",
            f"{sampled - fitted:.1f} s",
            str(filled.iterations),
        )
    console.print(table)
    path = output / "precision_matrix.png"
    figures.save_posterior(path, data, filled)
    console.print(f"saved {path}", highlight=False)
    if errors[1] > errors[0]:
        message = "entries from colours should fill the gaps better than one stencil"
        raise SystemExit(message)


def inpaint(data: measured.Measurements) -> Tensor:
    """Fill the hidden pixels smoothly, without the photograph, by scikit-image."""
    filled = inpaint_biharmonic(
        data.picture(data.disparity).numpy(),
        data.picture(~data.is_seen).numpy(),
        split_into_regions=True,
    )
    return torch.from_numpy(filled).flatten()[data.is_hidden]


def error(filled: Tensor, truth: Tensor) -> float:
    """Return the root of the mean square, in pixels of disparity."""
    return float((filled - truth).square().mean().sqrt())


def main(arguments: list[str] | None = None) -> None:
    """Fit and compare; end with a message if the colours do not help."""
    with one_thread():
        run_example("precision_matrix", DESCRIPTION, run, arguments)


if __name__ == "__main__":
    main()
