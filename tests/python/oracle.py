"""Sparse matrices of every kind, and what dense float64 arithmetic says about their products.

All numbers are small integers unless a test says otherwise. Sums of them are exact in float32 too,
so that results are compared for equality: those of 16 bits with the exact result, rounded once.
"""

from math import prod

import pytest
import torch

# COO with and without PyTorch's coalesced flag, both sorted and without duplicates; COO in no order
# and with duplicates; CSR with each index dtype.
KINDS = ("coalesced", "unflagged", "uncoalesced", "csr32", "csr64")
DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
)

PLAIN = (4, 5)
BATCHED = (3, 4, 5)


def is_csr(kind):
    """Whether a kind is CSR."""
    return kind.startswith("csr")


def seeded(seed=0):
    """Make a generator of the device that tensors are made on."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def integers(*size, dtype=torch.float64, seed=0):
    """Make a dense tensor of small integers; complex ones have two."""
    generator = seeded(seed)
    if dtype.is_complex:
        parts = torch.randint(-4, 5, (*size, 2), generator=generator)
        return torch.view_as_complex(parts.double()).to(dtype)
    return torch.randint(-4, 5, size, generator=generator).to(dtype)


def exact(tensor):
    """Return a tensor's numbers in float64 or complex128."""
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)


def make_coo(kind, size, entries, *, dtype=torch.float64, seed=0):
    """Make a COO matrix; an uncoalesced one has a third more entries, all of them duplicates."""
    generator = seeded(seed)
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
    generator = seeded(seed)
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
    # On A's device: the default device of the tests is not that of threads which they start.
    item = torch.arange(crow.shape[0], device=crow.device).repeat_interleave(col.shape[1])
    numbers = torch.arange(rows, device=crow.device)
    row = torch.cat([numbers.repeat_interleave(c.diff()) for c in crow] or [item])
    return (item, row, col.flatten())[-A.dim() :]


def values_of(A):
    """Return A's values, in A's order."""
    return (A._values() if A.layout == torch.sparse_coo else A.values()).detach()


def to_dense(A):
    """Write A out in float64 or complex128; duplicates add up."""
    values = exact(values_of(A)).flatten()
    return values.new_zeros(A.shape).index_put_(positions_of(A), values, accumulate=True)


def product(A, B):
    """Compute A B."""
    return to_dense(A) @ exact(B)


def gradient_of_B(A, G):
    """Compute Aᴴ G, which is Aᵀ G for real numbers."""
    return to_dense(A).mH @ exact(G)


def gradient_of_values(A, B, G):
    """Compute G_i · conj(B_j) for each entry (i, j) that A specifies."""
    everywhere = exact(G) @ exact(B).mH
    return everywhere[positions_of(A)].reshape(values_of(A).shape)


def assert_dense(actual, expected):
    """Check a dense result for equality with the exact one, rounded to its precision."""
    assert actual.layout == torch.strided
    assert actual.shape == expected.shape
    assert torch.equal(actual.detach(), expected.to(actual.dtype))


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
    assert_dense(values_of(actual), exact(expected_values))


def needs_sums_of_pytorch(A):
    """Skip a test where PyTorch's own addition changes which entries a gradient has."""
    if A.is_cuda and A.layout == torch.sparse_coo:
        pytest.skip("on CUDA, adding two COO gradients concatenates their entries")


def assert_sum(actual, A, expected_values):
    """Check gradients of A that PyTorch added up.

    Its sum of COO tensors on CUDA lists the entries of all of them, one after the other.
    """
    if actual.is_cuda and actual.layout == torch.sparse_coo:
        expected = torch.sparse_coo_tensor(A._indices(), expected_values, A.shape)
        assert torch.equal(to_dense(actual), to_dense(expected))
    else:
        assert_sparse(actual, A, expected_values)


def assert_gradients(A, B, G):
    """Check A.grad and B.grad after one backward pass with G."""
    assert_sparse(A.grad, A, gradient_of_values(A, B, G))
    assert B.grad.dtype == B.dtype
    assert_dense(B.grad, gradient_of_B(A, G))
