"""Draws how the digits were learned, and what the sparse weights became."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from spgrad.nn import SparseLinear

LOSS_COLOR = "#b5442e"
ACCURACY_COLOR = "#1f5f8b"
BACKGROUND = "#14161a"


def save_loss(
    path: Path, losses: Sequence[float], accuracies: Sequence[float], required_accuracy: float
) -> None:
    """Draw the loss and the held-out accuracy by epoch."""
    epochs = range(1, len(losses) + 1)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle("A sparse network learns handwritten digits")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    loss_axes.semilogy(epochs, losses, color=LOSS_COLOR)
    loss_axes.set_ylabel("training loss (cross-entropy, nats)")

    accuracy_axes.plot(epochs, accuracies, color=ACCURACY_COLOR)
    accuracy_axes.axhline(required_accuracy, color="black", linestyle="dashed", linewidth=1)
    accuracy_axes.text(
        len(losses), required_accuracy - 0.003, "required", ha="right", va="top", fontsize="small"
    )
    accuracy_axes.text(
        len(losses),
        accuracies[-1] + 0.002,
        f"{accuracies[-1]:.1%}",
        ha="right",
        va="bottom",
        color=ACCURACY_COLOR,
    )
    accuracy_axes.set_ylabel("accuracy on held-out digits")
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    # The first epochs are far below: the interesting part is the last few percent.
    accuracy_axes.set_ylim(min(0.85, accuracies[-1]), 1)

    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def save_patterns(path: Path, layers: Sequence[SparseLinear]) -> None:
    """Draw the three matrices as pictures in which a pixel is coloured where a weight exists.

    The first is transposed: the first hidden layer then runs across both of the upper panels.
    """
    first, second, last = (stored_values(layer) for layer in layers)
    panels = (
        ("First layer (transposed)", first.T, "unit of the first hidden layer", "image pixel"),
        (
            "Second layer",
            second,
            "unit of the first hidden layer",
            "unit of the second hidden layer",
        ),
        ("Last layer", last, "unit of the second hidden layer", "digit"),
    )
    figure = Figure(figsize=(13, 11), layout="constrained")
    figure.suptitle("Learned weights: where the background shows, no weight exists")
    all_axes = figure.subplots(len(panels), 1, height_ratios=(2, 5, 1.5))
    for axes, (title, values, across, down) in zip(all_axes, panels, strict=True):
        present = np.count_nonzero(~np.isnan(values))
        # Half a percent of the weights lie beyond the ends of the colour scale.
        limit = np.nanquantile(np.abs(values), 0.995)
        picture = axes.imshow(
            values,
            cmap="coolwarm",
            vmin=-limit,
            vmax=limit,
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_facecolor(BACKGROUND)
        axes.set_title(
            f"{title}: {present:,} of {values.size:,} weights ({present / values.size:.1%})",
            fontsize="medium",
        )
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        figure.colorbar(picture, ax=axes, label="weight", fraction=0.02, pad=0.01)
    # At this resolution every one of the 1,024 columns has two pixels.
    figure.savefig(path, dpi=200)


def save_densities(
    path: Path,
    densities: Sequence[float],
    fixed: Sequence[float],
    regrown: Sequence[float],
    weights_of_each_pixel: Sequence[Tensor],
) -> None:
    """Draw accuracy against density, and how many weights look at each pixel both ways."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    figure.suptitle("A pattern that is regrown while training needs fewer weights")
    curves, *pictures = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    for name, accuracies, color in (
        ("regrown", regrown, ACCURACY_COLOR),
        ("fixed", fixed, LOSS_COLOR),
    ):
        curves.semilogx(densities, accuracies, marker="o", color=color, label=name)
    curves.legend(frameon=False)
    curves.xaxis.set_major_formatter(PercentFormatter(1))
    curves.set_xticks(densities)
    curves.minorticks_off()
    curves.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    curves.set_xlabel("weights that exist")
    curves.set_ylabel("accuracy on held-out digits")
    curves.grid(alpha=0.3)
    curves.spines[["top", "right"]].set_visible(False)
    limit = max(int(counts.max()) for counts in weights_of_each_pixel)
    for axes, name, counts in zip(
        pictures, ("fixed", "regrown"), weights_of_each_pixel, strict=True
    ):
        picture = axes.imshow(counts.view(8, 8).numpy(), vmin=0, vmax=limit, cmap="viridis")
        axes.set_title(f"Weights at each pixel, {name}", fontsize="medium")
        axes.set_axis_off()
    figure.colorbar(picture, ax=pictures, fraction=0.04, pad=0.02)
    figure.savefig(path, dpi=150)


def stored_values(layer: SparseLinear) -> NDArray[np.float32]:
    """Return the matrix with NaN for the entries that do not exist."""
    values = np.full((layer.out_features, layer.in_features), np.nan, dtype=np.float32)
    rows = np.repeat(np.arange(layer.out_features), layer.crow_indices.diff().numpy())
    values[rows, layer.col_indices.numpy()] = layer.weight.detach().numpy()
    return values
