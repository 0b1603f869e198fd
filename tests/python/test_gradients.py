"""Gradients of the product: their values, and the pattern of the sparse one."""

import pytest
import torch
from cases import (
    ALL_DTYPES,
    ALL_KINDS,
    BOTH_FORMS,
    COO_KINDS,
    EMPTY,
    SIZES,
    WIDTHS,
)
from forms import assert_leaves_right, leaves, maker_of
from oracle import (
    BATCHED,
    PLAIN,
    assert_dense,
    assert_sparse,
    assert_sum,
    dense_for,
    gradient_of_B,
    gradient_of_values,
    is_csr,
    make_sparse,
    output_gradient_for,
    values_of,
)

import spgrad


@ALL_DTYPES
@SIZES
@ALL_KINDS
def test_the_product_and_its_gradients_are_right_together_and_alone(kind, size, dtype):
    assert_leaves_right(*leaves(kind, size, dtype=dtype))


@ALL_DTYPES
@BOTH_FORMS
def test_every_width_of_B_is_covered_by_the_vector_loops(kind, dtype):
    for p in WIDTHS:
        assert_leaves_right(*leaves(kind, (6, 9), p=p, dtype=dtype))


@pytest.mark.parametrize(("size", "entries", "p"), EMPTY.values(), ids=EMPTY)
@ALL_KINDS
def test_empty_matrices_have_a_product_and_gradients(kind, size, entries, p):
    assert_leaves_right(*leaves(kind, size, entries, p=p))


def test_specified_zeros_have_a_gradient_and_unspecified_ones_have_none():
    indices = torch.tensor([[0, 1], [1, 0]])
    A = torch.sparse_coo_tensor(indices, torch.zeros(2), (2, 2), is_coalesced=True)
    A.requires_grad_()
    spgrad.sparse_mm(A, torch.tensor([[2.0], [5.0]])).sum().backward()
    assert A.grad.is_coalesced()
    assert A.grad.indices().tolist() == [[0, 1], [1, 0]]
    assert A.grad.values().tolist() == [5.0, 2.0]


def test_entries_whose_gradient_is_zero_stay_specified():
    A = torch.eye(3).to_sparse_csr().requires_grad_()
    spgrad.sparse_mm(A, torch.zeros(3, 2)).sum().backward()
    assert A.grad.col_indices().tolist() == [0, 1, 2]
    assert A.grad.values().tolist() == [0.0, 0.0, 0.0]


def test_items_of_a_coo_batch_may_have_different_numbers_of_entries():
    items = [make_sparse("coalesced", PLAIN, entries, seed=entries) for entries in (0, 1, 13)]
    A = torch.stack(items).detach().requires_grad_()
    assert_leaves_right(A, dense_for(A).requires_grad_(), output_gradient_for(A))


@SIZES
@ALL_KINDS
def test_two_backward_passes_add_up(kind, size):
    A, B, G = leaves(kind, size)
    other = output_gradient_for(A, seed=80)
    spgrad.sparse_mm(A, B).backward(G)
    spgrad.sparse_mm(A, B).backward(other)
    expected = gradient_of_values(A, B, G) + gradient_of_values(A, B, other)
    assert_sum(A.grad, A, expected)
    assert_dense(B.grad, gradient_of_B(A, G + other))


def dense_sum(A, values):
    """Add up values at A's entries."""
    scattered = torch.sparse_coo_tensor(A._indices(), values, A.shape)
    return scattered.coalesce().to_dense()


@SIZES
@ALL_KINDS
def test_a_first_gradient_is_not_changed_by_the_second_pass(kind, size):
    A, B, G = leaves(kind, size)
    first = torch.autograd.grad(spgrad.sparse_mm(A, B), A, G)[0]
    kept = []
    handle = A.register_hook(kept.append)
    spgrad.sparse_mm(A, B).backward(G)
    spgrad.sparse_mm(A, B).backward(G)
    handle.remove()
    expected = gradient_of_values(A, B, G)
    for gradient in (first, *kept):
        assert_sparse(gradient, A, expected)


@SIZES
@ALL_KINDS
def test_uses_of_the_same_A_in_one_graph_add_up(kind, size):
    A, B, G = leaves(kind, size)
    other = dense_for(A, seed=70)
    C = spgrad.sparse_mm(A, B) + 2 * spgrad.sparse_mm(A, other) + spgrad.sparse_mm(A, B)
    C.backward(G)
    expected = 2 * gradient_of_values(A, B, G) + 2 * gradient_of_values(A, other, G)
    assert_sparse(A.grad, A, expected)


@ALL_KINDS
def test_a_product_of_products_has_the_gradient_of_both_uses(kind):
    A, B, G = leaves(kind, (5, 5))
    inner = spgrad.sparse_mm(A, B)
    spgrad.sparse_mm(A, inner).backward(G)
    into_inner = gradient_of_B(A, G)
    expected = gradient_of_values(A, inner, G) + gradient_of_values(A, B, into_inner)
    assert_sparse(A.grad, A, expected)
    assert_dense(B.grad, gradient_of_B(A, into_inner))


