"""Draws the photograph with its strokes, the labels, and what both libraries took."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch.nn.functional import max_pool2d

from examples.graph_network.data import CLASSES, NOTHING, WIDTH, Photograph
from examples.graph_network.training import Outcome

COLORS = ListedColormap(["#4fa3ff", "#f2b01e", "#2f9e44", "#e64980"])
OF_LIBRARIES = ("#b5442e", "#1f5f8b")


def save_labels(path: Path, photograph: Photograph, outcomes: Mapping[str, Outcome]) -> None:
    """Draw strokes and labels, and beside them losses, seconds and memory."""
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    figure.suptitle("A graph network labels a photograph from a few strokes")
    panels = figure.subplots(2, 6, gridspec_kw={"height_ratios": (1.6, 1)})
    grid = panels[0, 0].get_gridspec()
    for axes in panels.flat:
        axes.remove()
    colors = photograph.picture().numpy()
    limits: dict[str, Any] = {"cmap": COLORS, "vmin": 0, "vmax": len(CLASSES) - 1}
    limits["interpolation"] = "nearest"

    strokes = figure.add_subplot(grid[0, :3])
    strokes.imshow(colors)
    # Wide enough to be seen.
    reach = max(1, 2 * photograph.shape[1] // WIDTH)
    drawn = photograph.learned.view(1, 1, *photograph.shape).float()
    drawn = max_pool2d(drawn, 2 * reach + 1, stride=1, padding=reach)[0, 0]
    strokes.imshow(torch.where(drawn == NOTHING, torch.nan, drawn).numpy(), **limits)
    strokes.set_title("the strokes that it learns from")

    labels = figure.add_subplot(grid[0, 3:])
    labels.imshow(colors.mean(axis=2), cmap="gray")
    found = next(iter(outcomes.values())).labels.view(photograph.shape)
    labels.imshow(found.numpy(), alpha=0.55, **limits)
    labels.set_title("the label of each pixel")
    labels.legend(
        handles=[Patch(color=COLORS(i), label=name) for i, name in enumerate(CLASSES)],
        loc="lower right",
        fontsize="small",
    )
    for axes in (strokes, labels):
        axes.set_axis_off()

    losses = figure.add_subplot(grid[1, :2])
    styles = zip(OF_LIBRARIES, ("-", "--"), outcomes.items(), strict=True)
    for color, style, (name, outcome) in styles:
        losses.semilogy(outcome.losses, style, color=color, label=name)
    losses.set_title("loss")
    losses.set_xlabel("step")
    losses.legend(frameon=False)
    bars = {
        "seconds for each step": [outcome.seconds for outcome in outcomes.values()],
        "memory of a step (MB)": [outcome.memory / 1e6 for outcome in outcomes.values()],
    }
    for place, (title, heights) in zip((grid[1, 2:4], grid[1, 4:]), bars.items(), strict=True):
        axes = figure.add_subplot(place)
        drawn_bars = axes.bar(list(outcomes), heights, color=OF_LIBRARIES, width=0.6)
        axes.bar_label(drawn_bars, fmt="%.2g" if max(heights) < 100 else "%.0f")  # noqa: PLR2004
        axes.set_title(title)
    for axes in figure.axes[2:]:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
