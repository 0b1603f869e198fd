"""Draws the sinogram, the pictures before and after, and what was learned of the scanner."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from examples.tomography.scanner import Measurements

COLORS = ("#b5442e", "#1f5f8b")


def save_reconstructions(
    path: Path,
    data: Measurements,
    pictures: Mapping[str, Tensor],
    gains: Tensor,
    course: Sequence[tuple[float, float]],
) -> None:
    """Draw two pictures with their errors, the gains, and the course of the learning."""
    figure = Figure(figsize=(13, 6.8), layout="constrained")
    figure.suptitle("Gains and axis of a tomograph, learned through least squares")
    panels = figure.subplots(2, 4)

    def picture(pixels: Tensor) -> NDArray[np.float64]:
        square: NDArray[np.float64] = data.scanner.picture(pixels).numpy()
        return square

    panels[0, 0].imshow(picture(data.pixels), cmap="gray", vmin=0, vmax=1)
    panels[0, 0].set_title("photograph")
    panels[1, 0].imshow(data.sinogram.numpy(), cmap="gray", aspect="auto")
    panels[1, 0].set_title("measured: a row for each view")
    errors = {name: picture(pixels - data.pixels) for name, pixels in pictures.items()}
    limit = max(np.abs(error).max() for error in errors.values())
    for column, (name, pixels) in enumerate(pictures.items(), start=1):
        panels[0, column].imshow(picture(pixels), cmap="gray", vmin=0, vmax=1)
        panels[0, column].set_title(name)
        drawn = panels[1, column].imshow(errors[name], cmap="RdBu", vmin=-limit, vmax=limit)
        panels[1, column].set_title("error")
    figure.colorbar(drawn, ax=panels[1, 2])
    for axes in panels[:, :3].flat:
        axes.set_axis_off()

    for color, name, values in zip(COLORS, ("true", "learned"), (data.gains, gains), strict=True):
        panels[0, 3].plot(values.numpy(), color=color, label=name, linewidth=1)
    panels[0, 3].set_title("gains of the detector")
    panels[0, 3].legend(frameon=False)
    misfits, shifts = zip(*course, strict=True)
    curves = panels[1, 3]
    curves.semilogy(misfits, color=COLORS[0])
    curves.set_ylabel("misfit of the odd views", color=COLORS[0])
    curves.set_xlabel("step")
    other = curves.twinx()
    other.plot(shifts, color=COLORS[1])
    other.axhline(data.shift, color=COLORS[1], linestyle=":")
    other.set_ylabel("shift of the axis (pixels)", color=COLORS[1])
    figure.savefig(path, dpi=150)
