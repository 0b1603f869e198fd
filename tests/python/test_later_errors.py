"""Errors of kernels that nobody waits for: NaN in the result, and the error with the next call."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import spgrad
from spgrad import _library

OPERATORS = torch.ops.spgrad
CROW, COL = torch.tensor([0, 2, 2, 3]), torch.tensor([0, 3, 1])
ROWS = torch.tensor([0, 0, 2])
N, M, P = 3, 4, 2


@pytest.fixture(autouse=True)
def later(backend):
    """Let errors come later, as users have it."""
    if backend not in {"cuda", "cuda-emulation"}:
        pytest.skip("the kernels of CUDA alone let errors come later")
    before = spgrad.cuda.check_at_once(False)
    yield
    spgrad.cuda.check_at_once(before)


def changed(tensor, place, number):
    """Copy a tensor, with another number at a place."""
    copy = tensor.clone()
    copy[place] = number
    return copy


def csr_calls(crow, col, p=P):
    """Give the products of a CSR matrix."""
    values, B, G = torch.ones(len(col)), torch.ones(M, p), torch.ones(len(crow) - 1, p)
    return {
        "mm": lambda: OPERATORS.csr_mm(crow, col, values, B),
        "extremum": lambda: OPERATORS.csr_mm_extremum(crow, col, values, B, True)[0],
        "transposed": lambda: OPERATORS.csr_mm_transposed(crow, col, values, M, G),
        "sddmm": lambda: OPERATORS.csr_sddmm(crow, col, G, B),
        "backward": lambda: OPERATORS.csr_mm_backward(crow, col, values, B, G),
    }


def coo_calls(indices, p=P):
    """Give the products of a COO matrix."""
    values, B, G = torch.ones(indices.shape[1]), torch.ones(M, p), torch.ones(N, p)
    return {
        "mm": lambda: OPERATORS.coo_mm(indices, values, (N, M), B),
        "extremum": lambda: OPERATORS.coo_mm_extremum(indices, values, (N, M), B, True)[0],
        "transposed": lambda: OPERATORS.coo_mm_transposed(indices, values, (N, M), G),
        "sddmm": lambda: OPERATORS.coo_sddmm(indices, (N, M), G, B),
        "backward": lambda: OPERATORS.coo_mm_backward(indices, values, (N, M), B, G),
    }


# What is spoiled, what the error says, and which rows of C and which entries are NaN where not all
# of them are.
COLUMN = "col_indices must be in [0, 4), but received 9 at position 1"
CASES = {
    "column of CSR": (lambda p: csr_calls(CROW, changed(COL, 1, 9), p), COLUMN, [0], [1]),
    "offset": (
        lambda p: csr_calls(changed(CROW, 1, 7), COL, p),
        "crow_indices must not decrease, but received 7 at position 1 and then 2",
        [0, 1, 2],
        [0, 1, 2],
    ),
    "column of COO": (
        lambda p: coo_calls(torch.stack([ROWS, changed(COL, 2, -1)]), p),
        "indices of columns must be in [0, 4), but received -1 at position 2",
        [2],
        [2],
    ),
    "row of COO": (
        lambda p: coo_calls(torch.stack([changed(ROWS, 0, 3), COL]), p),
        "indices of rows must be in [0, 3), but received 3 at position 0",
        [0, 1, 2],
        [0, 1, 2],
    ),
}


def good_product():
    """Multiply what is good."""
    return spgrad.csr_mm(CROW, COL, torch.ones(3), torch.ones(M, P))[:, 0].tolist()


def emulated_driver(backend):
    """Give the driver of the emulation, which counts its calls."""
    if backend != "cuda-emulation":
        pytest.skip("needs the driver of the emulation")
    (file,) = _library.library_path().parent.glob("libspgrad_cuda_emulation.*")
    driver = ctypes.CDLL(file)
    driver.emulation_calls.restype = ctypes.c_ulonglong
    return driver


def rows_with_nan(result):
    """List the rows that are NaN, each as a whole."""
    nan = result.isnan().reshape(len(result), -1)
    assert torch.equal(nan.any(1), nan.all(1))
    return nan.any(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("product", ["mm", "extremum", "transposed", "sddmm", "backward"])
@pytest.mark.parametrize("case", CASES)
def test_a_bad_index_leaves_nan_and_the_error_comes_with_the_next_call(case, product):
    calls, message, rows, entries = CASES[case]
    results = calls(P)[product]()
    if product in {"mm", "extremum"}:
        assert rows_with_nan(results) == rows
    elif product == "sddmm":
        assert rows_with_nan(results) == entries
    else:
        results = results if isinstance(results, tuple) else (results,)
        assert all(result.isnan().all() for result in results)
    with pytest.raises(RuntimeError) as raised:
        good_product()
    assert str(raised.value).splitlines()[0] == message
    assert good_product() == [2, 0, 1]
    spgrad.cuda.check()


@pytest.mark.parametrize("product", ["sddmm", "backward"])
@pytest.mark.parametrize("case", CASES)
def test_products_without_columns_leave_nan_too(case, product):
    calls, message, _, _ = CASES[case]
    results = calls(0)[product]()
    assert (results if product == "sddmm" else results[0]).isnan().all()
    with pytest.raises(RuntimeError) as raised:
        spgrad.cuda.check()
    assert str(raised.value).splitlines()[0] == message


def test_bad_offsets_of_a_matrix_without_entries_leave_nan():
    nothing = torch.empty(0, dtype=torch.int64)
    C = OPERATORS.csr_mm(torch.tensor([0, 5, 0]), nothing, torch.ones(0), torch.ones(0, P))
    with pytest.raises(RuntimeError, match="must not decrease, but received 5 at position 1"):
        spgrad.cuda.check()
    Ct = OPERATORS.csr_mm_transposed(torch.tensor([5]), nothing, torch.ones(0), M, torch.ones(0, P))
    with pytest.raises(RuntimeError, match="must start with 0, but received 5"):
        spgrad.cuda.check()
    assert C.isnan().all()
    assert Ct.isnan().all()
    assert Ct.shape == (M, P)


@pytest.mark.parametrize("crow", [CROW, changed(CROW, 1, 7)], ids=["index", "offset"])
def test_structures_are_checked_where_there_are_no_heads(crow):
    col = changed(COL, 1, 9)
    message = "must be in" if crow is CROW else "must not decrease"
    values, B, G = torch.ones(3), torch.ones(M, P), torch.ones(N, P)
    for call in (
        lambda: OPERATORS.csr_mm(crow, col, values.expand(0, 3), B),
        lambda: OPERATORS.csr_mm_extremum(crow, col, values.expand(0, 3), B, False),
        lambda: OPERATORS.csr_mm_transposed(crow, col, values, M, G.expand(0, N, P)),
        lambda: OPERATORS.csr_sddmm(crow, col, G, B.expand(0, M, P)),
        lambda: OPERATORS.csr_mm_backward(crow, col, values, B, G.expand(0, N, P)),
    ):
        call()
        with pytest.raises(RuntimeError, match=message):
            spgrad.cuda.check()


@pytest.mark.parametrize("reduce", ["sum", "mean", "amax", "amin"])
def test_every_reduction_raises_the_error_of_the_product_before(reduce):
    csr_calls(CROW, changed(COL, 1, 9))["mm"]()
    with pytest.raises(RuntimeError) as raised:
        spgrad.csr_mm(CROW, COL, torch.ones(3), torch.ones(M, P), reduce=reduce)
    assert str(raised.value).splitlines()[0] == COLUMN


def test_asking_for_the_indices_of_a_pattern_raises_it_too():
    pattern = spgrad.Pattern.from_csr(CROW, COL, (N, M))
    csr_calls(CROW, changed(COL, 1, 9))["mm"]()
    with pytest.raises(RuntimeError) as raised:
        pattern.indices()
    assert str(raised.value).splitlines()[0] == COLUMN
    assert pattern.indices().tolist() == [ROWS.tolist(), COL.tolist()]


def test_entries_of_a_pattern_may_begin_anywhere():
    made = OPERATORS.csr_pattern(CROW, COL, M)
    moved = []
    for tensor in made:
        place = tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape)
        moved.append(place.copy_(tensor))
    assert moved[3].dim() == 2
    values, B, G = torch.tensor([1.0, 2.0, 3.0]), torch.ones(M, P), torch.ones(N, P)
    for call in (
        lambda *pattern: OPERATORS.pattern_mm(*pattern, (N, M), values, B),
        lambda *pattern: OPERATORS.pattern_mm_transposed(*pattern, (N, M), values, G),
        lambda *pattern: OPERATORS.pattern_mm_backward(*pattern, (N, M), values, B, G)[0],
    ):
        assert torch.equal(call(*moved), call(*made))
    spgrad.cuda.check()


def test_the_host_waits_for_the_kernel_before_it_reads_what_that_found(backend):
    calls = emulated_driver(backend).emulation_calls
    good_product()
    before = calls(b"cuStreamSynchronize")
    csr_calls(CROW, changed(COL, 1, 9))["mm"]()
    assert calls(b"cuStreamSynchronize") == before
    with pytest.raises(RuntimeError):
        good_product()
    assert calls(b"cuStreamSynchronize") == before + 1


# More than those whose memory is cleared at once.
MANY = 70


def test_a_product_knows_nothing_of_what_others_have_found():
    bad_offset = csr_calls(changed(CROW, 1, 7), COL)["mm"]
    unsorted = coo_calls(torch.stack([ROWS.flip(0), COL.flip(0)]))["mm"]
    for _ in range(MANY):
        assert bad_offset().isnan().all()
        with pytest.raises(RuntimeError, match="must not decrease"):
            spgrad.cuda.check()
        assert good_product() == [2, 0, 1]
        assert unsorted()[:, 0].tolist() == [2, 0, 1]


def test_products_of_several_threads_know_nothing_of_each_other():
    count = 3000  # of a row that is done in pieces, which are counted
    crow, col = torch.tensor([0, count]), torch.zeros(count, dtype=torch.int64)
    values, B = torch.ones(count), torch.ones(1, P)

    def multiply(_):
        return [OPERATORS.csr_mm(crow, col, values, B)[0].tolist() for _ in range(MANY)]

    with ThreadPoolExecutor(3) as pool:
        for results in pool.map(multiply, range(3)):
            assert results == [[count] * P] * MANY
    spgrad.cuda.check()


def test_memory_is_cleared_for_many_products_at_once_but_in_a_graph_for_each(backend):
    driver = emulated_driver(backend)

    def cleared():
        before = driver.emulation_calls(b"cuMemsetD8Async")
        for _ in range(MANY):
            assert good_product() == [2, 0, 1]
        return driver.emulation_calls(b"cuMemsetD8Async") - before

    assert 1 <= cleared() <= 2
    driver.emulation_capture(True)
    try:
        assert cleared() == MANY
    finally:
        driver.emulation_capture(False)
    assert 1 <= cleared() <= 2
