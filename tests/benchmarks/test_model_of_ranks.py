"""The model of a step on ranks: that it counts what a sharded matrix has, and adds it up."""

import dataclasses
import itertools
import sys

import pytest
import torch

from benchmarks.distributed import scaling, validate
from benchmarks.distributed.__main__ import order_of_matrix
from benchmarks.distributed.model import Costs, Rank, step_seconds
from benchmarks.operator.workloads import rmat, stencil

COSTS = Costs(
    forward=3, gradients=5, copied=1 / 8, moved=1 / 16, agreement=100, exchange=1000, byte=0
)


@pytest.mark.parametrize(("in_runs", "of_halo", "of_rows"), [(False, 0.5, 0.5), (True, 0.25, 0)])
def test_a_step_is_what_its_parts_take(in_runs, of_halo, of_rows):
    rank = Rank(
        entries=10,
        boundary_entries=4,
        boundary_rows=2,
        own_rows=3,
        in_runs=in_runs,
        sent=1,
        received=1,
    )
    # Four bytes a row, with one column: half a second. Exchanges are longer than the interior.
    copies = 0.5 * 1 + of_halo * 3 + of_rows * 2 + of_halo * 3 + 0.5 * 1
    assert step_seconds(rank, 1, COSTS) == 2 * 100 + 2 * 1000 + (3 + 5) * 4 + copies
    hidden = dataclasses.replace(COSTS, exchange=17)  # between 3 × 6 and 5 × 6, and what follows
    assert step_seconds(rank, 1, hidden) == 2 * 100 + (3 + 5) * 10 + copies
    longer = dataclasses.replace(hidden, byte=1)  # four bytes on the link, each way
    assert step_seconds(rank, 1, longer) == 2 * 100 + 21 + 30 + (3 + 5) * 4 + copies


def test_the_slowest_rank_counts():
    told = [
        {"counts": vars(scaling.of_box(rows, 27)), "costs": vars(COSTS)} for rows in (125, 1000, 8)
    ]
    expected = step_seconds(scaling.of_box(1000, 27), 3, COSTS)
    assert validate.modelled(told, 3) == expected


def boxes_of_cube(cuts, side):
    """Order the nodes of a grid by boxes of that side."""
    grid = torch.arange(side**3 * cuts**3).view([cuts * side] * 3)
    parts = grid.unfold(0, side, side).unfold(1, side, side).unfold(2, side, side)
    n = grid.numel()
    starts = tuple(range(0, n + 1, side**3))
    return stencil((cuts * side,) * 3, 1), (parts.reshape(n), starts)


def test_boxes_have_what_a_stencil_in_boxes_has():
    problem, cut = boxes_of_cube(3, 5)
    parts = scaling.counted(problem, *cut, in_runs=True)
    inner = parts[13]
    expected = scaling.of_box(5**3, 27)
    assert dataclasses.replace(inner, sent=0) == dataclasses.replace(expected, sent=0)
    # An own row goes to each rank that needs it, and as many come back in all.
    assert sum(part.sent for part in parts) == sum(part.received for part in parts)
    assert inner.sent == 7**3 - 5**3


def test_rows_in_order_have_what_a_stencil_in_order_has():
    # Of 27 ranks, each has some layers of 9 × 9 nodes, or a part of one.
    problem = stencil((9, 9, 9), 1)
    parts = scaling.counted(problem, *order_of_matrix(problem, 27), in_runs=True)
    inner, expected = parts[13], scaling.in_order(27, 27)
    assert inner.boundary_rows == expected.boundary_rows == 27
    # Rows at the edge of the grid need less.
    assert 0.8 * expected.received < inner.received <= expected.received


def test_counts_of_a_graph_are_those_of_dense_matrices():
    problem = rmat(6, 200, 1)
    permutation = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    row_starts = (0, 20, 20, 50, 64)
    dense = torch.sparse_csr_tensor(
        problem.crow_indices, problem.col_indices, torch.ones(problem.entries), problem.size
    ).to_dense()[permutation][:, permutation]
    for number, part in enumerate(scaling.counted(problem, permutation, row_starts, in_runs=False)):
        begin, end = row_starts[number : number + 2]
        rows = dense[begin:end] != 0
        outside = rows.clone()
        outside[:, begin:end] = False
        boundary = outside.any(1)
        others = [
            dense[first:last, begin:end].any(0).sum()
            for first, last in itertools.pairwise(row_starts)
            if first != begin or last != end
        ]
        assert part == Rank(
            entries=int(rows.sum()),
            boundary_entries=int(rows[boundary].sum()),
            boundary_rows=int(boundary.sum()),
            own_rows=int(rows[boundary][:, begin:end].any(0).sum()),
            in_runs=False,
            sent=int(sum(others)),
            received=int(outside.any(0).sum()),
        )


def test_boxes_are_close_to_cubes():
    assert scaling.boxes(8) == (2, 2, 2)
    assert scaling.boxes(1024) == (8, 8, 16)
    assert scaling.boxes(7) == (1, 1, 7)


def test_one_rank_loses_nothing():
    part = scaling.of_box(1000, 1)
    assert part == Rank(27_000, 0, 0, 0, True, 0, 0)
    free = dataclasses.replace(COSTS, agreement=0, exchange=0)
    assert scaling.efficiency([part], 27_000, free) == 1


def test_the_simulation_says_what_it_is(monkeypatch, capsys):
    pytest.importorskip("pymetis")
    monkeypatch.setattr(scaling, "processor_costs", lambda: dataclasses.replace(COSTS, byte=1))
    monkeypatch.setattr(scaling, "factor_of_metis", lambda: 1.25)
    monkeypatch.setattr(scaling, "of_graphs", lambda *_: [("graph", "1 %")])
    monkeypatch.setattr(sys, "argv", ["scaling", "--graphs", "8"])
    scaling.main()
    text = capsys.readouterr().out
    assert "| simulated efficiency, ranks | 8 |" in text
    assert "1.25 times the halo of boxes" in text
    assert text.count("stencil") == 6
