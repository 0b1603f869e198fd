"""Properties that hold for all matrices, over those that hypothesis thinks of."""

import torch
from cases import RESTRIDES
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import (
    DTYPES,
    KINDS,
    assert_dense,
    assert_gradients,
    dense_for,
    exact,
    make_sparse,
    output_gradient_for,
    product,
    values_of,
)

import spgrad

# Reproducible, and without deadlines: the machine may be busy.
PROFILE = settings(max_examples=150, deadline=None, derandomize=True, database=None)

# Dtypes in which all the sums here are exact.
UNROUNDED = tuple(dtype for dtype in DTYPES if dtype.itemsize > 2)


@st.composite
def operands(draw, dtypes=DTYPES):
    """Draw A, B and a gradient of their product."""
    batch = draw(st.one_of(st.just(()), st.tuples(st.integers(0, 4))))
    n, m, p = (draw(st.integers(0, 12)) for _ in range(3))
    size = (*batch, n, m)
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]))
    A = make_sparse(
        draw(st.sampled_from(KINDS)),
        size,
        int(density * torch.Size(size).numel()),
        dtype=draw(st.sampled_from(dtypes)),
        seed=draw(st.integers(0, 1000)),
    )
    restrides = st.sampled_from((torch.Tensor.contiguous, *RESTRIDES))
    B = draw(restrides)(dense_for(A, p))
    G = draw(restrides)(output_gradient_for(A, p))
    return A, B, G


@PROFILE
@given(operands(), st.sampled_from(["A", "B", "AB"]))
def test_product_and_gradients_are_those_of_the_dense_matrices(case, wanted):
    A, B, G = case
    A.requires_grad_("A" in wanted)
    B.requires_grad_("B" in wanted)
    C = spgrad.sparse_mm(A, B)
    assert_dense(C, product(A, B))
    C.backward(G)
    if wanted == "AB":
        assert_gradients(A, B, G)
        return
    alone = A.grad if wanted == "A" else B.grad
    assert (B if wanted == "A" else A).grad is None
    A.requires_grad_()
    B.requires_grad_()
    A.grad = B.grad = None
    spgrad.sparse_mm(A, B).backward(G)
    assert_gradients(A, B, G)
    if wanted == "A":
        assert torch.equal(values_of(alone), values_of(A.grad))
    else:
        assert torch.equal(alone, B.grad)


@PROFILE
@given(operands(UNROUNDED))
def test_the_gradients_are_adjoint_to_the_product(case):
    A, B, G = case
    A.requires_grad_()
    B.requires_grad_()
    C = spgrad.sparse_mm(A, B)
    C.backward(G)
    # ⟨G, A B⟩ is linear in each of A and B, so that Euler's identity holds for both.
    energy = (exact(G).conj() * exact(C)).sum()
    assert torch.equal((exact(values_of(A.grad)).conj() * exact(values_of(A))).sum(), energy)
    assert torch.equal((exact(B.grad).conj() * exact(B)).sum(), energy)


@PROFILE
@given(operands(UNROUNDED), st.integers(-3, 3))
def test_the_product_is_linear_in_B(case, factor):
    A, B, _ = case
    other = dense_for(A, B.shape[-1], seed=99)
    together = spgrad.sparse_mm(A, B + factor * other)
    assert_dense(together, product(A, B) + factor * product(A, other))
    assert torch.equal(together, spgrad.sparse_mm(A, B) + factor * spgrad.sparse_mm(A, other))
