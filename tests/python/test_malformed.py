"""Structures that do not fit the shape, or themselves, are errors and never wrong reads."""

import json

import malformed
import pytest
import torch
from forms import assert_leaves_right
from oracle import dense_for, integers, output_gradient_for
from programs import run_python

import spgrad


@pytest.fixture(scope="module")
def outcomes(backend):
    """Run the program that makes all attempts; what it says about each."""
    # glibc fills memory that was freed or never written with a pattern, which makes reading it
    # show.
    done = run_python(malformed.__file__, backend, MALLOC_PERTURB_="165")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"crashed at {lines[-1] if lines else None}: {done.stderr[-2000:]}"
    return list(zip(lines[::2], lines[1::2], strict=True))


def test_a_program_with_malformed_structures_survives(outcomes):
    assert len(outcomes) == sum(1 for _ in malformed.attempts())


@pytest.mark.parametrize(
    "product",
    ["mm", "transposed", "sddmm", "backward", "sparse_mm", "sparse sddmm"],
)
def test_every_product_refuses_every_malformed_structure_with_its_reason(outcomes, product):
    chosen = [outcome for outcome in outcomes if outcome[0][0].split(",")[0] == product]
    assert len(chosen) > 100
    for (name, message), error in chosen:
        assert error is not None, name
        assert message in error, name


@pytest.mark.parametrize("wanted", ["A", "B", "AB"])
def test_every_backward_pass_refuses_a_structure_spoiled_after_forward(outcomes, wanted):
    start = f"backward to {wanted}, spoiled"
    chosen = [outcome for outcome in outcomes if outcome[0][0].startswith(start)]
    assert len(chosen) > 60
    for (name, message), error in chosen:
        assert error is not None, name
        assert message in error, name


def test_the_item_of_a_malformed_batch_is_named():
    crow = torch.tensor([[0, 1], [0, 1]])
    A = torch.sparse_csr_tensor(crow, torch.tensor([[0], [9]]), torch.ones(2, 1), (2, 1, 3))
    message = r"col_indices of item 1 must be in \[0, 3\), but received 9 at position 0"
    with pytest.raises(RuntimeError, match=message):
        spgrad.sparse_mm(A, torch.ones(2, 3, 1))


@pytest.mark.parametrize("size", [(0, 4), (3, 0), (0, 0)], ids=["no rows", "no columns", "neither"])
def test_entries_of_a_matrix_without_places_for_them_are_refused(size):
    B = torch.ones(size[1], 2)
    with pytest.raises(RuntimeError, match=r"must be in|must end with"):
        spgrad.coo_mm(torch.tensor([[0], [0]]), torch.ones(1), size, B)
    crow = torch.zeros(size[0] + 1, dtype=torch.int64)
    crow[-1] = 1 if size[0] else 0
    with pytest.raises(RuntimeError, match=r"must be in|must end with"):
        spgrad.csr_mm(crow, torch.tensor([0]), torch.ones(1), B)


@pytest.mark.parametrize("size", [(0, 3, 4), (2, 0, 4)], ids=["no items", "no rows"])
def test_entries_of_an_empty_batch_are_refused(size):
    with pytest.raises(RuntimeError, match="must be in"):
        spgrad.coo_mm(torch.zeros(3, 1).long(), torch.ones(1), size, torch.ones(size[0], 4, 2))


@pytest.mark.parametrize(
    "indices",
    [
        pytest.param([[2, 0, 1], [0, 1, 2]], id="unsorted"),
        pytest.param([[0, 1, 1], [0, 2, 2]], id="duplicates"),
        pytest.param([[1, 0, 1], [2, 0, 2]], id="both"),
    ],
)
def test_nothing_relies_on_a_coalesced_flag_that_lies(indices):
    A = torch.sparse_coo_tensor(indices, integers(3), (3, 4), is_coalesced=True).requires_grad_()
    assert_leaves_right(A, dense_for(A).requires_grad_(), output_gradient_for(A))


def test_malformed_indices_are_refused_even_where_there_is_nothing_to_compute():
    with pytest.raises(RuntimeError, match="must be in"):
        spgrad.coo_mm(torch.tensor([[0], [4]]), torch.ones(1), (3, 4), torch.ones(4, 0))
    crow, col = torch.tensor([0, 1]), torch.tensor([4])
    with pytest.raises(RuntimeError, match="must be in"):
        spgrad.csr_mm(crow, col, torch.ones(1), torch.ones(4, 0))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("size", [(), (5,), (1, 2, 3, 4), (-1, 3)])
def test_sizes_that_are_no_matrix_are_refused(size, device):
    indices = torch.zeros(2, 0, dtype=torch.int64, device=device)
    values, B = torch.ones(0, device=device), torch.ones(3, 1, device=device)
    operators = torch.ops.spgrad
    for call in (
        lambda: operators.coo_mm(indices, values, size, B),
        lambda: operators.coo_mm_transposed(indices, values, size, B),
        lambda: operators.coo_sddmm(indices, size, B, B),
        lambda: operators.coo_mm_backward(indices, values, size, B, B),
    ):
        with pytest.raises(ValueError, match=r"^size must"):
            call()


@pytest.mark.parametrize("size", [(4, 2**62, 3), (4, 3, 2**62), (1, 2**63 - 1, 3)])
def test_sizes_that_overflow_are_refused(size):
    items, rows, columns = size
    indices = torch.tensor([[0], [10**9], [1]])
    operator, height = torch.ops.spgrad.coo_mm, columns
    if columns > rows:
        operator, height = torch.ops.spgrad.coo_mm_transposed, rows
    with pytest.raises(ValueError, match=r"must be fewer than 2\^60"):
        operator(indices, torch.ones(1), size, torch.ones(items, height, 1))
