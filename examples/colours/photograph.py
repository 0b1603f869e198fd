"""A photograph as a graph of pixels, of which each rank makes its own rows."""

from typing import NamedTuple

import numpy as np
import skimage.color
import skimage.data
import torch
from torch import Tensor

KNOWN = 0.1  # share of pixels with a known colour


class Photograph(NamedTuple):
    """Brightness and colours of all pixels, row by row."""

    height: int
    width: int
    brightness: Tensor  # from 0 to 1
    colours: Tensor  # two numbers each, about 0
    known: Tensor  # of which pixels the colour is known

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width


def load(stride: int) -> Photograph:
    """Load one pixel of `stride`² of the cat in scikit-image; which colours are known is drawn."""
    image = skimage.color.rgb2ycbcr(skimage.data.chelsea()[::stride, ::stride])
    numbers = torch.from_numpy(image).float().flatten(0, 1)
    drawn = torch.rand(len(numbers), generator=torch.Generator().manual_seed(0))
    height, width = image.shape[:2]
    return Photograph(
        height,
        width,
        brightness=(numbers[:, :1] - 16) / 219,
        colours=(numbers[:, 1:] - 128) / 28,
        known=drawn < KNOWN,
    )


def features(photograph: Photograph, given: Tensor) -> Tensor:
    """Give what the network sees of each pixel: given colours, whether there is one, brightness."""
    there = given.unsqueeze(1).float()
    return torch.cat([photograph.colours * there, there, photograph.brightness], 1)


def edges(photograph: Photograph, first: int, last: int, reach: int) -> tuple[Tensor, ...]:
    """Join some pixels to those around them: rows `first` to `last` of the graph, as CSR.

    Returns:
        Offsets, columns and first values: how alike the brightness is, with sums of 1.

    """
    pixels = torch.arange(first, last)
    steps = torch.arange(-reach, reach + 1)
    y = (pixels // photograph.width).view(-1, 1, 1) + steps.view(-1, 1)
    x = (pixels % photograph.width).view(-1, 1, 1) + steps
    y, x = (numbers.flatten(1) for numbers in torch.broadcast_tensors(y, x))
    there = (y >= 0) & (y < photograph.height) & (x >= 0) & (x < photograph.width)
    columns = (y * photograph.width + x)[there]
    counts = there.sum(1)
    rows = torch.repeat_interleave(torch.arange(len(pixels)), counts)
    brightness = photograph.brightness.flatten()
    differences = brightness[pixels][rows] - brightness[columns]
    alike = torch.exp(-((differences / 0.05) ** 2)) + 1e-3
    sums = torch.zeros(len(pixels)).index_add_(0, rows, alike)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0)), columns, alike / sums[rows]


def picture(photograph: Photograph, colours: Tensor) -> np.ndarray:
    """Make an image of other colours."""
    numbers = torch.cat([photograph.brightness * 219 + 16, colours * 28 + 128], 1)
    image = skimage.color.ycbcr2rgb(
        numbers.view(photograph.height, photograph.width, 3).double().numpy()
    )
    return np.asarray(image).clip(0, 1)
