"""What sparse_mm and the products of plain tensors refuse, in which order and in which words."""

import re
from functools import partial

import pytest
import torch

import spgrad

NOT_TENSORS = "Both A and B should be instances of torch.Tensor"
LOW_RANK = "Both A and B should be at least 2-dimensional tensors"
RANKS = "A and B must both be 2D or both be 3D tensors"
LAYOUT_OF_A = "A should be in either COO or CSR sparse format"
LAYOUT_OF_B = "B must be a dense (strided) tensor"
BATCHES = "If batched, A and B must have the same batch size"


LAYOUTS = {
    torch.strided: "Strided",
    torch.sparse_coo: "Sparse",
    torch.sparse_csr: "SparseCsr",
    torch.sparse_csc: "SparseCsc",
    torch.sparse_bsr: "SparseBsr",
    torch.sparse_bsc: "SparseBsc",
}
RECEIVED = {
    NOT_TENSORS: lambda A, B: f"{type(A).__name__} and {type(B).__name__}",
    LOW_RANK: lambda A, B: f"shapes {list(A.shape)} and {list(B.shape)}",
    RANKS: lambda A, B: f"shapes {list(A.shape)} and {list(B.shape)}",
    LAYOUT_OF_A: lambda A, _: f"layout {LAYOUTS[A.layout]}",
    LAYOUT_OF_B: lambda _, B: f"layout {LAYOUTS[B.layout]}",
    BATCHES: lambda A, B: f"{A.shape[0]} and {B.shape[0]}",
}


def whole(message, A, B):
    """Write a message with what was received; that of inner sizes has it."""
    return f"{message}, but received {RECEIVED[message](A, B)}" if message in RECEIVED else message


def inner(columns, rows):
    """Write the message of inner sizes that differ."""
    return f"Incompatible inner dimensions: A[..., {columns}] vs B[..., {rows}]"


def coo(*size, dtype=torch.float32):
    """Make a COO tensor of ones."""
    return torch.ones(size, dtype=dtype).to_sparse()


def csr(*size, dtype=torch.float32):
    """Make a CSR tensor of ones."""
    return torch.ones(size, dtype=dtype).to_sparse_csr()


def hybrid():
    """Make a COO tensor of rank 3 with one dense dimension."""
    return torch.ones(2, 3, 4).to_sparse(2)


ones = torch.ones
half = torch.float16

# One violation each, in the order of the checks.
SINGLE = [
    pytest.param([[1.0]], ones(4, 2), NOT_TENSORS, id="A is a list"),
    pytest.param(coo(3, 4), None, NOT_TENSORS, id="B is None"),
    pytest.param(3, "B", NOT_TENSORS, id="both are no tensors"),
    pytest.param(coo(4), ones(4, 2), LOW_RANK, id="A is a vector"),
    pytest.param(csr(3, 4), ones(4), LOW_RANK, id="B is a vector"),
    pytest.param(csr(3, 4), torch.tensor(1.0), LOW_RANK, id="B is a number"),
    pytest.param(coo(3, 4), ones(2, 4, 2), RANKS, id="COO of 2 and B of 3 dimensions"),
    pytest.param(csr(2, 3, 4), ones(4, 2), RANKS, id="CSR of 3 and B of 2 dimensions"),
    pytest.param(coo(2, 2, 3, 4), ones(2, 2, 4, 2), RANKS, id="COO of 4 dimensions"),
    pytest.param(csr(2, 2, 3, 4), ones(2, 2, 4, 2), RANKS, id="CSR of 4 dimensions"),
    pytest.param(ones(3, 4), ones(4, 2), LAYOUT_OF_A, id="A is dense"),
    pytest.param(ones(3, 4).to_sparse_csc(), ones(4, 2), LAYOUT_OF_A, id="A is CSC"),
    pytest.param(ones(4, 4).to_sparse_bsr((2, 2)), ones(4, 2), LAYOUT_OF_A, id="A is BSR"),
    pytest.param(ones(4, 4).to_sparse_bsc((2, 2)), ones(4, 2), LAYOUT_OF_A, id="A is BSC"),
    pytest.param(csr(3, 4), coo(4, 2), LAYOUT_OF_B, id="B is COO"),
    pytest.param(coo(3, 4), csr(4, 2), LAYOUT_OF_B, id="B is CSR"),
    pytest.param(coo(2, 3, 4), ones(3, 4, 2), BATCHES, id="batch sizes of COO differ"),
    pytest.param(csr(2, 3, 4), ones(1, 4, 2), BATCHES, id="batch sizes of CSR differ"),
    pytest.param(coo(3, 4), ones(5, 2), inner(4, 5), id="inner sizes of COO differ"),
    pytest.param(csr(2, 3, 4), ones(2, 1, 4), inner(4, 1), id="inner sizes of CSR differ"),
    pytest.param(csr(3, 4), ones(3, 4), inner(4, 3), id="B would fit the transposed A"),
]

