"""Draws the measurements, what fills their gaps, and how certain that is."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from examples.precision_matrix.data import Measurements
from examples.precision_matrix.posterior import Posterior


def save_posterior(path: Path, data: Measurements, posterior: Posterior) -> None:
    """Draw the photograph, what was seen, the mean, two samples and the standard deviation."""
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    figure.suptitle("Gaps of a depth map, filled by a sparse precision matrix that was learned")
    axes = figure.subplots(2, 3).flat
    axes[0].imshow(data.color.view(data.height, data.width, 3).numpy())
    axes[0].set_title("photograph")
    seen = np.where(data.is_seen.numpy(), data.disparity.numpy(), np.nan)
    low, high = np.nanmin(seen), np.nanmax(seen)
    panels = (
        ("what the fit sees (gaps and discs are missing)", seen),
        ("mean", posterior.mean.numpy()),
        ("a sample", posterior.samples[:, 0].numpy()),
        ("another sample", posterior.samples[:, 1].numpy()),
    )
    for panel, (title, values) in zip(axes[1:5], panels, strict=True):
        shape = (data.height, data.width)
        picture = panel.imshow(values.reshape(shape), vmin=low, vmax=high, cmap="viridis")
        panel.set_facecolor("#14161a")
        panel.set_title(title)
    figure.colorbar(picture, ax=axes[2], label="disparity (pixels)")
    deviation = data.picture(posterior.samples.std(dim=1)).numpy()
    picture = axes[5].imshow(deviation, cmap="magma", vmax=np.quantile(deviation, 0.995))
    axes[5].set_title("standard deviation of the samples")
    figure.colorbar(picture, ax=axes[5], label="disparity (pixels)")
    for panel in axes:
        panel.set_xticks([])
        panel.set_yticks([])
    figure.savefig(path, dpi=150)
