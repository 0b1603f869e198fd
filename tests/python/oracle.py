"""Sparse matrices of every kind, and what dense float64 arithmetic says about their products.

All numbers are small integers unless a test says otherwise. Sums of them are exact in float32 too,
so that results are compared for equality.
"""

from math import prod

import torch

# COO with and without PyTorch's coalesced flag, both sorted and without duplicates; COO in no order
# and with duplicates; CSR with each index dtype.
KINDS = ("coalesced", "unflagged", "uncoalesced", "csr32", "csr64")
DTYPES = (torch.float32, torch.float64)

PLAIN = (4, 5)
BATCHED = (3, 4, 5)


def is_csr(kind):
    """Whether a kind is CSR."""
    return kind.startswith("csr")


def integers(*size, dtype=torch.float64, seed=0):
    """Make a dense tensor of small integers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, size, generator=generator).to(dtype)


def make_coo(kind, size, entries, *, dtype=torch.float64, seed=0):
    """Make a COO matrix; an uncoalesced one has a third more entries, all of them duplicates."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randperm(prod(size), generator=generator)[:entries]
    if kind == "uncoalesced":
        positions = torch.cat([positions, positions[: len(positions) // 3]])
    else:
        positions = positions.sort().values
    indices = torch.stack(torch.unravel_index(positions, size)).reshape(len(size), -1)
    values = integers(len(positions), dtype=dtype, seed=seed + 1)
    return torch.sparse_coo_tensor(
        indices, values, size, is_coalesced=True if kind == "coalesced" else None
    )


def make_csr(kind, size, entries, *, dtype=torch.float64, seed=0):
    """Make a CSR matrix, or a batch with a share of the entries in each item."""
    generator = torch.Generator().manual_seed(seed)
    *batch, n, m = size
    items = prod(batch)
    share = entries // max(items, 1)
    crow, col = (torch.zeros(items, k, dtype=torch.int64) for k in (n + 1, share))
    for item in range(items):
        positions = torch.randperm(n * m, generator=generator)[:share].sort().values
        col[item] = positions % max(m, 1)
        rows = positions // max(m, 1)
        crow[item, 1:] = torch.searchsorted(rows, torch.arange(n), right=True)
    index_dtype = torch.int32 if kind == "csr32" else torch.int64
    return torch.sparse_csr_tensor(
        crow.reshape(*batch, n + 1).to(index_dtype),
        col.reshape(*batch, share).to(index_dtype),
        integers(*batch, share, dtype=dtype, seed=seed + 1),
        size,
    )


def make_sparse(kind, size, entries=None, *, dtype=torch.float64, seed=0):
    """Make a sparse matrix, by default with two entries in five."""
    make = make_csr if is_csr(kind) else make_coo
    entries = prod(size) * 2 // 5 if entries is None else entries
    return make(kind, size, entries, dtype=dtype, seed=seed)


def dense_for(A, p=3, *, seed=7):
    """Make a B that fits A."""
    *batch, _, m = A.shape
    return integers(*batch, m, p, dtype=A.dtype, seed=seed)


def output_gradient_for(A, p=3, *, seed=8):
    """Make a gradient of the product of A and a B with p columns."""
    *batch, n, _ = A.shape
    return integers(*batch, n, p, dtype=A.dtype, seed=seed)


def positions_of(A):
    """Index A's specified entries in a dense tensor: one index tensor a dimension, in A's order."""
    if A.layout == torch.sparse_coo:
        return tuple(A._indices())
    rows = A.shape[-2]
    crow, col = A.crow_indices().long(), A.col_indices().long()
    crow, col = (crow, col) if A.dim() == 3 else (crow[None], col[None])
    item = torch.arange(crow.shape[0]).repeat_interleave(col.shape[1])
    row = torch.cat([torch.arange(rows).repeat_interleave(c.diff()) for c in crow] or [item])
    return (item, row, col.flatten())[-A.dim() :]


def values_of(A):
    """Return A's values, in A's order."""
    return (A._values() if A.layout == torch.sparse_coo else A.values()).detach()


def to_dense(A):
    """Write A out in float64; duplicates add up."""
    dense = torch.zeros(A.shape, dtype=torch.float64)
    return dense.index_put_(positions_of(A), values_of(A).double().flatten(), accumulate=True)


def product(A, B):
    """Compute A B."""
    return to_dense(A) @ B.detach().double()


def gradient_of_B(A, G):
    """Compute Aᵀ G."""
    return to_dense(A).mT @ G.double()


def gradient_of_values(A, B, G):
    """Compute G_i · B_j for each entry (i, j) that A specifies."""
    everywhere = G.double() @ B.detach().double().mT
    return everywhere[positions_of(A)].reshape(values_of(A).shape)


def assert_dense(actual, expected):
    """Check a dense result for equality, apart from its precision."""
    assert actual.layout == torch.strided
    assert actual.shape == expected.shape
    assert torch.equal(actual.detach().double(), expected)


def assert_pattern(actual, A):
    """Check that a sparse tensor has A's layout, shape, dtypes, indices, order and flag."""
    assert actual.layout == A.layout
    assert actual.shape == A.shape
    assert actual.dtype == A.dtype
    if A.layout == torch.sparse_coo:
        assert actual.is_coalesced() == A.is_coalesced()
        assert torch.equal(actual._indices(), A._indices())
        return
    for name in ("crow_indices", "col_indices"):
        received, wanted = getattr(actual, name)(), getattr(A, name)()
        assert received.dtype == wanted.dtype
        assert torch.equal(received, wanted)


def assert_sparse(actual, A, expected_values):
    """Check a sparse result for A's pattern and for its values."""
    assert_pattern(actual, A)
    assert_dense(values_of(actual), expected_values.double())


def assert_gradients(A, B, G):
    """Check A.grad and B.grad after one backward pass with G."""
    assert_sparse(A.grad, A, gradient_of_values(A, B, G))
    assert B.grad.dtype == B.dtype
    assert_dense(B.grad, gradient_of_B(A, G))
