"""A sparse factor of the inverse, learned through products with random vectors.

With a lower triangular ``G``, the preconditioner is ``G.T @ G``, and conjugate gradients see the
matrix ``G A G.T``. Its trace less its log-determinant is the smallest where ``G`` is the best of
its pattern (Kaporin, "New convergence results and preconditioning strategies for the conjugate
gradient method", 1994). The trace is the mean of ``z.T G A G.T z`` over random signs ``z``, and the
determinant is a product of numbers on the diagonal: no inverse and no dense matrix is needed.
"""

import math

import scipy.sparse
import torch
from torch import Tensor

from examples.preconditioner.problem import Problem, pattern_of

# Random vectors of one step.
VECTORS = 32
LEARNING_RATE = 0.02


class Factor:
    """The entries of ``G``, at first those of the identity."""

    def __init__(self, problem: Problem, power: int) -> None:
        """Take the places of the lower triangle of a power of the matrix."""
        # Of magnitudes, so that no sum is zero by chance.
        places = magnitudes = abs(problem.matrix)
        for _ in range(power - 1):
            places = places @ magnitudes
        lower = scipy.sparse.tril(places).tocsr()
        lower.sort_indices()
        self.pattern = pattern_of(lower)
        rows, columns = self.pattern.indices()
        self.is_diagonal = rows == columns
        self.values = torch.nn.Parameter(self.is_diagonal.double())

    def learn(self, problem: Problem, steps: int, generator: torch.Generator) -> list[float]:
        """Learn the entries, and return the loss of each step."""
        pattern, entries = problem.operator()
        size = len(problem.right)
        optimizer = torch.optim.Adam([self.values], lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        losses = []
        for _ in range(steps):
            signs = torch.randint(0, 2, (size, VECTORS), generator=generator).double() * 2 - 1
            image = self.pattern.mm_transposed(self.values, signs)
            trace = (image * pattern.mm(entries, image)).sum() / (size * VECTORS)
            loss = trace - 2 * self.values[self.is_diagonal].abs().log().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                message = f"the loss should be finite, but is {losses[-1]}"
                raise SystemExit(message)
        return losses

    @torch.no_grad()
    def precondition(self, residual: Tensor) -> Tensor:
        """Multiply by ``G.T @ G``."""
        return self.pattern.mm_transposed(self.values, self.pattern.mm(self.values, residual))
