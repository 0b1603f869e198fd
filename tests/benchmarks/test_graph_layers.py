"""The times of graph layers: that they are taken, and that results that differ are found."""

import pytest

import spgrad.contrib.pyg
from benchmarks import graph_layers
from examples.threads import one_thread


def test_layers_are_timed_side_by_side(capsys):
    with one_thread():
        graph_layers.main(["--quick"])
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "Conv" in line]
    assert [row[1].strip() for row in rows] == list(graph_layers.LAYERS)
    for row in rows:
        ours, theirs, ratio = (float(cell.replace(",", "")) for cell in row[2:5])
        assert ratio == pytest.approx(theirs / ours, abs=0.06)


def test_results_that_differ_are_an_error(monkeypatch):
    layer = spgrad.contrib.pyg.GCNConv
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda *arguments: 1.01 * forward(*arguments))
    with pytest.raises(SystemExit, match="GCNConv should give the same"):
        graph_layers.main(["--quick"])
