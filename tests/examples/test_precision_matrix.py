"""The example of a random field: its likelihood and its samples beside dense arithmetic."""

import math

import pytest
import torch
from pictures import assert_is_picture
from torch.distributions import MultivariateNormal

from examples.conjugate_gradients import conjugate_gradients
from examples.precision_matrix import posterior
from examples.precision_matrix.data import Measurements
from examples.precision_matrix.field import Field


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def data():
    """Make up 4 × 5 pixels, of which a quarter was not seen."""
    disparity, color = (
        torch.rand(20, *shape, generator=seeded(), dtype=torch.float64) for shape in ((), (3,))
    )
    is_seen = torch.arange(20) % 4 != 2
    return Measurements(4, 5, disparity, color, is_seen, ~is_seen)


def field_of(data):
    """Make a field, and its precision matrix as a dense one."""
    torch.manual_seed(0)
    field = Field(data, uses_colors=True).double()
    values, _ = field.values()
    indices, factor = field.pattern.indices(), torch.zeros(20, 20).double()
    for entry, value in zip(indices.T.tolist(), values.tolist(), strict=True):
        factor[tuple(entry)] += value
    return field, factor.T @ factor


def test_the_field_is_fitted_and_drawn(run_quickly):
    folder, _ = run_quickly("precision_matrix")
    assert_is_picture(folder / "precision_matrix.png")


def test_the_likelihood_is_that_of_the_dense_precision_matrix(data):
    field, precision = field_of(data)
    field.is_complete[:] = True
    expected = MultivariateNormal(torch.zeros(20).double(), precision_matrix=precision)
    log_likelihood = -20 * field.negative_log_likelihood(data.disparity)
    torch.testing.assert_close(log_likelihood, expected.log_prob(data.disparity))


def test_only_rows_that_were_seen_count(data):
    field, _ = field_of(data)
    spoiled = data.disparity.where(data.is_seen, 100)
    losses = [field.negative_log_likelihood(x) for x in (data.disparity, spoiled)]
    assert losses[0] == losses[1]
    assert 0 < field.is_complete.sum() < data.is_seen.sum()


def test_samples_have_the_moments_of_the_dense_posterior(data):
    field, precision = field_of(data)
    number = 20_000
    result = posterior.sample(field, data, number, seeded())
    free, seen = ~data.is_seen, data.is_seen
    covariance = precision[free][:, free].inverse()
    mean = -covariance @ precision[free][:, seen] @ data.disparity[seen]
    torch.testing.assert_close(result.mean[free], mean, atol=1e-3, rtol=0)
    assert torch.equal(result.mean[seen], data.disparity[seen])
    scale = covariance.diagonal().max()
    torch.testing.assert_close(
        result.samples[free].cov(), covariance, atol=8 * scale.item() / math.sqrt(number), rtol=0
    )


def test_conjugate_gradients_solve_all_columns():
    matrix = torch.randn(12, 12, generator=seeded(), dtype=torch.float64)
    matrix = matrix @ matrix.T + torch.eye(12)
    right = torch.randn(12, 3, generator=seeded(), dtype=torch.float64)
    right[:, 1] = 0
    diagonal = matrix.diagonal().unsqueeze(1)
    solution, shares = conjugate_gradients(
        lambda x: matrix @ x,
        right,
        lambda x: x / diagonal,
        tolerance=1e-10,
        most_iterations=50,
    )
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, right))
    assert shares[-1] <= 1e-10 < shares[-2]
