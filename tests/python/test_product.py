"""The product itself, by dense matrices, by hand and by its rounding errors."""

import torch
from cases import ALL_DTYPES, ALL_KINDS, ALL_LAYOUTS, SIZES
from forms import assert_leaves_right, fill, function_of, leaves
from oracle import (
    BATCHED,
    assert_dense,
    assert_sparse,
    dense_for,
    exact,
    make_sparse,
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


def test_a_small_product_and_its_gradients_by_hand():
    dense = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]])
    for A in (dense.to_sparse(), dense.to_sparse_csr()):
        B = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], requires_grad=True)
        C = spgrad.sparse_mm(A.requires_grad_(), B)
        assert C.tolist() == [[4.0, 40.0], [15.0, 150.0]]
        C.backward(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        assert_sparse(A.grad, A, torch.tensor([22.0, -9.0, -27.0]))
        assert B.grad.tolist() == [[3.0, -3.0], [2.0, 2.0], [4.0, -4.0]]


def test_duplicates_add_up_and_each_has_the_whole_gradient():
    indices = torch.tensor([[1, 0, 1], [0, 1, 0]])
    A = torch.sparse_coo_tensor(indices, torch.tensor([3.0, 2.0, 4.0]), (2, 2)).requires_grad_()
    C = spgrad.sparse_mm(A, torch.tensor([[1.0, 2.0], [10.0, 20.0]]))
    assert C.tolist() == [[20.0, 40.0], [7.0, 14.0]]
    C.sum().backward()
    assert torch.equal(A.grad._indices(), indices)
    assert A.grad._values().tolist() == [3.0, 30.0, 3.0]
    assert not A.grad.is_coalesced()


def test_duplicate_and_unsorted_columns_of_a_csr_row_add_up_and_keep_their_order():
    col, values = torch.tensor([2, 0, 2, 1]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    A = torch.sparse_csr_tensor([0, 3, 4], col, values, (2, 3)).requires_grad_()
    C = spgrad.sparse_mm(A, torch.tensor([[1.0], [10.0], [100.0]]))
    assert C.tolist() == [[402.0], [40.0]]
    C.sum().backward()
    assert torch.equal(A.grad.col_indices(), col)
    assert A.grad.values().tolist() == [100.0, 1.0, 100.0, 10.0]


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
@ALL_LAYOUTS
def test_sums_over_long_rows_and_columns_are_rounded_once(kind, dtype):
    for size in ((3, 10_001), (10_001, 3)):
        assert_leaves_right(*leaves(kind, size, 25_000, p=5, dtype=dtype))


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
