"""Products and derivatives over ranks, beside one process and dense float64."""

import functools

import matrices
import pytest
import torch
from ranks import on_threads
from sharded import on_ranks, product_on_ranks, products_at_entries_on_ranks

import spgrad
from spgrad.distributed import _places, _products, _ranks

SIZES = (2, 8)


def on_one_process(matrix, given):
    mm = functools.partial(spgrad.csr_mm, matrix.crow_indices, matrix.col_indices)
    sddmm = functools.partial(spgrad.csr_sddmm, matrix.crow_indices, matrix.col_indices)
    return matrices.derivatives(mm, sddmm, given)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", matrices.MATRICES)
def test_all_derivatives_are_those_of_a_dense_matrix(name, size):
    matrix = matrices.MATRICES[name]
    given = matrices.operands(matrix, 4)
    expected = matrices.derivatives_of_dense(matrix, given)
    for result, other in zip(on_ranks(size, matrix, given), expected, strict=True):
        assert torch.equal(result, other)


@pytest.mark.parametrize("name", ["grid", "more ranks than rows"])
def test_64_ranks_have_the_derivatives_of_a_dense_matrix(monkeypatch, name):
    # What more than 16 processes do, PyTorch's ranks as threads cannot.
    monkeypatch.setattr(_ranks, "_MOST_IN_A_RING", 64)
    test_all_derivatives_are_those_of_a_dense_matrix(name, 64)


@pytest.mark.parametrize("size", [2, 5])
def test_rows_in_short_runs_are_those_of_a_dense_matrix(monkeypatch, size):
    monkeypatch.setattr(_places, "_ROWS_OF_RUN", 1)
    monkeypatch.setattr(_products, "_MOST_RUNS_IN_PLACE", 64)
    test_all_derivatives_are_those_of_a_dense_matrix("grid in any order", size)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_numbers_have_conjugates_where_one_process_has_them(dtype):
    matrix = matrices.MATRICES["random"]
    given = matrices.operands(matrix, 3, dtype=dtype)
    for result, expected in zip(
        on_ranks(3, matrix, given), on_one_process(matrix, given), strict=True
    ):
        assert torch.equal(result, expected)


@pytest.mark.parametrize(
    ("dtype", "p"),
    [
        (torch.float32, 1),
        (torch.float32, 130),
        (torch.float64, 5),
        (torch.float16, 130),
        (torch.bfloat16, 5),
    ],
)
def test_product_and_gradient_of_values_have_the_same_bits_on_any_number_of_ranks(dtype, p):
    for name in ("grid", "random", "a long row"):
        matrix = matrices.MATRICES[name]
        given = matrices.operands(matrix, p, matrices.floats, dtype=dtype)
        alone = on_one_process(matrix, given)
        for size in (2, 5):
            together = on_ranks(size, matrix, given)
            for number in (0, 1, 5):  # C, dA, the sampled product
                assert torch.equal(together[number], alone[number])


def test_a_square_matrix_has_rows_of_B_where_it_has_rows():
    matrix = matrices.MATRICES["grid"]
    given = matrices.operands(matrix, 4)

    starts = [0, 3, 30, 36]
    for A in on_threads(3, lambda mesh: matrices.share(mesh, matrix, row_starts=starts)):
        assert A.row_starts == A.column_starts == tuple(starts)
    C = product_on_ranks(3, matrix, given, row_starts=starts)
    assert torch.equal(C, matrix.dense(given.values) @ given.B)


