"""Preconditioned conjugate gradients for several right-hand sides at once."""

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


def conjugate_gradients(
    product: Operator,
    right: Tensor,
    precondition: Operator,
    *,
    tolerance: float,
    most_iterations: int,
) -> tuple[Tensor, list[float]]:
    """Solve with a symmetric positive definite operator.

    Args:
        product: Multiplies by the matrix.
        right: Right-hand sides, one in each column.
        precondition: Multiplies by something like the inverse.
        tolerance: Ends when each residual is below this share of its right-hand side.
        most_iterations: Ends in any case.

    Returns:
        The solutions, and after each iteration the largest share.

    """
    solution = torch.zeros_like(right)
    residual = right.clone()
    sizes = right.norm(dim=0).clamp_min(torch.finfo(right.dtype).tiny)
    direction = preconditioned = precondition(residual)
    alignment = (residual * preconditioned).sum(0)
    shares: list[float] = []
    while len(shares) < most_iterations and (not shares or shares[-1] > tolerance):
        image = product(direction)
        # Columns that are solved exactly have nothing left to divide by.
        curvature = (direction * image).sum(0)
        length = (alignment / curvature).nan_to_num()
        solution += length * direction
        residual -= length * image
        shares.append(float((residual.norm(dim=0) / sizes).max()))
        preconditioned = precondition(residual)
        before, alignment = alignment, (residual * preconditioned).sum(0)
        direction = preconditioned + (alignment / before).nan_to_num() * direction
    return solution, shares
