"""The times of graph networks: that they are taken, and that results that differ are found."""

import pytest

import spgrad
from benchmarks.graphs import __main__ as graphs
from benchmarks.graphs import layers, products
from examples.threads import one_thread


def test_each_row_is_timed_beside_others(capsys):
    with one_thread():
        graphs.main(["--quick"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    timed = [row for row in cells if row[4]]  # the others go on with a name
    names = [row[0].split(",")[0] for row in timed]
    assert names[-3:] == list(layers.LAYERS)
    assert all(names.count(reduce) == 2 for reduce in products.REDUCTIONS)
    assert len(names) == 15
    for row in timed:
        ours, theirs, ratio = (float(row[i].replace(",", "")) for i in (1, 3, 4))
        assert ratio == pytest.approx(theirs / ours, rel=0.12)  # of numbers of two digits


def test_results_that_differ_are_an_error(monkeypatch):
    mm = spgrad.Pattern.mm

    def wrong(self, values, B):
        return mm(self, values, B) * (1.01 if B.dim() == 2 else 1)

    monkeypatch.setattr(spgrad.Pattern, "mm", wrong)
    with pytest.raises(SystemExit, match="8 heads, p = 32 should give the same as 8 calls"):
        graphs.main(["--quick", "--only", "products"])
