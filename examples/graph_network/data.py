"""The graph: pixels of a photograph with their neighbours, and strokes that label a few."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

QUICK_STEP = 8
WIDTH, HEIGHT = 640, 427
CLASSES = ("sky", "pavilion", "trees", "water")
# Ends of strokes, as column and row of the photograph.
LEARNED = (
    (((20, 30), (180, 40)), ((300, 40), (620, 100))),
    (((213, 70), (213, 390)), ((110, 222), (330, 218))),
    (((350, 365), (520, 395)), ((595, 200), (600, 410)), ((15, 195), (15, 260))),
    (((410, 222), (530, 225)), ((455, 280), (530, 310))),
)
HELD_OUT = (
    (((40, 100), (110, 140)), ((430, 50), (560, 20))),
    (((225, 300), (290, 300)), ((140, 160), (200, 160))),
    (((360, 395), (460, 412)), ((608, 240), (632, 300))),
    (((430, 250), (540, 280)),),
)
NOTHING = -1


@dataclass(frozen=True)
class Photograph:
    """One row for each pixel, and an edge to each of its four neighbours."""

    shape: tuple[int, int]
    features: Tensor
    """Colour and place, of shape ``(pixels, 5)``, from -1 to 1."""
    edge_index: Tensor
    learned: Tensor
    """The class of each pixel under a stroke to learn from, elsewhere ``NOTHING``."""
    held_out: Tensor
    """The same of the strokes to compare with."""

    def picture(self) -> Tensor:
        """Give the colours as a picture, from 0 to 1."""
        return self.features[:, :3].view(*self.shape, 3) / 2 + 0.5


def load(step: int) -> Photograph:
    """Load every few pixels of the photograph."""
    photograph = torch.from_numpy(load_sample_image("china.jpg").copy())[::step, ::step]
    height, width, _ = photograph.shape
    rows, columns = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    colors = photograph / 127.5 - 1
    features = torch.cat([colors, rows.unsqueeze(-1), columns.unsqueeze(-1)], dim=-1)
    return Photograph(
        (height, width),
        features.flatten(0, 1),
        _neighbours(height, width),
        *(_labels(strokes, step, height, width) for strokes in (LEARNED, HELD_OUT)),
    )


def _neighbours(height: int, width: int) -> Tensor:
    pixels = torch.arange(height * width).view(height, width)
    across = torch.stack([pixels[:, :-1].flatten(), pixels[:, 1:].flatten()])
    down = torch.stack([pixels[:-1].flatten(), pixels[1:].flatten()])
    one_way = torch.cat([across, down], dim=1)
    return torch.cat([one_way, one_way.flip(0)], dim=1)


def _labels(
    strokes: tuple[tuple[tuple[tuple[int, int], tuple[int, int]], ...], ...],
    step: int,
    height: int,
    width: int,
) -> Tensor:
    """Draw the strokes of each class, one pixel wide."""
    labels = torch.full((height, width), NOTHING)
    for label, ends in enumerate(strokes):
        for first, last in ends:
            start, end = torch.tensor(first), torch.tensor(last)
            places = start + torch.linspace(0, 1, 800).unsqueeze(1) * (end - start)
            columns, rows = (places / step).long().T
            labels[rows.clamp(max=height - 1), columns.clamp(max=width - 1)] = label
    return labels.flatten()
