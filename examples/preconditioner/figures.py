"""Draws the plate, its temperature, the errors after some iterations, and convergence."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLORS = ("#b5442e", "#c9962b", "#1f5f8b")


def save_convergence(
    path: Path,
    conductivity: NDArray[np.float64],
    temperature: NDArray[np.float64],
    outcomes: Mapping[str, tuple[NDArray[np.float64], Sequence[float]]],
    iterations: int,
) -> None:
    """Draw two pictures of the problem, and of each method an error and the residuals."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    figure.suptitle("A preconditioner learned through products with random vectors")
    panels = figure.subplots(2, 3)
    problem = (
        ("conductivity", np.log10(conductivity), "gray", "logarithm to the base 10"),
        ("temperature", temperature, "inferno", "temperature"),
    )
    for axes, (title, values, colors, label) in zip(panels[0], problem, strict=False):
        picture = axes.imshow(values, cmap=colors)
        axes.set_title(title)
        figure.colorbar(picture, ax=axes, label=label)
    limit = max(np.abs(error).max() for error, _ in outcomes.values())
    for axes, (name, (error, _)) in zip(panels[1], outcomes.items(), strict=True):
        picture = axes.imshow(np.abs(error), cmap="magma", vmin=0, vmax=limit)
        axes.set_title(f"error after {iterations} iterations\n{name}", fontsize="medium")
    figure.colorbar(picture, ax=panels[1, -1], label="error of the temperature")
    for axes in (*panels[0, :2], *panels[1]):
        axes.set_axis_off()
    curves = panels[0, 2]
    for color, (name, (_, shares)) in zip(COLORS, outcomes.items(), strict=True):
        curves.semilogy(range(1, len(shares) + 1), shares, color=color, label=name)
    curves.set_xlabel("iteration")
    curves.set_ylabel("residual, relative")
    curves.legend(frameon=False)
    curves.grid(alpha=0.3)
    curves.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
