"""The example of a learned preconditioner: beside dense arithmetic and the best factor there is."""

import pytest
import torch
from pictures import assert_is_picture

from examples.preconditioner import problem as plate
from examples.preconditioner.factor import Factor

CELLS = 7


def dense_of(factor):
    pattern = factor.pattern
    return torch.sparse_coo_tensor(
        pattern.indices(), factor.values.detach(), pattern.shape, check_invariants=True
    ).to_dense()


def loss_of(factor, matrix):
    factor = factor.double()
    return (factor @ matrix @ factor.T).trace() / 36 - 2 * factor.diagonal().abs().log().mean()


def test_learned_factors_are_compared_and_drawn(run_quickly):
    folder, _ = run_quickly("preconditioner")
    assert_is_picture(folder / "preconditioner.png")


def test_a_plate_of_one_conductivity_has_the_stencil_of_five_points(monkeypatch):
    monkeypatch.setattr(plate, "CONTRAST", 1)
    matrix = torch.from_numpy(plate.assemble(CELLS).matrix.toarray())
    inner = CELLS - 1
    line = torch.eye(inner).double() / 2
    line[range(inner - 1), range(1, inner)] = line[range(1, inner), range(inner - 1)] = -0.25
    identity = torch.eye(inner).double()
    torch.testing.assert_close(matrix, torch.kron(line, identity) + torch.kron(identity, line))


@pytest.mark.parametrize("power", [1, 2])
def test_the_learned_factor_is_the_best_of_its_pattern(power):
    problem = plate.assemble(CELLS)
    matrix = torch.from_numpy(problem.matrix.toarray())
    factor = Factor(problem, power)
    places = torch.linalg.matrix_power(matrix.abs(), power).tril() != 0
    assert torch.equal(dense_of(factor), torch.eye(len(matrix)).double())
    losses = factor.learn(problem, 200, torch.Generator().manual_seed(0))
    assert losses[-1] < losses[0]
    # Row by row, the inverse of a small dense matrix gives the minimum.
    best = torch.zeros_like(matrix)
    for row, kept in enumerate(places):
        column = matrix[kept][:, kept].inverse()[:, -1]
        best[row, kept] = column / column[-1].sqrt()
    learned, least, first = (loss_of(x, matrix) for x in (dense_of(factor), best, torch.eye(36)))
    assert least <= learned < least + 0.02 * (first - least)
    residual = torch.randn(len(matrix), 2, generator=torch.Generator().manual_seed(1)).double()
    dense = dense_of(factor)
    torch.testing.assert_close(factor.precondition(residual), dense.T @ dense @ residual)
