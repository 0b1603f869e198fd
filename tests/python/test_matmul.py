"""torch.matmul where one operand is sparse: all pairs of shapes, layouts, sides and gradients."""

import re

import pytest
import torch
from cases import BOTH_FORMS
from oracle import (
    DTYPES,
    assert_dense,
    exact,
    integers,
    make_sparse,
    needs_sums_of_pytorch,
    positions_of,
    seeded,
    to_dense,
)
from pairs import pairwise
from torch import ones

import spgrad

LAYOUTS = ("coo", "uncoalesced", "csr", "csc")

# Of a sparse operand and of a dense one, without their last two dimensions; None is a vector.
BATCHES = (
    ((), ()),
    ((), None),
    ((), (2,)),
    ((), (2, 3)),
    ((3,), ()),
    ((3,), None),
    ((3,), (3,)),
    ((3,), (1,)),
    ((1,), (3,)),
    ((3,), (2, 3)),
    ((3,), (2, 1)),
    ((1,), (2, 3)),
    ((2, 3), ()),
    ((2, 3), None),
    ((2, 3), (3,)),
    ((2, 3), (2, 3)),
    ((2, 3), (1, 3)),
    ((2, 1), (2, 3)),
    ((2, 1), (3,)),
    ((1, 3), (2, 1)),
    ((1, 1), (2, 3)),
    ((2,), (0, 1)),
    ((), (0,)),
)


def sparse_of(layout, batch, n=4, m=5, dtype=torch.float64):
    """Make a sparse operand; all matrices of a batch have equally many entries."""
    items = make_sparse("uncoalesced" if layout == "uncoalesced" else "coalesced", (n, m))
    if layout == "uncoalesced":
        sizes = (*batch, n, m)
        counts = torch.randint(0, 10**6, (40,), generator=seeded(3))
        places = torch.unravel_index(counts % max(torch.Size(sizes).numel(), 1), sizes)
        values = integers(40, dtype=dtype, seed=4)
        return torch.sparse_coo_tensor(torch.stack(places), values, sizes)
    mask = to_dense(items) != 0
    dense = integers(*batch, n, m, dtype=dtype, seed=5) * mask
    dense = torch.where(mask & (dense == 0), torch.ones((), dtype=dtype), dense)
    return {
        "coo": dense.to_sparse,
        "csr": dense.to_sparse_csr,
        "csc": dense.to_sparse_csc,
    }[layout]()


def written_out(A):
    """Write a sparse operand out, in float64 or complex128."""
    if A.layout == torch.sparse_coo:
        return to_dense(A)
    return exact(A.detach().to_dense())


def at_entries(A, dense):
    """Take a dense gradient at A's entries, in their order."""
    if A.layout == torch.sparse_coo:
        return dense[positions_of(A)]
    # Entries of these matrices are sorted: by row, or by column.
    pattern = torch.sparse_compressed_tensor(
        *indices_of(A), ones(A.values().shape), A.shape, layout=A.layout
    ).to_dense()
    if A.layout == torch.sparse_csc:
        pattern, dense = pattern.mT, dense.mT
    return dense[pattern != 0].view(A.values().shape)


def indices_of(A):
    """Return the index tensors of a sparse tensor."""
    if A.layout == torch.sparse_coo:
        return (A._indices(),)
    if A.layout == torch.sparse_csc:
        return A.ccol_indices(), A.row_indices()
    return A.crow_indices(), A.col_indices()


def assert_gradient(gradient, A, expected):
    """Check a sparse gradient for A's layout, indices and order, and for its values."""
    assert gradient.layout == A.layout
    assert gradient.shape == A.shape
    for received, wanted in zip(indices_of(gradient), indices_of(A), strict=True):
        assert received.dtype == wanted.dtype
        assert torch.equal(received, wanted)
    if A.layout == torch.sparse_coo:
        assert gradient.is_coalesced() == A.is_coalesced()
    values = gradient._values() if A.layout == torch.sparse_coo else gradient.values()
    assert_dense(values, at_entries(A, expected))


@pairwise(layout=LAYOUTS, batches=BATCHES, left=(True, False), dtype=DTYPES)
def test_products_and_gradients_are_those_of_torch_matmul(layout, batches, left, dtype):
    of_sparse, of_dense = batches
    A = sparse_of(layout, of_sparse, dtype=dtype).requires_grad_()
    inner = A.shape[-1] if left else A.shape[-2]
    shape = (inner,) if of_dense is None else (*of_dense, *((inner, 2) if left else (2, inner)))
    X = integers(*shape, dtype=dtype, seed=6).requires_grad_()
    wide = [written_out(A).requires_grad_(), exact(X).requires_grad_()]
    C = spgrad.matmul(*((A, X) if left else (X, A)))
    expected = torch.matmul(*(wide if left else wide[::-1]))
    assert C.dtype == dtype
    assert_dense(C, expected.detach())
    G = integers(*C.shape, dtype=dtype, seed=7)
    of_A, of_X = torch.autograd.grad(expected, wide, exact(G))
    C.backward(G)
    assert_gradient(A.grad, A, of_A)
    assert_dense(X.grad, of_X)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_several_passes_add_up(layout):
    A = sparse_of(layout, ()).requires_grad_()
    needs_sums_of_pytorch(A)
    X = integers(5, 2, seed=6)
    everywhere = torch.ones(4, 2, dtype=torch.float64) @ X.T
    for times in (1, 2, 3):
        spgrad.matmul(A, X).sum().backward()
        assert_gradient(A.grad, A, times * everywhere)
    A.grad = None
    (
        spgrad.matmul(A, X).sum() + spgrad.matmul(torch.ones(4, dtype=torch.float64), A).sum()
    ).backward()
    assert_gradient(A.grad, A, everywhere + 1)


