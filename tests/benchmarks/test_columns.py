"""The benchmark by the number of columns of B."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.operator import columns
from benchmarks.operator.workloads import stencil

if TYPE_CHECKING:
    from pathlib import Path


def test_both_gradients_move_a_b_and_g_and_what_they_write():
    problem = stencil((5, 4, 3), 2).to(torch.float32)
    n, nnz = 60, problem.entries
    assert columns.backward_bytes(problem) == 4 * ((n + 1) + nnz + 2 * nnz + 3 * 2 * n)


def test_it_prints_a_row_for_each_number_of_columns_and_draws_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    picture = tmp_path / "columns.png"
    columns.main(["--quick", "--columns", "1", "3", "--picture", str(picture)])
    lines = capsys.readouterr().out.splitlines()
    titles = [line.strip() for line in lines if line.strip().endswith(", ms")]
    assert titles == [f"{matrix}, ms" for matrix in columns.matrices(quick=True)]
    assert [line.split()[1] for line in lines if line.startswith("│")] == ["1", "3"] * len(titles)
    assert picture.stat().st_size > 0


def test_a_wrong_result_ends_it(monkeypatch: pytest.MonkeyPatch):
    problem = stencil((5, 4, 3), 2).to(torch.float32)
    multiply = columns.spgrad.csr_mm
    monkeypatch.setattr(columns.spgrad, "csr_mm", lambda *operands: multiply(*operands) * 1.01)
    with pytest.raises(SystemExit, match="wrong result"):
        columns.checked_calls(problem)