def test_gradient_of_B_has_the_same_bits_in_every_run():
    matrix = matrices.random(60, 60, 900)
    given = matrices.operands(matrix, 7, matrices.floats)
    first, second = (on_ranks(4, matrix, given) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.allclose(first[2], on_one_process(matrix, given)[2], rtol=1e-5, atol=1e-4)


def in_blocks_of_columns(order):
    """Make a matrix that the kernels multiply in blocks of columns, with p = 640 and above."""
    matrix = matrices.random(64, 2048, 64 * 600)
    rows = torch.repeat_interleave(torch.arange(64), matrix.crow_indices.diff())
    columns = matrix.col_indices
    if order == "near":  # so that some rows of each rank have no halo
        columns = (columns // 8 + rows * 28).clamp(max=2047)
    if order in {"near", "sorted"}:
        columns = columns[(rows * 2048 + columns).argsort(stable=True)]
    return matrix._replace(col_indices=columns)


@pytest.mark.parametrize(
    ("order", "dtype"),
    [
        ("any", torch.float32),
        ("sorted", torch.float32),
        ("near", torch.float64),
        ("sorted", torch.complex64),
        ("near", torch.bfloat16),
    ],
)
def test_blocks_of_columns_are_those_of_the_whole_matrix_on_any_number_of_ranks(order, dtype):
    matrix = in_blocks_of_columns(order)
    given = matrices.operands(matrix, 640, matrices.floats, dtype=dtype)
    indices = matrix.crow_indices, matrix.col_indices
    alone = spgrad.csr_mm(*indices, given.values, given.B)

    products = spgrad.csr_sddmm(*indices, given.X, given.B.conj())
    for size in (2, 5):
        C, of_values = products_at_entries_on_ranks(size, matrix, given)
        assert torch.equal(C, alone)
        assert all(torch.equal(found, products) for found in of_values)


def test_a_few_rows_alone_are_not_done_in_blocks_of_columns():
    # So that the test above would fail if ranks chose blocks by the matrix that they have.
    matrix = in_blocks_of_columns("sorted")
    given = matrices.operands(matrix, 640, matrices.floats)
    alone = spgrad.csr_mm(matrix.crow_indices, matrix.col_indices, given.values, given.B)
    end = int(matrix.crow_indices[8])
    few = spgrad.csr_mm(
        matrix.crow_indices[:9], matrix.col_indices[:end], given.values[:end], given.B
    )
    assert torch.allclose(few, alone[:8], rtol=1e-5, atol=1e-4)
    assert not torch.equal(few, alone[:8])


@pytest.mark.parametrize("rounds", [1, 3])
def test_autocast_is_that_of_one_process(rounds):
    matrix = matrices.MATRICES["random"]
    given = matrices.operands(matrix, 4)
    dtype = torch.bfloat16

    def products(mesh):
        most = None if rounds == 1 else 8 * matrix.shape[1] // rounds
        A = matrices.share(mesh, matrix, max_halo_bytes=most)
        mine = matrices.of_rank(A, given)
        values, B = mine.values.float().requires_grad_(), mine.B.float().requires_grad_()
        with torch.autocast("cpu", dtype):
            C = A.mm(values, B)
            sampled = A.sddmm(mine.X.float(), mine.B.float())
        gradients = torch.autograd.grad(C, (values, B), mine.X.to(dtype))
        return C.detach(), sampled, *gradients

    indices = matrix.crow_indices, matrix.col_indices
    values, B = given.values.float().requires_grad_(), given.B.float().requires_grad_()
    with torch.autocast("cpu", dtype):
        C = spgrad.csr_mm(*indices, values, B)
        sampled = spgrad.csr_sddmm(*indices, given.X.float(), given.B.float())
    expected = C.detach(), sampled, *torch.autograd.grad(C, (values, B), given.X.to(dtype))
    for parts, alone in zip(zip(*on_threads(3, products), strict=True), expected, strict=True):
        together = torch.cat(parts)
        assert together.dtype == alone.dtype
        assert torch.allclose(together.float(), alone.float(), rtol=0.02, atol=0.1)


def test_a_zero_below_zero_stays_one():
    # A product that is too small for its dtype, of a row with halo.
    matrix = matrices.Matrix(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), (2, 2))
    values = torch.full((2,), -1e-30)
    B = torch.full((2, 3), 1e-30)
    given = matrices.Operands(values, B, B, values, B)

    alone = spgrad.csr_mm(matrix.crow_indices, matrix.col_indices, values, B)
    assert torch.equal(product_on_ranks(2, matrix, given).signbit(), alone.signbit())


def test_one_rank_calls_what_a_pattern_calls():
    matrix = matrices.MATRICES["random"]
    given = matrices.operands(matrix, 4)
    A = on_threads(1, matrices.share, matrix)[0]
    pattern = spgrad.Pattern.from_csr(*matrix)
    for operands, one, other in (
        ((given.values, given.B), A.mm, pattern.mm),
        ((given.X, given.B), A.sddmm, pattern.sddmm),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in operands]
        results = one(*leaves), other(*leaves)
        assert torch.equal(*results)
        assert results[0].grad_fn.name() == results[1].grad_fn.name()


def test_where_a_halo_in_rounds_rounds_sums_anew_gradients_of_values_keep_their_bits():
    matrix = matrices.random(40, 40, 600)
    given = matrices.operands(matrix, 7, matrices.floats)
    indices = matrix.crow_indices, matrix.col_indices

    four_rounds = 9 * 7 * 4
    C, others = products_at_entries_on_ranks(4, matrix, given, max_halo_bytes=four_rounds)
    expected = spgrad.csr_mm(*indices, given.values, given.B)
    assert torch.allclose(C, expected, rtol=1e-5, atol=1e-4)
    products = spgrad.csr_sddmm(*indices, given.X, given.B)
    assert all(torch.equal(other, products) for other in others)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_wanted_gradients_are_computed(wanted):
    matrix = matrices.MATRICES["random"]
    given = matrices.operands(matrix, 4)
    expected = on_one_process(matrix, given)[1:3]

    def gradients(mesh):
        A = matrices.share(mesh, matrix)
        mine = matrices.of_rank(A, given)
        mine.values.requires_grad_(wanted[0])
        mine.B.requires_grad_(wanted[1])
        C = A.mm(mine.values, mine.B)
        assert C.requires_grad == any(wanted)
        if C.requires_grad:
            C.backward(mine.X)
        return mine.values.grad, mine.B.grad

    results = on_threads(3, gradients)
    for place, grads in enumerate(zip(*results, strict=True)):
        if wanted[place]:
            assert torch.equal(torch.cat(grads), expected[place])
        else:
            assert grads == (None,) * 3


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize(
    "change",
    [
        lambda B: B.mT.contiguous().mT,
        lambda B: torch.cat([B, B], 1)[:, : B.shape[1]],
        lambda B: B.repeat_interleave(2, 0)[::2],
        lambda B: torch._neg_view(-B),  # negated when it is read
    ],
)
def test_operands_as_they_may_lie_in_memory_are_taken(size, change):
    matrix = matrices.MATRICES["grid"]
    given = matrices.operands(matrix, 4)

    C = product_on_ranks(size, matrix, given, change)
    assert torch.equal(C, on_one_process(matrix, given)[0])