# Two violations at once: the first check decides.
PAIRS = [
    pytest.param(None, ones(4), NOT_TENSORS, id="no tensor, low rank"),
    pytest.param(coo(3, 4), [ones(2, 4, 2)], NOT_TENSORS, id="no tensor, layout"),
    pytest.param(ones(4), ones(4, 2), LOW_RANK, id="low rank, layout of A"),
    pytest.param(coo(4), ones(2, 4, 2), LOW_RANK, id="low rank, ranks differ"),
    pytest.param(coo(3, 4), coo(5), LOW_RANK, id="low rank, layout of B"),
    pytest.param(ones(2, 3, 4), ones(4, 2), RANKS, id="ranks, layout of A"),
    pytest.param(csr(3, 4), coo(2, 4, 2), RANKS, id="ranks, layout of B"),
    pytest.param(coo(2, 3, 4), ones(5, 2), RANKS, id="ranks, inner sizes"),
    pytest.param(ones(2, 2, 3, 4), ones(2, 2, 4, 2), RANKS, id="4 dimensions, layout of A"),
    pytest.param(coo(2, 2, 3, 4), ones(3, 2, 4, 2), RANKS, id="4 dimensions, batch sizes"),
    pytest.param(ones(3, 4), coo(4, 2), LAYOUT_OF_A, id="layout of A, layout of B"),
    pytest.param(ones(2, 3, 4), ones(3, 4, 2), LAYOUT_OF_A, id="layout of A, batch sizes"),
    pytest.param(ones(3, 4), ones(5, 2), LAYOUT_OF_A, id="layout of A, inner sizes"),
    pytest.param(ones(3, 4), ones(4, 2).double(), LAYOUT_OF_A, id="layout of A, dtypes"),
    pytest.param(coo(2, 3, 4), coo(3, 4, 2), LAYOUT_OF_B, id="layout of B, batch sizes"),
    pytest.param(csr(3, 4), coo(5, 2), LAYOUT_OF_B, id="layout of B, inner sizes"),
    pytest.param(coo(2, 3, 4), ones(3, 5, 2), BATCHES, id="batch sizes, inner sizes"),
    pytest.param(csr(2, 3, 4), ones(3, 4, 2).double(), BATCHES, id="batch sizes, dtypes"),
    pytest.param(hybrid(), ones(3, 3, 2), BATCHES, id="batch sizes, hybrid"),
    pytest.param(coo(3, 4), ones(5, 2).double(), inner(4, 5), id="inner sizes, dtypes"),
    pytest.param(coo(3, 4, dtype=half), ones(5, 2).half(), inner(4, 5), id="inner sizes, dtype"),
    pytest.param(coo(3, 4), ones(5, 2, device="meta"), inner(4, 5), id="inner sizes, devices"),
    pytest.param(hybrid(), ones(2, 5, 2), inner(4, 5), id="inner sizes, hybrid"),
]


@pytest.mark.parametrize(("A", "B", "message"), SINGLE)
def test_each_violation_has_its_message(A, B, message):
    with pytest.raises(ValueError, match=f"^{re.escape(whole(message, A, B))}$"):
        spgrad.sparse_mm(A, B)


