"""The products that are compared."""

from dataclasses import dataclass

import torch
from torch import Tensor

import spgrad
from demo.memory import available_bytes
from demo.problem import Operands


@dataclass(frozen=True)
class Contender:
    """A library's product for one sparse layout; made of strings so that processes can pass it."""

    library: str
    layout: str
    # False for a contender whose gradient of A would not fit in memory: it then does the rest.
    differentiates_matrix: bool = True

    @property
    def name(self) -> str:
        """Return the library and the layout."""
        return f"{self.library} {self.layout}"

    def leaves(self, operands: Operands) -> tuple[Tensor, Tensor]:
        """Return A and B as tensors that record gradients."""
        matrix = operands.sparse(self.layout).requires_grad_(self.differentiates_matrix)
        return matrix, operands.dense.detach().requires_grad_()

    def multiply(self, matrix: Tensor, dense: Tensor) -> Tensor:
        """Return A B."""
        if self.library == "spgrad":
            return spgrad.sparse_mm(matrix, dense)
        product: Tensor = torch.sparse.mm(matrix, dense)
        return product


@dataclass(frozen=True)
class Results:
    """The product and its gradients; None for one that the contender does not compute."""

    product: Tensor
    matrix_gradient: Tensor | None
    dense_gradient: Tensor


def backward(product: Tensor, matrix: Tensor, dense: Tensor, product_gradient: Tensor) -> Results:
    """Return the product with the gradients of B and, where it records one, of A."""
    if matrix.requires_grad:
        return Results(product, *torch.autograd.grad(product, (matrix, dense), product_gradient))
    return Results(product, None, *torch.autograd.grad(product, (dense,), product_gradient))


def contenders_for(operands: Operands) -> list[Contender]:
    """List the contenders, and decide what torch.sparse.mm can do on COO.

    There it computes the dense `(n, m)` gradient of A and then picks the specified entries. It is
    asked to only if that takes a quarter of the available memory at most: the operands and results
    need room too, and so do other programs.
    """
    dense_fits = operands.dense_gradient_bytes <= available_bytes() / 4
    return [
        Contender("spgrad", "CSR"),
        Contender("torch.sparse.mm", "CSR"),
        Contender("spgrad", "COO"),
        Contender("torch.sparse.mm", "COO", differentiates_matrix=dense_fits),
    ]