def test_transposed_csr_is_taken_as_csc_and_its_gradient_reaches_the_leaf():
    A = sparse_of("csr", (3,)).requires_grad_()
    X = integers(4, 2, seed=6)
    assert A.mT.layout == torch.sparse_csc
    C = spgrad.matmul(A.mT, X)
    assert_dense(C, written_out(A).mT @ X)
    C.sum().backward()
    assert_gradient(A.grad, A, (X.sum(1)[:, None] * ones(3, 4, 5)))


def test_values_that_csc_was_made_from_get_the_gradient_in_their_order():
    ccol, row = torch.tensor([0, 2, 3]), torch.tensor([2, 0, 1])  # rows in no order
    values = integers(3, seed=1).requires_grad_()
    A = torch.sparse_csc_tensor(ccol, row, values, (3, 2))
    X = integers(2, 4, seed=2)
    spgrad.matmul(A, X).sum().backward()
    assert_dense(values.grad, X.sum(1)[torch.tensor([0, 0, 1])])


@BOTH_FORMS
def test_second_derivatives_are_those_of_the_dense_product(kind):
    A = make_sparse(kind, (4, 5))
    A = A.requires_grad_()
    X = torch.rand(2, 5, 3, dtype=torch.float64, requires_grad=True)
    D = to_dense(A)

    def of(product):
        (first,) = torch.autograd.grad(product.pow(3).sum(), X, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), X)[0]

    torch.testing.assert_close(of(spgrad.matmul(A, X)), of(D @ X))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vmap_maps_over_the_dense_operand(layout):
    A, X = sparse_of(layout, ()), integers(3, 5, seed=6)
    C = torch.func.vmap(lambda x: spgrad.matmul(A, x))(X)
    assert_dense(C, X @ written_out(A).T)


def test_two_dense_operands_go_to_torch():
    A, B = integers(2, 3, 4), integers(4)
    assert torch.equal(spgrad.matmul(A, B), A @ B)


def test_autocast_casts_the_operands():
    A = make_sparse("csr64", (4, 5), dtype=torch.float32)
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        C = spgrad.matmul(A, ones(5))
    assert C.dtype == torch.bfloat16


def test_an_index_out_of_bounds_does_not_reach_another_matrix():
    A = sparse_of("uncoalesced", (2, 3))
    for dim, bad in ((0, 2), (1, 3), (1, -1), (2, 4), (3, 5)):
        indices = A._indices().clone()
        indices[dim, 5] = bad
        B = torch.sparse_coo_tensor(indices, A._values(), A.shape)
        with pytest.raises(RuntimeError, match=r"indices of .* must be in"):
            spgrad.matmul(B, torch.ones(5, 2, dtype=torch.float64))


SPARSE = ones(3, 4).to_sparse_csr()


@pytest.mark.parametrize(
    ("A", "B", "error", "message"),
    [
        (SPARSE, [1.0], ValueError, "B must be a torch.Tensor, but received list"),
        (SPARSE, torch.tensor(1.0), ValueError, "A and B must have at least 1 dimension, but rec"),
        (SPARSE, SPARSE.mT, ValueError, "one of A and B must be dense, but received two sparse te"),
        (ones(4, 4).to_sparse_bsr((2, 2)), ones(4), ValueError, "A must be a COO, CSR or CSC ten"),
        (ones(4).to_sparse(), ones(4), ValueError, "A must have shape (n, m) or (*, n, m) where"),
        (ones(2), ones(2, 3, 4).to_sparse(2), ValueError, "B must have only sparse dimensions"),
        (SPARSE, ones(3, 4), ValueError, "A must have as many columns as B has rows, but received"),
        (ones(4), SPARSE, ValueError, "A must have as many columns as B has rows, but received sh"),
        (ones(2, 3, 4).to_sparse(), ones(3, 4, 1), ValueError, "leading dimensions of A and B mus"),
        (SPARSE, ones(4, device="meta"), RuntimeError, "A and B must be on the same device, but r"),
        (
            SPARSE,
            ones(4).double(),
            RuntimeError,
            "A and B must have the same dtype, but received F",
        ),
        (SPARSE.to(torch.int32), ones(4).int(), RuntimeError, "A and B must be float32, float64"),
    ],
)
def test_what_does_not_fit_is_refused(A, B, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        spgrad.matmul(A, B)
