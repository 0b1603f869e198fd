"""Operands of any strides: B, the gradient of the product, and plain tensors of a structure."""

import pytest
import torch
from oracle import (
    BATCHED,
    PLAIN,
    assert_dense,
    assert_gradients,
    dense_for,
    gradient_of_B,
    gradient_of_values,
    integers,
    make_sparse,
    output_gradient_for,
    product,
)

import spgrad

SIZES = pytest.mark.parametrize("size", [PLAIN, BATCHED], ids=["plain", "batched"])
ALL_KINDS = pytest.mark.parametrize("kind", ["coalesced", "uncoalesced", "csr32"])


def transposed(dense):
    """Lay the last two dimensions out the other way round."""
    return dense.mT.contiguous().mT


def with_batch_last(dense):
    """Lay the first dimension out as the innermost one."""
    return dense.movedim(0, -1).contiguous().movedim(-1, 0)


def every_second_column(dense):
    """Take the columns out of a tensor with twice as many."""
    return dense.repeat_interleave(2, dim=-1)[..., ::2]


def every_second_row(dense):
    """Take the rows out of a tensor with twice as many."""
    return dense.repeat_interleave(2, dim=-2)[..., ::2, :]


def off_the_start(dense):
    """Take a block out of the middle of a larger tensor."""
    return torch.nn.functional.pad(dense, (1, 2, 3, 4), value=77.0)[..., 3:-4, 1:-2]


def equal_columns(dense):
    """Expand the first column."""
    return dense[..., :1].expand(dense.shape)


def equal_rows(dense):
    """Expand the first row."""
    return dense[..., :1, :].expand(dense.shape)


def equal_items(dense):
    """Expand the first item, or the first number of a plain matrix."""
    return dense[tuple(slice(1) for _ in range(dense.dim() - 1))].expand(dense.shape)


def one_number(dense):
    """Expand one number."""
    return dense.flatten()[0].expand(dense.shape)


STRIDES = pytest.mark.parametrize(
    "restride",
    [
        transposed,
        with_batch_last,
        every_second_column,
        every_second_row,
        off_the_start,
        equal_columns,
        equal_rows,
        equal_items,
        one_number,
    ],
    ids=lambda function: function.__name__.replace("_", " "),
)


@STRIDES
@SIZES
@ALL_KINDS
def test_B_may_have_any_strides(kind, size, restride):
    A = make_sparse(kind, size).requires_grad_()
    B = restride(dense_for(A)).requires_grad_()
    G = output_gradient_for(A)
    C = spgrad.sparse_mm(A, B)
    assert C.is_contiguous()
    assert_dense(C, product(A, B))
    C.backward(G)
    assert_gradients(A, B, G)


@STRIDES
@SIZES
@ALL_KINDS
def test_the_gradient_of_the_product_may_have_any_strides(kind, size, restride):
    A = make_sparse(kind, size).requires_grad_()
    B = dense_for(A).requires_grad_()
    G = restride(output_gradient_for(A))
    spgrad.sparse_mm(A, B).backward(G)
    assert_gradients(A, B, G)


@STRIDES
@pytest.mark.parametrize("wanted", ["A", "B"])
def test_each_gradient_alone_takes_any_strides(wanted, restride):
    A = make_sparse("csr64", BATCHED).requires_grad_(wanted == "A")
    B = restride(dense_for(A)).requires_grad_(wanted == "B")
    G = restride(output_gradient_for(A))
    spgrad.sparse_mm(A, B).backward(G)
    if wanted == "A":
        assert_dense(A.grad.values(), gradient_of_values(A, B, G))
    else:
        assert_dense(B.grad, gradient_of_B(A, G))


@SIZES
def test_the_gradient_of_a_view_reaches_the_tensor_that_it_views(size):
    A = make_sparse("csr64", size)
    base = dense_for(A).mT.contiguous().requires_grad_()
    G = output_gradient_for(A)
    spgrad.sparse_mm(A, base.mT).backward(G)
    assert_dense(base.grad, gradient_of_B(A, G).mT)


@pytest.mark.parametrize("restride", [every_second_column, off_the_start])
@SIZES
def test_plain_tensors_of_a_structure_may_have_any_strides(size, restride):
    def vectors(tensor):
        return (
            restride(tensor.reshape(1, *tensor.shape))[0] if tensor.dim() == 1 else restride(tensor)
        )

    A, B, G = make_sparse("csr64", size), None, None
    B, G = dense_for(A), output_gradient_for(A)
    values = vectors(A.values().clone()).requires_grad_()
    C = spgrad.csr_mm(vectors(A.crow_indices()), vectors(A.col_indices()), values, B)
    assert_dense(C, product(A, B))
    (gradient,) = torch.autograd.grad(C, values, G)
    assert_dense(gradient, gradient_of_values(A, B, G))

    A = make_sparse("uncoalesced", size)
    values = vectors(A._values().clone()).requires_grad_()
    C = spgrad.coo_mm(restride(A._indices()), values, size, B)
    assert_dense(C, product(A, B))
    (gradient,) = torch.autograd.grad(C, values, G)
    assert_dense(gradient, gradient_of_values(A, B, G))


def test_a_sparse_tensor_may_hold_indices_and_values_of_any_strides():
    dense = make_sparse("coalesced", PLAIN)
    indices = dense.indices().T.contiguous().T
    values = every_second_column(dense.values()[None])[0]
    A = torch.sparse_coo_tensor(indices, values, PLAIN, is_coalesced=True).requires_grad_()
    assert not A._indices().is_contiguous()
    assert not A._values().is_contiguous()
    B, G = dense_for(A).requires_grad_(), output_gradient_for(A)
    C = spgrad.sparse_mm(A, B)
    assert_dense(C, product(A, B))
    C.backward(G)
    assert_gradients(A, B, G)


def test_a_large_expanded_gradient_is_right():
    A = make_sparse("csr32", (700, 500), 20_000).requires_grad_()
    B = integers(500, 40, seed=4).requires_grad_()
    spgrad.sparse_mm(A, B).sum().backward()
    assert_gradients(A, B, torch.ones(700, 40))
