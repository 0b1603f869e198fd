"""The example of a photograph on four ranks: its graph, that it learns, and what it checks."""

import pytest
import torch
from pictures import assert_is_picture

from examples.colours.__main__ import Run, check, save_pictures
from examples.colours.photograph import edges, load
from examples.colours.train import train
from examples.threads import one_thread

PHOTOGRAPH = load(8)


@pytest.mark.parametrize("rows", [(0, None), (100, 300)])
def test_pixels_are_joined_to_those_around_them(rows):
    first, last = rows[0], rows[1] or PHOTOGRAPH.pixels
    crow_indices, col_indices, values = edges(PHOTOGRAPH, first, last, 2)
    pixels = torch.arange(PHOTOGRAPH.pixels)
    y, x = pixels // PHOTOGRAPH.width, pixels % PHOTOGRAPH.width
    distance = torch.maximum((y.view(-1, 1) - y).abs(), (x.view(-1, 1) - x).abs())
    near = (distance <= 2)[first:last]
    size = (last - first, PHOTOGRAPH.pixels)
    graph = torch.sparse_csr_tensor(crow_indices, col_indices, values, size).to_dense()
    assert torch.equal(graph > 0, near)
    brightness = PHOTOGRAPH.brightness.double()
    alike = torch.exp(-(((brightness[first:last] - brightness.T) / 0.05) ** 2)) + 1e-3
    alike *= near
    assert torch.allclose(graph.double(), alike / alike.sum(1, keepdim=True), atol=1e-6)


def test_colours_are_learned_and_disagreement_is_told(tmp_path):
    with one_thread():
        outcome = train(PHOTOGRAPH, None, 60)
    run = Run(outcome.losses, outcome.colours, [outcome.report])
    assert "Losses go from" in check(run, run, PHOTOGRAPH)
    save_pictures(tmp_path / "colours.png", PHOTOGRAPH, outcome.colours)
    assert_is_picture(tmp_path / "colours.png")
    losses = [*outcome.losses[:-1], outcome.losses[-1] * 1.001]
    with pytest.raises(SystemExit, match=r"the losses differ by 1\.0e-03"):
        check(run, run._replace(losses=losses), PHOTOGRAPH)
    with pytest.raises(SystemExit, match="the colours are not learned"):
        check(run, run._replace(colours=PHOTOGRAPH.colours * 0), PHOTOGRAPH)
