"""The example of a graph network: its graph, and that both libraries train the same."""

import pytest
import torch
from pictures import assert_is_picture

from examples.graph_network import __main__ as program
from examples.graph_network import data as photographs
from examples.graph_network.training import Outcome


def test_a_photograph_is_labelled_and_drawn(run_quickly):
    folder, printed = run_quickly("graph_network")
    assert_is_picture(folder / "graph_network.png")
    shares = [line.split("│")[3].strip() for line in printed.splitlines() if "%" in line]
    assert len(shares) == 2
    assert all(float(share.rstrip("%")) > 80 for share in shares)  # 97 % measured; chance is 25 %


def test_other_losses_are_an_error(tmp_path, monkeypatch):
    losses = iter([[1.0, 0.5], [1.0, 0.4]])
    labels = torch.zeros(54 * 80, dtype=torch.long)
    monkeypatch.setattr(program, "train", lambda *_: Outcome(next(losses), 1.0, 1, labels))
    monkeypatch.setattr(program.figures, "save_labels", lambda *_: None)
    with pytest.raises(SystemExit, match="the same losses"):
        program.main(["--quick", "--output", str(tmp_path)])


def test_edges_are_those_of_neighbours_both_ways():
    photograph = photographs.load(photographs.QUICK_STEP)
    height, width = photograph.shape
    assert photograph.edge_index.shape[1] == 2 * (height * (width - 1) + (height - 1) * width)
    rows, columns = photograph.edge_index // width, photograph.edge_index % width
    assert torch.equal(
        (rows.diff(dim=0).abs() + columns.diff(dim=0).abs()).unique(), torch.tensor([1])
    )
    edges = {tuple(edge) for edge in photograph.edge_index.T.tolist()}
    assert len(edges) == photograph.edge_index.shape[1]
    assert {(target, source) for source, target in edges} == edges


def test_strokes_to_learn_from_and_to_compare_with_are_apart():
    photograph = photographs.load(1)
    learned, held_out = (
        x != photographs.NOTHING for x in (photograph.learned, photograph.held_out)
    )
    assert not (learned & held_out).any()
    classes = torch.arange(len(photographs.CLASSES))
    for labels in (photograph.learned, photograph.held_out):
        assert torch.equal(labels[labels != photographs.NOTHING].unique(), classes)
    assert len(photograph.features) == photographs.WIDTH * photographs.HEIGHT
