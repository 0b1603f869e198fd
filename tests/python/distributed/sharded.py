"""Derivatives of products over ranks, put together."""

import matrices
import torch
from ranks import on_threads


def _on_rank(mesh, matrix, given, options):
    A = matrices.share(mesh, matrix, **options)
    return matrices.derivatives(A.mm, A.sddmm, matrices.of_rank(A, given))


def on_ranks(size, matrix, given, **options):
    """List products and derivatives as `matrices.derivatives` does, of so many ranks."""
    results = on_threads(size, _on_rank, matrix, given, options)
    return [torch.cat(parts) for parts in zip(*results, strict=True)]


def product_on_ranks(size, matrix, given, change=lambda B: B, **options):
    """Give the product of so many ranks, of strided values; rows of B may be changed before."""

    def product(mesh):
        A = matrices.share(mesh, matrix, **options)
        mine = matrices.of_rank(A, given)
        return A.mm(mine.values.repeat_interleave(2)[::2], change(mine.B))

    return torch.cat(on_threads(size, product))


def products_at_entries_on_ranks(size, matrix, given, **options):
    """Give C, and what is the same three times: the gradient of values alone and with that of B,
    and the sampled product with conj(B).
    """

    def products(mesh):
        A = matrices.share(mesh, matrix, **options)
        mine = matrices.of_rank(A, given)
        leaves = mine.values.requires_grad_(), mine.B.requires_grad_()
        C = A.mm(*leaves)
        (alone,) = torch.autograd.grad(C, leaves[0], mine.X, retain_graph=True)
        together, _ = torch.autograd.grad(C, leaves, mine.X)
        return C.detach(), alone, together, A.sddmm(mine.X, mine.B.detach().conj().resolve_conj())

    C, *others = (torch.cat(parts) for parts in zip(*on_threads(size, products), strict=True))
    return C, others
