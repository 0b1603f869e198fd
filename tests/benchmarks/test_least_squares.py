"""The comparison of least squares: that its errors are errors, and what its tables say."""

import numpy as np
import pytest

from benchmarks.least_squares.__main__ import QUICK_PACE, compare, relative_error
from benchmarks.least_squares.contenders import SciPy, Spgrad, SpgradDirect
from benchmarks.least_squares.problems import problems


@pytest.fixture(scope="module")
def problem():
    return problems(quick=True)[-1]


def test_exact_solutions_are_those_of_dense_ones(problem):
    exact = problem.exact()
    dense = problem.A.toarray()
    pseudoinverse = np.linalg.pinv(dense)
    x, w = pseudoinverse @ problem.B, pseudoinverse.T @ problem.G
    dA = (problem.B - dense @ x) @ (pseudoinverse @ w).T - w @ x.T
    expected = {"x": x, "dA": dA[problem.rows, problem.A.indices], "dB": w}
    assert relative_error(exact, expected) < 1e-12
    assert relative_error(exact | {"dB": 2 * w}, expected) == pytest.approx(1)


def test_contenders_reach_the_error_and_are_listed(problem):
    table, wrong = compare(problem, (Spgrad(), SpgradDirect(), SciPy()), QUICK_PACE)
    assert not wrong
    title, _, _, _, ours, direct, theirs, _ = table.split("\n")
    assert title == f"### {problem.name}"
    _, name, forward, backward, *ratios, error, _ = (cell.strip() for cell in ours.split("|"))
    assert name == "spgrad"
    assert min(float(forward), float(backward)) > 0
    assert ratios == ["", ""]
    assert float(error) <= 1e-9
    assert direct.startswith('| spgrad, `method="direct"` | ')
    assert direct.count("×") == 2
    assert theirs.startswith("| SciPy | ")
    assert theirs.count("×") == 2


def test_a_wrong_gradient_is_told(problem, monkeypatch):
    prepare = Spgrad.prepare

    def spoiled(self, problem, tolerance):
        solve, differentiate = prepare(self, problem, tolerance)
        return solve, lambda: (2 * differentiate()[0], differentiate()[1])

    monkeypatch.setattr(Spgrad, "prepare", spoiled)
    table, wrong = compare(problem, (Spgrad(), SciPy()), QUICK_PACE)
    assert wrong == [f"{problem.name}: reaches an error of 1e+00 only"]
    assert "| spgrad | reaches an error of 1e+00 only |" in table
