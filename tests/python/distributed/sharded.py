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
