"""Products of zero, infinity and NaN, as IEEE 754 says, at the specified entries alone."""

from itertools import product

import pytest
import torch
from oracle import KINDS, make_sparse, positions_of, values_of
from pairs import pairwise

import spgrad

SIZES = ((7, 6), (2, 7, 6))
SPECIAL = torch.tensor([0.0, 1.0, -2.0, float("inf"), float("-inf"), float("nan")])
# Complex products of infinities have no one right answer: C and C++ differ on them.
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def draw(shape, dtype, seed, share=0.3):
    """Draw ones, and special numbers in their place here and there."""
    random = torch.Generator().manual_seed(seed)
    numbers = SPECIAL[torch.randint(len(SPECIAL), shape, generator=random)]
    return numbers.where(torch.rand(shape, generator=random) < share, 1.0).to(dtype)


def terms(A, B, G):
    """Compute the product and its gradients entry by entry, in float64."""
    values, B, G = values_of(A).double().flatten(), B.double(), G.double()
    *item, row, column = positions_of(A)
    rows, columns = (*item, row), (*item, column)
    C = torch.zeros_like(G).index_put(rows, values[:, None] * B[columns], accumulate=True)
    dB = torch.zeros_like(B).index_put(columns, values[:, None] * G[rows], accumulate=True)
    return C, dB, (G[rows] * B[columns]).sum(-1)


def assert_same(actual, expected):
    """Check numbers, infinities and NaN for equality."""
    expected = expected.reshape(actual.shape).to(actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@pairwise(instruction_set=spgrad.instruction_sets(), kind=KINDS, size=SIZES, dtype=DTYPES)
def test_products_and_gradients_have_the_special_numbers_of_their_terms(
    use_instruction_set, instruction_set, kind, size, dtype
):
    use_instruction_set(instruction_set)
    *batch, n, m = size
    for (seed, share), p in product(enumerate((0.2, 0.3)), (1, 3, 16, 41)):
        A = make_sparse(kind, size, dtype=dtype, seed=seed)
        values_of(A).copy_(draw(values_of(A).shape, dtype, seed, share))
        B = draw((*batch, m, p), dtype, seed + 100, share)
        G = draw((*batch, n, p), dtype, seed + 200, share)
        A.requires_grad_()
        B.requires_grad_()
        C = spgrad.sparse_mm(A, B)
        C.backward(G)
        expected = terms(A.detach(), B.detach(), G)
        together = torch.cat([x.flatten() for x in expected])
        assert 0 < together.isfinite().sum() < len(together)
        for actual, wanted in zip((C.detach(), B.grad, values_of(A.grad)), expected, strict=True):
            assert_same(actual, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_specified_zero_makes_a_nan_and_an_unspecified_one_does_not(kind):
    A = make_sparse(kind, (3, 3), entries=0, dtype=torch.float32)
    B = torch.full((3, 2), float("inf"), requires_grad=True)
    assert torch.equal(spgrad.sparse_mm(A, B), torch.zeros(3, 2))
    if A.layout == torch.sparse_coo:
        A = torch.sparse_coo_tensor([[1], [2]], [0.0], (3, 3), is_coalesced=kind == "coalesced")
    else:
        A = torch.sparse_csr_tensor([0, 0, 1, 1], [2], [0.0], (3, 3))
    A.requires_grad_()
    C = spgrad.sparse_mm(A, B)
    C.backward(torch.full((3, 2), float("nan")))
    assert C.isnan().tolist() == [[False, False], [True, True], [False, False]]
    assert B.grad.isnan().tolist() == [[False, False], [False, False], [True, True]]
    assert values_of(A.grad).isnan().tolist() == [True]