@ALL_KINDS
def test_a_use_beside_other_operators_adds_up(kind):
    A, B, G = leaves(kind, PLAIN)
    (spgrad.sparse_mm(A, B) * G).sum().backward(retain_graph=True)
    held, once = A.grad, A.grad.to_dense()
    A.grad = None
    # mul by a number is an operator of PyTorch with a sparse gradient of its own.
    ((spgrad.sparse_mm(A, B) + spgrad.sparse_mm(A * 2, B)) * G).sum().backward()
    if kind == "uncoalesced":
        distinct = gradient_of_values(A, B, G)
        counts = dense_sum(A, torch.ones_like(distinct))
        once_each = dense_sum(A, distinct) / counts.clamp(min=1)
        assert_dense(A.grad.to_dense(), once + 2 * once_each)
    else:
        assert_dense(A.grad.to_dense(), 3 * once)
    assert torch.equal(held.to_dense(), once)  # whoever holds it keeps it


@SIZES
@ALL_KINDS
def test_the_gradient_flows_on_to_the_values_that_A_was_made_of(kind, size):
    pattern, B, G = leaves(kind, size)
    make = maker_of(kind, pattern)
    values = values_of(pattern).clone().requires_grad_()
    spgrad.sparse_mm(make(values), B).backward(G)
    assert_dense(values.grad, gradient_of_values(pattern, B, G))
    assert_dense(B.grad, gradient_of_B(pattern, G))


@SIZES
@ALL_KINDS
def test_the_gradient_flows_through_several_uses_and_a_multiple(kind, size):
    if is_csr(kind) and size is BATCHED:
        pytest.skip("PyTorch multiplies no batched CSR tensor by a number")
    pattern, B, G = leaves(kind, size)
    values = values_of(pattern).clone().requires_grad_()
    A = maker_of(kind, pattern)(values)
    (spgrad.sparse_mm(A, B) + spgrad.sparse_mm(A * 2, B)).backward(G)
    assert_dense(values.grad, 3 * gradient_of_values(pattern, B, G))


@SIZES
@pytest.mark.parametrize("kind", ["unflagged", "uncoalesced"])
def test_the_gradient_flows_through_coalesce(kind, size):
    pattern, B, G = leaves(kind, size)
    values = values_of(pattern).clone().requires_grad_()
    spgrad.sparse_mm(maker_of(kind, pattern)(values).coalesce(), B).backward(G)
    assert_dense(values.grad, gradient_of_values(pattern, B, G))


def test_the_gradient_flows_through_a_stack_of_coo_matrices():
    patterns = [
        make_sparse("uncoalesced", PLAIN, entries, seed=entries) for entries in (2, 9, 0, 5)
    ]
    leaves_of = [values_of(pattern).clone().requires_grad_() for pattern in patterns]
    A = torch.stack(
        [maker_of("uncoalesced", p)(v) for p, v in zip(patterns, leaves_of, strict=True)]
    )
    B, G = dense_for(A), output_gradient_for(A)
    spgrad.sparse_mm(A, B).backward(G)
    for pattern, values, b, g in zip(patterns, leaves_of, B, G, strict=True):
        assert_dense(values.grad, gradient_of_values(pattern, b, g))


@SIZES
def test_the_gradient_of_a_dense_leaf_is_masked_by_its_pattern(size):
    dense = make_sparse("coalesced", size).to_dense().requires_grad_()
    A = dense.to_sparse()
    B, G = dense_for(A), output_gradient_for(A)
    spgrad.sparse_mm(A, B).backward(G)
    mask = dense.detach() != 0
    assert_dense(dense.grad, (G @ B.mT) * mask)


@pytest.mark.parametrize("kind", COO_KINDS)
def test_a_gradient_kept_for_a_matrix_that_is_no_leaf_has_its_pattern(kind):
    pattern, B, G = leaves(kind, PLAIN)
    values = values_of(pattern).clone().requires_grad_()
    A = maker_of(kind, pattern)(values)
    A.retain_grad()
    spgrad.sparse_mm(A, B).backward(G)
    expected = gradient_of_values(pattern, B, G)
    assert_dense(values.grad, expected)
    if kind == "uncoalesced":
        # A matrix element that is stored twice has one derivative, shared out to both.
        counts = dense_sum(pattern, torch.ones_like(expected))
        expected = expected / counts[tuple(pattern._indices())]
    assert_sparse(A.grad, pattern, expected)


def test_pytorch_keeps_no_gradient_for_a_csr_matrix_that_is_no_leaf():
    pattern, B, _ = leaves("csr64", PLAIN)
    for use in (lambda A: spgrad.sparse_mm(A, B).sum(), lambda A: A.values().sum()):
        A = maker_of("csr64", pattern)(values_of(pattern).clone().requires_grad_())
        A.retain_grad()
        with pytest.raises(RuntimeError, match="unsupported memory format option Contiguous"):
            use(A).backward()
