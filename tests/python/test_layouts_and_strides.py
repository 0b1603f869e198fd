"""Operands of any strides: B, the gradient of the product, and plain tensors of a structure."""

import pytest
import torch
from cases import (
    BOTH_SIZES,
    LAYOUTS,
    RESTRIDES,
    SIZES,
    every_second_column,
    off_the_start,
)
from forms import assert_leaves_right, leaves
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
from pairs import name_of, pairwise

import spgrad

STRIDES = pairwise(kind=LAYOUTS, size=BOTH_SIZES.values(), restride=RESTRIDES)


@STRIDES
def test_B_may_have_any_strides(kind, size, restride):
    A, B, G = leaves(kind, size)
    assert_leaves_right(A, restride(B.detach()).requires_grad_(), G)


@STRIDES
def test_the_gradient_of_the_product_may_have_any_strides(kind, size, restride):
    A, B, G = leaves(kind, size)
    assert_leaves_right(A, B, restride(G))


@pytest.mark.parametrize("restride", RESTRIDES, ids=name_of)
def test_both_may_have_any_strides(restride):
    A, B, G = leaves("csr64", BATCHED)
    assert_leaves_right(A, restride(B.detach()).requires_grad_(), restride(G))


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
    assert_leaves_right(A, dense_for(A).requires_grad_(), output_gradient_for(A))


def test_a_large_expanded_gradient_is_right():
    A = make_sparse("csr32", (700, 500), 20_000).requires_grad_()
    B = integers(500, 40, seed=4).requires_grad_()
    spgrad.sparse_mm(A, B).sum().backward()
    assert_gradients(A, B, torch.ones(700, 40))
