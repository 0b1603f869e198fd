"""What the field says of pixels that were not seen: samples, by conjugate gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from examples.conjugate_gradients import conjugate_gradients
from examples.precision_matrix.data import Measurements
from examples.precision_matrix.field import Field

TOLERANCE = 1e-4
MOST_ITERATIONS = 2000


@dataclass(frozen=True)
class Posterior:
    """Of each pixel, also of those that were seen."""

    mean: Tensor
    samples: Tensor
    """Shape ``(pixels, samples)``."""
    iterations: int


@torch.no_grad()
def sample(field: Field, data: Measurements, number: int, generator: torch.Generator) -> Posterior:
    """Solve for the mean and for samples, all at once as columns of one matrix.

    A solution whose right-hand side has ``F.T @ z`` with standard normal ``z`` added is a sample:
    the covariance of ``F.T @ z`` is the precision matrix.
    """
    values, _ = field.values()
    values = values.double()
    pattern, free = field.pattern, (~data.is_seen).double().unsqueeze(1)

    def precision(x: Tensor) -> Tensor:
        return free * pattern.mm_transposed(values, pattern.mm(values, free * x))

    known = data.disparity.double().where(data.is_seen, 0).unsqueeze(1)
    noise = torch.randn(len(known), number + 1, generator=generator, dtype=torch.float64)
    noise[:, 0] = 0
    right = free * pattern.mm_transposed(values, noise - pattern.mm(values, known))
    diagonal = pattern.mm_transposed(values.square(), torch.ones_like(known))
    solution, shares = conjugate_gradients(
        precision,
        right,
        lambda residual: residual / diagonal,
        tolerance=TOLERANCE,
        most_iterations=MOST_ITERATIONS,
    )
    solution += known
    return Posterior(solution[:, 0], solution[:, 1:], len(shares))
