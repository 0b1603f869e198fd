"""Matrices for ranks, what one process says of their products, and what the ranks say."""

import itertools
from typing import NamedTuple

import oracle
import torch

import spgrad


class Matrix(NamedTuple):
    """CSR, as plain tensors."""

    crow_indices: torch.Tensor
    col_indices: torch.Tensor
    shape: tuple[int, int]

    @property
    def nnz(self):
        return len(self.col_indices)

    def dense(self, values):
        rows = torch.repeat_interleave(torch.arange(self.shape[0]), self.crow_indices.diff())
        matrix = values.new_zeros(self.shape)
        return matrix.index_put((rows, self.col_indices), values, accumulate=True)


def random(n, m, nnz, seed=0):
    """Make a matrix whose columns are in no order, some of them more than once in a row."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(max(n * m, 1), (nnz,), generator=generator)
    rows = (places // max(m, 1)).sort().values
    return _with_rows(rows, places % max(m, 1), (n, m))


def in_any_order(matrix):
    """Number the rows and columns of each half of a square matrix anew."""
    n = matrix.shape[0]
    generator = torch.Generator().manual_seed(0)
    halves = [torch.randperm(size, generator=generator) for size in (n // 2, n - n // 2)]
    places = torch.cat([halves[0], n // 2 + halves[1]])
    rows = places[torch.repeat_interleave(torch.arange(n), matrix.crow_indices.diff())]
    order = rows.argsort(stable=True)
    return _with_rows(rows[order], places[matrix.col_indices][order], matrix.shape)


def _with_rows(rows, columns, shape):
    counts = torch.bincount(rows, minlength=shape[0])
    return Matrix(torch.cat([torch.zeros(1).long(), counts.cumsum(0)]), columns, shape)


def grid(side):
    """Make the five-point stencil of a square grid."""
    numbers = torch.arange(side * side).view(side, side)
    pairs = [(numbers, numbers)]
    for a, b in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
        pairs += [(a, b), (b, a)]
    rows = torch.cat([a.flatten() for a, _ in pairs])
    columns = torch.cat([b.flatten() for _, b in pairs])
    order = (rows * side * side + columns).argsort()
    return _with_rows(rows, columns[order], (side * side, side * side))


MATRICES = {
    "grid": grid(6),
    "grid in any order": in_any_order(grid(6)),
    "random": random(50, 37, 300),
    "more ranks than rows": random(2, 9, 8),
    "no rows": random(0, 5, 0),
    "no columns": random(5, 0, 0),
    "no entries": random(7, 6, 0),
    "no halo": Matrix(torch.arange(17), torch.arange(16), (16, 16)),
    "a long row": random(3, 40, 15_000),
}


def pieces(starts, tensor):
    """Cut a tensor where ranks begin."""
    return [tensor[begin:end] for begin, end in itertools.pairwise(starts)]


def share(mesh, matrix, row_starts=None, column_starts=None, **options):
    """Make the sharded matrix of this rank out of its rows."""
    rank, size = mesh.get_local_rank(0), mesh.size(0)
    n = matrix.shape[0]
    row_starts = row_starts or [min(k * -(-n // size), n) for k in range(size + 1)]
    begin, end = row_starts[rank : rank + 2]
    if column_starts is not None:
        options["own_columns"] = column_starts[rank + 1] - column_starts[rank]
    offsets = matrix.crow_indices[begin : end + 1]
    columns = matrix.col_indices[int(offsets[0]) : int(offsets[-1])]
    return spgrad.distributed.RowSharded.from_local(
        offsets - offsets[0], columns, matrix.shape, mesh, **options
    )


class Operands(NamedTuple):
    """What a product takes, and factors of its result and gradients in a loss."""

    values: torch.Tensor
    B: torch.Tensor
    X: torch.Tensor
    of_values: torch.Tensor
    of_B: torch.Tensor  # noqa: N815 - B is the name of a matrix


def of_rank(A, given):
    """Cut operands for the rank of a sharded matrix."""
    rank = A._built.ranks.rank
    starts = (A.entry_starts, A.column_starts, A.row_starts, A.entry_starts, A.column_starts)
    return Operands(*(pieces(start, part)[rank] for start, part in zip(starts, given, strict=True)))


def operands(matrix, p, make=oracle.integers, **options):
    """Make operands of small integers, whose sums are exact, or as another function makes them."""
    n, m = matrix.shape
    sizes = ((matrix.nnz,), (m, p), (n, p), (matrix.nnz,), (m, p))
    return Operands(*(make(*size, seed=seed, **options) for seed, size in enumerate(sizes)))


def floats(*size, dtype=torch.float32, seed=0):
    """Make numbers whose sums are rounded."""
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def derivatives(mm, sddmm, given):
    """List products, gradients and second derivatives of both products.

    The loss is linear in the results, and so is what is derived again: sums over ranks are sums of
    what each rank derives from its own part.
    """
    values, B, X = (tensor.detach().clone().requires_grad_() for tensor in given[:3])

    def first_and_second(product, operands, of_product, factors):
        first = torch.autograd.grad(product, operands, of_product, create_graph=True)
        second = torch.autograd.grad(first, (*operands, of_product), factors)
        return [product, *first, *second]

    of_C = X.detach().clone().requires_grad_()
    of_d = given.of_values.clone().requires_grad_()
    of_X = X.detach()
    results = first_and_second(mm(values, B), (values, B), of_C, (given.of_values, given.of_B))
    results += first_and_second(sddmm(X, B), (X, B), of_d, (of_X, given.of_B))
    return [result.detach() for result in results]


def derivatives_of_dense(matrix, given):
    """List the same of a dense matrix."""
    rows = torch.repeat_interleave(torch.arange(matrix.shape[0]), matrix.crow_indices.diff())
    return derivatives(
        lambda values, B: matrix.dense(values) @ B,
        lambda X, Y: (X @ Y.mT)[rows, matrix.col_indices],
        given,
    )
