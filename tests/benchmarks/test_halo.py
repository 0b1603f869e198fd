"""The benchmarks of ranks: that they count what a sharded matrix does, and end with a table."""

import itertools
import sys

import pytest
import torch

from benchmarks.distributed import one_rank
from benchmarks.distributed.__main__ import halo_rows, main
from benchmarks.operator.timing import Pace
from benchmarks.operator.workloads import rmat


def test_the_halo_is_that_of_dense_matrices():
    problem = rmat(6, 200, 1)
    generator = torch.Generator().manual_seed(0)
    permutation = torch.randperm(64, generator=generator)
    row_starts = (0, 20, 20, 50, 64)
    needed = torch.sparse_csr_tensor(
        problem.crow_indices, problem.col_indices, torch.ones(problem.entries), problem.size
    ).to_dense()[permutation][:, permutation]
    expected = []
    for begin, end in itertools.pairwise(row_starts):
        columns = needed[begin:end].any(0)
        columns[begin:end] = False
        expected.append(int(columns.sum()))
    assert halo_rows(problem, permutation, row_starts) == expected


def test_a_table_of_each_matrix_is_printed(monkeypatch, capsys):
    pytest.importorskip("pymetis")
    monkeypatch.setattr(sys, "argv", ["benchmarks.distributed", "--size", "tiny"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert sum("METIS, 16" in line for line in lines) == 2


def test_one_rank_is_timed_beside_a_pattern(monkeypatch, capsys):
    monkeypatch.setattr(one_rank, "PROBLEMS", (((3, 3, 3), 2),))
    monkeypatch.setattr(one_rank, "PACE", Pace(0, 2, 2))
    one_rank.main()
    assert "| 27 rows, p = 2 |" in capsys.readouterr().out