@pytest.mark.parametrize(("A", "B", "message"), PAIRS)
def test_the_first_violation_in_the_order_of_the_checks_is_reported(A, B, message):
    with pytest.raises(ValueError, match=f"^{re.escape(whole(message, A, B))}$"):
        spgrad.sparse_mm(A, B)


@pytest.mark.parametrize("make", [coo, csr])
def test_different_dtypes_are_refused(make):
    message = "A and B must have the same dtype, but received Float and Double"
    with pytest.raises(RuntimeError, match=message):
        spgrad.sparse_mm(make(3, 4), ones(4, 2).double())


@pytest.mark.parametrize("make", [coo, csr])
def test_different_devices_are_refused(make):
    A = make(3, 4)
    message = f"A and B must be on the same device, but received {A.device} and meta"
    with pytest.raises(RuntimeError, match=message):
        spgrad.sparse_mm(A, ones(4, 2, device="meta"))


@pytest.mark.parametrize("place", ["values", "B"])
@pytest.mark.parametrize("form", ["csr", "coo", "pattern"])
def test_different_devices_of_plain_tensors_are_named(form, place):
    A, operands = csr(3, 4), {"values": ones(12), "B": ones(4, 2)}
    operands[place] = operands[place].to("meta")
    received = ", ".join(str(operand.device) for operand in operands.values())
    message = f"must be on the same device, but received {received} and {A.device}"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        {
            "csr": partial(spgrad.csr_mm, A.crow_indices(), A.col_indices()),
            "coo": lambda values, B: spgrad.coo_mm(A.to_sparse()._indices(), values, (3, 4), B),
            "pattern": spgrad.Pattern(A).mm,
        }[form](*operands.values())


def test_a_hybrid_tensor_is_refused():
    message = "A must have only sparse dimensions, but received a hybrid tensor with 1 dense "
    crow, col = torch.tensor([0, 1, 2]), torch.tensor([0, 1])
    for A in (hybrid(), torch.sparse_csr_tensor(crow, col, ones(2, 4), (2, 2, 4))):
        with pytest.raises(ValueError, match=re.escape(message + "dimension(s)")):
            spgrad.sparse_mm(A, ones(2, 4, 2))


def test_a_batch_of_csr_matrices_after_a_step_of_sgd_is_refused():
    A = torch.stack(2 * [torch.eye(3)]).to_sparse_csr().requires_grad_()
    B = ones(2, 3, 2)
    spgrad.sparse_mm(A, B.float()).sum().backward()
    torch.optim.SGD([A], 0.1).step()  # which forgets the batch
    message = "A must have values of shape (b, nnz) for a batch of matrices, but received ["
    with pytest.raises(ValueError, match=re.escape(message)):
        spgrad.sparse_mm(A, B.float())


def test_nothing_is_broadcast():
    with pytest.raises(ValueError, match=re.escape(BATCHES)):
        spgrad.sparse_mm(coo(1, 3, 4), ones(2, 4, 2))


def csr_arguments(**changes):
    """Return arguments of csr_mm for a (2, 3) matrix, some of them changed."""
    arguments = {
        "crow_indices": torch.tensor([0, 1, 3]),
        "col_indices": torch.tensor([1, 0, 2]),
        "values": ones(3),
        "B": ones(3, 2),
    }
    return list((arguments | changes).values())


def coo_arguments(**changes):
    """Return arguments of coo_mm for a (2, 3) matrix, some of them changed."""
    arguments = {
        "indices": torch.tensor([[0, 1, 1], [1, 0, 2]]),
        "values": ones(3),
        "size": (2, 3),
        "B": ones(3, 2),
    }
    return list((arguments | changes).values())


