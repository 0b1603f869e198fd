"""Automatic mixed precision: the products behave as torch.mm on the dense matrix does."""

import contextlib

import pytest
import torch
from cases import DISTINCT_KINDS, SIZES
from forms import matrix_of, plain_leaves, product_of
from oracle import (
    BATCHED,
    PLAIN,
    assert_dense,
    assert_pattern,
    dense_for,
    gradient_of_B,
    gradient_of_values,
    make_sparse,
    output_gradient_for,
    product,
    to_dense,
    values_of,
)
from torch.func import vmap
from torch.profiler import profile

import spgrad

LOW = torch.bfloat16
ALL_FORMS = ("csr32", "uncoalesced", "pattern of uncoalesced")
FORMS = pytest.mark.parametrize("form", ALL_FORMS)


def autocast(**options):
    """Turn autocast on for CPU."""
    return torch.autocast("cpu", **{"dtype": LOW, **options})


def problem_for(form, size=PLAIN, dtype=torch.float32):
    """Return A, its product as a function of values and B, and both as leaves."""
    A = matrix_of(form, size, dtype=dtype)
    return A, product_of(form, A), *plain_leaves(A)


# Products of small integers are exact in bfloat16 up to 256.
@pytest.mark.parametrize("backward_inside", [False, True])
@SIZES
@FORMS
def test_products_and_gradients_are_exact_in_the_dtypes_of_the_dense_product(
    form, size, backward_inside
):
    A, multiply, values, B = problem_for(form, size)
    G = output_gradient_for(A).to(LOW)
    dense, dense_B = to_dense(A).float().requires_grad_(), B.detach().clone().requires_grad_()
    with contextlib.ExitStack() as stack:
        stack.enter_context(autocast())
        C, dense_C = multiply(values, B), torch.matmul(dense, dense_B)
        if not backward_inside:
            stack.close()
        C.backward(G)
        dense_C.backward(G)
    assert C.dtype == dense_C.dtype == LOW
    assert (values.grad.dtype, B.grad.dtype) == (dense.grad.dtype, dense_B.grad.dtype)
    assert_dense(C, product(A, B))
    assert_dense(values.grad, gradient_of_values(A, B, G))
    assert_dense(B.grad, gradient_of_B(A, G))


@pytest.mark.parametrize("kind", DISTINCT_KINDS)
@SIZES
def test_the_gradient_of_a_sparse_tensor_keeps_its_dtype_and_pattern(kind, size):
    A = make_sparse(kind, size, dtype=torch.float32).requires_grad_()
    B = dense_for(A).requires_grad_()
    G = output_gradient_for(A).to(LOW)
    with autocast():
        C = spgrad.sparse_mm(A, B)
    C.backward(G)
    assert C.dtype == LOW
    assert_dense(C, product(A, B))
    assert_pattern(A.grad, A)
    assert_dense(values_of(A.grad), gradient_of_values(A, B, G))
    assert B.grad.dtype == torch.float32
    assert_dense(B.grad, gradient_of_B(A, G))


@pytest.mark.parametrize("first", [torch.float32, torch.float64, LOW], ids=str)
@pytest.mark.parametrize("second", [torch.float32, torch.float64, LOW], ids=str)
@pytest.mark.parametrize("form", [*ALL_FORMS, "sparse_mm"])
def test_mixed_dtypes_are_taken_or_refused_as_torch_mm_does(form, first, second):
    A, multiply, values, B = problem_for("csr32" if form == "sparse_mm" else form, dtype=first)
    B = B.detach().to(second)
    if form == "sparse_mm":
        multiply, values = spgrad.sparse_mm, A
    with autocast():
        try:
            expected = torch.mm(to_dense(A).to(first), B).dtype
        except RuntimeError:
            with pytest.raises(RuntimeError, match="must have the same dtype"):
                multiply(values, B)
        else:
            assert multiply(values, B).dtype == expected


@FORMS
def test_disabled_inside_autocast_operands_keep_their_dtype(form):
    A, multiply, values, B = problem_for(form)
    with autocast(), autocast(enabled=False):
        C = multiply(values, B)
        with pytest.raises(RuntimeError, match="must have the same dtype"):
            multiply(values, B.to(LOW))
    assert C.dtype == torch.float32
    assert_dense(C, product(A, B))


@pytest.mark.parametrize(("cached", "casts"), [(True, 2), (False, 6)])
@FORMS
def test_the_cast_of_a_leaf_is_kept_for_its_next_use(form, cached, casts):
    _, multiply, values, B = problem_for(form)
    with profile() as recorded, autocast(cache_enabled=cached):
        for _ in range(3):
            multiply(values, B)
    assert sum(event.name == "aten::_to_copy" for event in recorded.events()) == casts


@FORMS
def test_operands_of_each_item_of_a_vmap_are_cast(form):
    A, multiply, values, B = problem_for(form)
    Bs = torch.stack([B.detach(), 2 * B.detach()])
    with autocast():
        for dims, operands in [((None, 0), (values, Bs)), ((0, 0), (values.expand(2, -1), Bs))]:
            C = vmap(multiply, dims)(*operands)
            assert C.dtype == LOW
            assert vmap(multiply, dims)(operands[0], Bs.to(LOW)).dtype == LOW
            assert_dense(C, torch.stack([product(A, b) for b in Bs]))


@FORMS
def test_a_vmap_over_no_items_has_the_dtype_of_autocast(form):
    _, multiply, values, B = problem_for(form)
    with autocast():
        for dims, operands in [
            ((None, 0), (values, B[None][:0])),
            ((0, None), (values[None][:0], B)),
        ]:
            assert vmap(multiply, dims)(*operands).dtype == LOW


def test_a_batch_has_the_dtype_of_autocast():
    A = make_sparse("csr64", BATCHED, dtype=torch.float32)
    with autocast():
        assert spgrad.sparse_mm(A, dense_for(A)).dtype == LOW
