"""The product itself."""

import pytest
import torch
from cases import ALL_DTYPES, ALL_KINDS, BOTH_FORMS, SIZES
from forms import fill, function_of
from oracle import (
    BATCHED,
    assert_dense,
    assert_gradients,
    dense_for,
    exact,
    make_sparse,
    output_gradient_for,
    positions_of,
    product,
    values_of,
)

import spgrad


@ALL_DTYPES
@SIZES
@ALL_KINDS
def test_the_product_is_that_of_the_dense_matrices(kind, size, dtype):
    A = make_sparse(kind, size, dtype=dtype)
    B = dense_for(A)
    C = spgrad.sparse_mm(A, B)
    assert C.dtype == dtype
    assert C.is_contiguous()
    assert not C.requires_grad
    assert_dense(C, product(A, B))


def test_a_small_product_by_hand():
    A = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]])
    B = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    expected = torch.tensor([[4.0, 40.0], [15.0, 150.0]])
    assert torch.equal(spgrad.sparse_mm(A.to_sparse(), B), expected)
    assert torch.equal(spgrad.sparse_mm(A.to_sparse_csr(), B), expected)


def test_duplicates_add_up():
    A = torch.sparse_coo_tensor([[1, 0, 1], [0, 1, 0]], torch.tensor([3.0, 2.0, 4.0]), (2, 2))
    C = spgrad.sparse_mm(A, torch.tensor([[1.0], [10.0]]))
    assert torch.equal(C, torch.tensor([[20.0], [7.0]]))


def test_duplicate_and_unsorted_columns_of_a_csr_row_add_up():
    A = torch.sparse_csr_tensor([0, 3, 4], [2, 0, 2, 1], torch.tensor([1.0, 2.0, 3.0, 4.0]), (2, 3))
    C = spgrad.sparse_mm(A, torch.tensor([[1.0], [10.0], [100.0]]))
    assert torch.equal(C, torch.tensor([[402.0], [40.0]]))


@ALL_DTYPES
@ALL_KINDS
def test_real_numbers_come_out_within_rounding_errors(kind, dtype):
    A = make_sparse(kind, (50, 300), dtype=dtype)
    B = dense_for(A, 20)
    fill(torch.rand, values_of(A), B)
    C = spgrad.sparse_mm(A, B)
    # The parts of all numbers are positive: the error of a sum of 160 terms is well under 160 units
    # of rounding of the dtype that sums are made in, and one of the result.
    summed_in = dtype if dtype.itemsize > 2 else torch.float32
    tolerance = 160 * torch.finfo(summed_in).eps + torch.finfo(dtype).eps / 2
    torch.testing.assert_close(exact(C), product(A, B), rtol=tolerance, atol=0)


@ALL_DTYPES
@BOTH_FORMS
def test_sums_over_long_rows_and_columns_are_rounded_once(kind, dtype):
    for size in ((3, 9000), (9000, 3)):
        A = make_sparse(kind, size, 20_000, dtype=dtype).requires_grad_()
        B, G = dense_for(A, 5).requires_grad_(), output_gradient_for(A, 5)
        C = spgrad.sparse_mm(A, B)
        assert_dense(C, product(A, B))
        C.backward(G)
        assert_gradients(A, B, G)


@pytest.mark.parametrize("kind", ["coalesced", "csr64"])
def test_not_a_number_and_infinity_reach_only_the_rows_that_refer_to_them(kind):
    A = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    A = A.to_sparse_csr() if kind == "csr64" else A.to_sparse()
    C = spgrad.sparse_mm(A, torch.tensor([[float("nan")], [float("inf")], [5.0]]))
    assert C[0].isnan().item()
    assert C[1:].tolist() == [[float("inf")], [5.0]]


@SIZES
@ALL_KINDS
def test_the_products_of_plain_tensors_are_the_same(kind, size):
    A = make_sparse(kind, size)
    B = dense_for(A)
    assert_dense(function_of(A)(values_of(A), B), product(A, B))


@ALL_KINDS
def test_the_product_does_not_change_its_arguments(kind):
    A = make_sparse(kind, BATCHED)
    B = dense_for(A)
    before = [x.clone() for x in (*positions_of(A), values_of(A), B)]
    C = spgrad.sparse_mm(A, B)
    C.fill_(99.0)
    after = (*positions_of(A), values_of(A), B)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_a_matrix_with_more_rows_and_columns_than_entries_needs_no_dense_matrix():
    n = 3_000_000  # n by n would be terabytes
    indices = torch.tensor([[5, n - 1, 7], [n - 1, 0, 7]])
    A = torch.sparse_coo_tensor(indices, torch.tensor([2.0, 3.0, 4.0]), (n, n))
    B = torch.zeros(n, 1)
    B[0], B[7], B[n - 1] = 1.0, 10.0, 100.0
    C = spgrad.sparse_mm(A, B)
    assert C.count_nonzero() == 3
    assert C[[5, 7, n - 1], 0].tolist() == [200.0, 40.0, 3.0]
