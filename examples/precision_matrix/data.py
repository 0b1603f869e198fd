"""The measurements: disparities of a stereo camera, with gaps, and the photograph beside them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
import torch
from torch import Tensor

# A third of the size: 167 × 247 pixels; and an eighth.
STEP, QUICK_STEP = 3, 8
# Discs of measured pixels are hidden from the fit, to compare with afterwards.
DISCS = 60
RADIUS = 0.02


@dataclass(frozen=True)
class Measurements:
    """One number for each pixel, all flattened row by row."""

    height: int
    width: int
    disparity: Tensor
    """In pixels of the camera; 0 where nothing was measured."""
    color: Tensor
    """Shape ``(pixels, 3)``, from 0 to 1."""
    is_seen: Tensor
    """What the fit sees."""
    is_hidden: Tensor
    """What was measured, but hidden from the fit."""

    def picture(self, values: Tensor) -> Tensor:
        """Give one number for each pixel as a picture."""
        return values.view(self.height, self.width)


def load(step: int, generator: torch.Generator) -> Measurements:
    """Load every few pixels of both, and hide discs of the disparities."""
    folder = Path(skimage.__file__).parent / "data"
    with np.load(folder / "motorcycle_disp.npz") as file:
        disparity = torch.from_numpy(file["arr_0"][::step, ::step].copy())
    photograph = skimage.io.imread(folder / "motorcycle_left.png")[::step, ::step, :3]
    color = torch.from_numpy(photograph.copy()).float() / 255
    is_measured = disparity.isfinite()
    height, width = disparity.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    is_in_disc = torch.zeros_like(is_measured)
    for place in torch.rand(DISCS, 2, generator=generator):
        centre = place * torch.tensor([height, width])
        distance = (rows - centre[0]).square() + (columns - centre[1]).square()
        is_in_disc |= distance < (RADIUS * width) ** 2
    return Measurements(
        height,
        width,
        disparity.where(is_measured, 0).flatten(),
        color.view(-1, 3),
        (is_measured & ~is_in_disc).flatten(),
        (is_measured & is_in_disc).flatten(),
    )
