"""Parallel beams through a grid of pixels, and the measurements of a scanner that has faults."""

from dataclasses import dataclass

import skimage
import torch
from torch import Tensor

import spgrad

# What is wrong with the scanner: its axis is beside the middle of the detector, by so many of its
# places, and their gains differ. Noise is a share of the largest measurement.
SHIFT = 2.6
GAIN_SCATTER = 0.1
NOISE = 0.005


@dataclass(frozen=True)
class Rays:
    """A sparse matrix: how far each ray runs through each pixel."""

    pattern: spgrad.Pattern
    """One row for each ray, view after view, and one column for each pixel."""
    lengths: Tensor
    places: Tensor
    """The place of the detector that each entry's ray ends at."""


class Scanner:
    """A detector that goes round a disc of pixels, whose sides have length one."""

    def __init__(self, side: int, places: int) -> None:
        """Choose how many pixels the disc has across, and how many places the detector has."""
        self.side, self.places = side, places
        middle = (side - 1) / 2
        rows, columns = torch.meshgrid(*2 * [torch.arange(side).double() - middle], indexing="ij")
        self.is_inside = rows.square() + columns.square() < (side / 2) ** 2
        self.x, self.y = columns[self.is_inside], -rows[self.is_inside]

    def rays(self, angles: Tensor, shift: Tensor) -> Rays:
        """Trace all rays, so that the lengths have derivatives by the shift of the axis.

        A pixel is seen from the side as a trapezium: rays through its middle part run through it
        for the full length, and to its corners the length falls to zero.
        """
        cosine, sine = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
        longest = torch.maximum(cosine.abs(), sine.abs()).reciprocal()
        half_width = (cosine.abs() + sine.abs()) / 2
        half_of_full_length = (cosine.abs() - sine.abs()).abs() / 2
        # Where the middle of each pixel falls on the detector, for each view: (views, pixels).
        middle = self.x * cosine + self.y * sine + shift + (self.places - 1) / 2
        # Not more than two rays can meet a pixel: it is at most the root of two wide.
        first = (middle.detach() - half_width).ceil()
        place = torch.stack([first, first + 1], -1)
        distance = (place - middle.unsqueeze(-1)).abs()
        slope = longest / (half_width - half_of_full_length)
        length = (half_width.unsqueeze(-1) - distance) * slope.unsqueeze(-1)
        length = torch.minimum(length, longest.unsqueeze(-1))
        is_met = (length.detach() > 0) & (place >= 0) & (place < self.places)
        view, pixel, _ = is_met.nonzero(as_tuple=True)
        places = place[is_met].long()
        indices = torch.stack([view * self.places + places, pixel])
        size = (len(angles) * self.places, len(self.x))
        return Rays(spgrad.Pattern.from_coo(indices, size), length[is_met], places)

    def picture(self, pixels: Tensor) -> Tensor:
        """Put the pixels of the disc into a square."""
        square = pixels.new_zeros(self.side, self.side)
        square[self.is_inside] = pixels
        return square


@dataclass(frozen=True)
class Measurements:
    """What a scanner with faults measured, and the truth to compare with."""

    scanner: Scanner
    angles: Tensor
    sinogram: Tensor
    """Shape ``(views, places)``."""
    pixels: Tensor
    gains: Tensor
    """Of the places of the detector, one on average."""
    shift: float


def measure(side: int, views: int, generator: torch.Generator) -> Measurements:
    """Scan a photograph that has twice as many pixels across as will be reconstructed."""
    photograph = torch.from_numpy(skimage.data.camera()).double() / 255
    fine = torch.nn.functional.adaptive_avg_pool2d(photograph[None, None], 2 * side)[0, 0]
    coarse = torch.nn.functional.avg_pool2d(fine[None, None], 2)[0, 0]
    places = side + 2 * round(2 * SHIFT)
    scanner, fine_scanner = Scanner(side, places), Scanner(2 * side, 2 * places)
    # Half a step from the axes, so that no ray runs along the sides of pixels.
    angles = (torch.arange(views).double() + 0.5) * (2 * torch.pi / views)
    gains = 1 + GAIN_SCATTER * torch.randn(places, generator=generator).double()
    gains = gains / gains.log().mean().exp()
    rays = fine_scanner.rays(angles, torch.tensor(2 * SHIFT))
    exact = rays.pattern.mm(rays.lengths, fine[fine_scanner.is_inside].unsqueeze(1))
    # Two rays for each place, and lengths in pixels of twice the size.
    exact = exact.view(views, places, 2).mean(-1) / 2
    noise = NOISE * exact.max() * torch.randn(exact.shape, generator=generator).double()
    return Measurements(
        scanner, angles, gains * exact + noise, coarse[scanner.is_inside], gains, SHIFT
    )