crow, col = csr_arguments()[:2]
indices = coo_arguments()[0]
PLAIN_TENSORS = [
    (csr_arguments, {"crow_indices": crow.double()}, "must be int32 or int64, but received Double"),
    (
        csr_arguments,
        {"col_indices": col.short()},
        "col_indices must be int32 or int64, but received Short",
    ),
    (
        csr_arguments,
        {"crow_indices": crow.short(), "col_indices": col.short()},
        "crow_indices must be int32 or int64, but received Short",
    ),
    (
        csr_arguments,
        {"crow_indices": crow[:0]},
        "crow_indices must have n + 1 elements in its last dimension, but received none",
    ),
    (
        csr_arguments,
        {"B": torch.eye(2).to_sparse_csr()},
        "B must be a dense (strided) tensor, but received layout SparseCsr",
    ),
    (csr_arguments, {"crow_indices": torch.tensor(0)}, "crow_indices must have shape"),
    (
        csr_arguments,
        {"crow_indices": crow[None, None]},
        "crow_indices must have shape (n + 1) or (b, n + 1), but received [1, 1, 3]",
    ),
    (
        csr_arguments,
        {"col_indices": col[None]},
        (
            "col_indices must have shape (nnz) or (b, nnz), as many dimensions as crow_indices, "
            "but received [1, 3] beside [3]"
        ),
    ),
    (
        csr_arguments,
        {"crow_indices": crow.expand(2, 3), "col_indices": col[None]},
        "col_indices must have the same batch size, but received [2, 3] and [1, 3]",
    ),
    (
        csr_arguments,
        {"values": ones(4)},
        (
            "values must have one element for each entry, shape [3] behind any leading "
            "dimensions, but received [4]"
        ),
    ),
    (csr_arguments, {"values": ones(3, 1)}, "one element for each entry"),
    (csr_arguments, {"values": ones(3).double()}, "same dtype, but received Double and Float"),
    (
        csr_arguments,
        {"values": ones(3).int(), "B": ones(3, 2).int()},
        (
            "values and B must be float32, float64, float16, bfloat16, complex64 or complex128, "
            "but received Int"
        ),
    ),
    (
        csr_arguments,
        {"B": torch.tensor(1.0)},
        "B must have at least 2 dimensions for a sparse matrix, but received shape []",
    ),
    (csr_arguments, {"B": ones(2)}, "col_indices must be in [0, 2), but received 2 at position 2"),
    (csr_arguments, {"B": ones(3, 2, device="meta")}, "on the same device"),
    (csr_arguments, {"values": ones(3, device="meta")}, "on the same device"),
    (csr_arguments, {"col_indices": col.to("meta")}, "on the same device"),
    (coo_arguments, {"indices": indices.short()}, "must be int32 or int64, but received Short"),
    (coo_arguments, {"indices": indices[0]}, "indices must have shape"),
    (coo_arguments, {"indices": indices[:1]}, "indices must have shape"),
    (
        coo_arguments,
        {"size": (1, 2, 3)},
        "indices must have shape (3, nnz) for size [1, 2, 3], but received [2, 3]",
    ),
    (coo_arguments, {"size": (3,)}, "size must be (n, m) or (b, n, m), but received [3]"),
    (coo_arguments, {"size": (1, 1, 2, 3)}, "size must be"),
    (coo_arguments, {"size": (2, -3)}, "size must not be negative, but received [2, -3]"),
    (coo_arguments, {"values": ones(4)}, "one element for each entry"),
    (coo_arguments, {"values": ones(3).double()}, "same dtype, but received Double and Float"),
    (coo_arguments, {"B": ones(4, 2)}, "B must have 3 rows"),
    (
        coo_arguments,
        {"B": torch.tensor(1.0)},
        "B must have at least 2 dimensions for a sparse matrix, but received shape []",
    ),
    (coo_arguments, {"B": ones(4)}, "B must have 3 rows, but received shape [4, 1]"),
    (coo_arguments, {"B": ones(3, 2, device="meta")}, "on the same device"),
]


@pytest.mark.parametrize(("make", "changes", "message"), PLAIN_TENSORS)
def test_plain_tensors_that_do_not_fit_are_refused(make, changes, message):
    call = partial(spgrad.csr_mm if make is csr_arguments else spgrad.coo_mm, *make(**changes))
    with pytest.raises((ValueError, RuntimeError), match=re.escape(message)):
        call()
