"""Heads, batches, vectors, reductions, sampled products and softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch_geometric.utils import scatter

import spgrad
from benchmarks.graphs.rows import Row, forward, forward_and_backward
from benchmarks.operator.layouts import coo_tensor, csr_tensor
from benchmarks.operator.workloads import rmat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from benchmarks.operator.problem import Problem
    from spgrad._products import Reduce

HEADS, ITEMS, COLUMNS = 8, 16, 32
# Of PyTorch and spgrad, and of PyTorch Geometric.
REDUCTIONS: dict[Reduce, str] = {"mean": "mean", "amax": "max", "amin": "min"}


def rows(*, quick: bool) -> Iterator[Row]:
    """Make the rows: on random entries, 10 in each of 50,000 rows, and on a power-law graph."""
    n = 500 if quick else 50_000
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    col_indices = torch.randint(n, (10 * n,), generator=generator, dtype=torch.int32)
    crow_indices = 10 * torch.arange(n + 1, dtype=torch.int32)
    pattern = spgrad.Pattern.from_csr(crow_indices, col_indices, (n, n))
    heads = leaf(HEADS, pattern.nnz), leaf(HEADS, n, COLUMNS)
    yield _of_items(f"{HEADS} heads", pattern, *heads)
    values = leaf(pattern.nnz)
    yield _of_items(f"one matrix, {ITEMS} B", pattern, values, leaf(ITEMS, n, COLUMNS))
    yield _vector(pattern, values, leaf(n))

    scale, draws = (9, 5_000) if quick else (17, 1_250_000)
    graph = rmat(scale, draws, 2 * COLUMNS).to(torch.float32)
    for reduce in REDUCTIONS:
        yield _reduction(graph, reduce)
    yield from _sampled_products(graph)
    yield _softmax(graph)


def _of_items(name: str, pattern: spgrad.Pattern, values: Tensor, B: Tensor) -> Row:
    """Make a row of one product with leading dimensions, beside a call for each item."""

    def by_calls() -> Tensor:
        items = zip(values.expand(len(B), -1), B, strict=True)
        return torch.stack([pattern.mm(*item) for item in items])

    leaves = (values, B)
    return Row(
        f"{name}, p = {COLUMNS}",
        forward_and_backward(lambda: pattern.mm(values, B), leaves),
        {f"{len(B)} calls": forward_and_backward(by_calls, leaves)},
    )


def _vector(pattern: spgrad.Pattern, values: Tensor, b: Tensor) -> Row:
    leaves = (values, b)
    return Row(
        "vector",
        forward_and_backward(lambda: pattern.mm(values, b), leaves),
        {
            "matrix of one column": forward_and_backward(
                lambda: pattern.mm(values, b.unsqueeze(-1)).squeeze(-1), leaves
            )
        },
    )


def _reduction(graph: Problem, reduce: Reduce) -> Row:
    # With int32, PyTorch's gradient of B is wrong (2.15): it multiplies rows by columns in them.
    A = csr_tensor(graph, torch.int64).requires_grad_()
    B = graph.B.clone().requires_grad_()
    values = graph.values.clone().requires_grad_()
    targets, sources = graph.row_indices(), graph.col_indices

    def by_scatter() -> Tensor:
        messages = values.unsqueeze(-1) * B[sources]
        result: Tensor = scatter(messages, targets, 0, graph.size[0], REDUCTIONS[reduce])
        return result

    leaves = (A, B)
    return Row(
        f"{reduce}, graph, p = {graph.columns}",
        forward_and_backward(lambda: spgrad.sparse_mm(A, B, reduce=reduce), leaves),
        {
            "torch.sparse.mm": forward_and_backward(lambda: torch.sparse.mm(A, B, reduce), leaves),
            "PyTorch Geometric": forward_and_backward(by_scatter, (values, B)),
        },
    )


def _sampled_products(graph: Problem) -> Iterator[Row]:
    A = csr_tensor(graph, torch.int32)
    X, Y = (operand.clone().requires_grad_() for operand in (graph.G, graph.B))
    name = f"sddmm, graph, p = {graph.columns}"

    def ours() -> Tensor:
        return spgrad.sddmm(A, X, Y).values()

    def theirs() -> Tensor:
        products: Tensor = torch.sparse.sampled_addmm(A, X, Y.mT, beta=0)
        return products.values()

    other = "torch.sparse.sampled_addmm"
    yield Row(f"{name}, forward", forward(ours), {other: forward(theirs)})
    both = (forward_and_backward(function, (X, Y)) for function in (ours, theirs))
    yield Row(name, next(both), {other: next(both)})


def _softmax(graph: Problem) -> Row:
    pattern = spgrad.Pattern(csr_tensor(graph, torch.int32))
    values = graph.values.clone().requires_grad_()
    A = coo_tensor(graph, coalesced=True).requires_grad_()
    return Row(
        "softmax of rows, graph",
        forward_and_backward(lambda: pattern.softmax(values), (values,)),
        {
            "torch.sparse.softmax": forward_and_backward(
                lambda: torch.sparse.softmax(A, 1).coalesce().values(), (A,)
            )
        },
    )
