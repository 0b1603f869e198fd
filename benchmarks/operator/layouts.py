"""A problem's matrix as sparse tensors of PyTorch, and the entries of their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from benchmarks.operator.problem import Problem


def csr_tensor(problem: Problem, index_dtype: torch.dtype) -> Tensor:
    """Make A as CSR, with memory of its own."""
    return torch.sparse_csr_tensor(
        problem.crow_indices.to(index_dtype, copy=True),
        problem.col_indices.to(index_dtype, copy=True),
        problem.values.clone(),
        problem.shape,
        check_invariants=False,
    )


def coo_tensor(problem: Problem, *, coalesced: bool) -> Tensor:
    """Make A as sorted COO without duplicates; ``coalesced`` says whether its flag is set."""
    items = problem.items()
    pairs = [torch.stack([item.row_indices(), item.col_indices]) for item in items]
    indices = torch.cat(pairs, dim=1)
    if problem.batch is not None:
        number = torch.arange(problem.batch, device=indices.device)
        number = number.repeat_interleave(pairs[0].size(1))
        indices = torch.cat([number[None], indices])
    return torch.sparse_coo_tensor(
        indices,
        problem.values.flatten().clone(),
        problem.shape,
        is_coalesced=coalesced,
        check_invariants=False,
    )


def specified(tensor: Tensor) -> Tensor:
    """Give the values of a sparse tensor, and a dense tensor as it is; both share its memory."""
    if tensor.layout == torch.sparse_coo:
        return tensor.detach()._values()  # noqa: SLF001 - values() refuses the unflagged
    if tensor.layout == torch.sparse_csr:
        return tensor.detach().values()
    return tensor.detach()


def entries_of(gradients: tuple[Tensor, ...]) -> Tensor:
    """Put the values of gradients one after the other."""
    return torch.cat([specified(gradient).flatten() for gradient in gradients])


def same_places(gradient: Tensor, leaf: Tensor) -> bool:
    """Say whether a gradient has the layout of its leaf, and entries at the same places."""
    if gradient.layout != leaf.layout:
        return False
    if leaf.layout == torch.sparse_coo:
        return torch.equal(gradient._indices(), leaf._indices())  # noqa: SLF001
    if leaf.layout == torch.sparse_csr:
        return torch.equal(gradient.crow_indices(), leaf.crow_indices()) and torch.equal(
            gradient.col_indices(), leaf.col_indices()
        )
    return True
