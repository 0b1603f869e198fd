"""Sparse tensors that PyTorch made from values, and the gradient of the values."""

import pytest
import torch

import spgrad

SIZE = (2, 4)
# Rows and columns of entries, in order of the rows.
PLACES = {
    "sorted": ([0, 0, 1, 1], [0, 2, 1, 3]),
    "unsorted": ([0, 0, 1, 1], [2, 0, 3, 1]),
    "repeated": ([0, 0, 1, 1], [2, 2, 3, 1]),
}


def csr(rows, columns, values):
    crow_indices = torch.tensor([sum(row < i for row in rows) for i in range(SIZE[0] + 1)])
    return torch.sparse_csr_tensor(crow_indices, torch.tensor(columns), values, SIZE)


def coo(rows, columns, values):
    return torch.sparse_coo_tensor(torch.tensor([rows, columns]), values, SIZE)


def flagged_coo(rows, columns, values):
    """Make one that claims to be coalesced, whether it is or not."""
    return torch.sparse_coo_tensor(torch.tensor([rows, columns]), values, SIZE, is_coalesced=True)


def dense(rows, columns, values):
    places = (torch.tensor(rows), torch.tensor(columns))
    return values.new_zeros(SIZE).index_put(places, values, accumulate=True)


# What may lie between the constructor and the product: for sparse tensors, and for dense ones.
BETWEEN = {
    "nothing": (lambda A: A, 1),
    "times 2": (lambda A: A * 2, 2),
    "negated": (lambda A: -A, -1),
    "to COO": (lambda A: A.to_sparse_coo(), 1),
    "to COO, times 2": (lambda A: A.to_sparse_coo() * 2, 2),
    "to CSR": (lambda A: A.to_sparse_csr(), 1),
}
CASES = [
    pytest.param(make, places, between, id=f"{make.__name__}, {places}, {between}")
    for make in (csr, coo, flagged_coo)
    for places in PLACES
    for between in BETWEEN
    # PyTorch takes the first of repeated entries for all of them where it believes the flag.
    if not (make is flagged_coo and places == "repeated" and between == "to CSR")
]


def random(*size):
    """Draw values or a dense operand."""
    return torch.randn(size, dtype=torch.double).requires_grad_()


def derivatives_of(C, values, B):
    """First and second derivatives of a sum that is nonlinear in both."""
    first = torch.autograd.grad(C.pow(3).sum(), (values, B), create_graph=True)
    second = torch.autograd.grad(first[0].pow(2).sum() + first[1].pow(2).sum(), (values, B))
    return *first, *second


@pytest.mark.parametrize(("make", "places", "between"), CASES)
def test_derivatives_of_values_are_those_through_the_dense_matrix(make, places, between):
    entries, (then, factor) = PLACES[places], BETWEEN[between]
    values, B = random(4), random(SIZE[1], 3)
    ours = derivatives_of(spgrad.sparse_mm(then(make(*entries, values)), B), values, B)
    right = derivatives_of(factor * dense(*entries, values) @ B, values, B)
    torch.testing.assert_close(ours, right)


@pytest.mark.parametrize("places", PLACES)
def test_those_of_a_batch_of_csr_matrices_too(places):
    rows, columns = PLACES[places]
    values, B = random(2, 4), random(2, SIZE[1], 3)
    crow_indices = csr(rows, columns, torch.ones(4)).crow_indices().expand(2, -1)
    items = [columns, columns[::-1]]
    A = torch.sparse_csr_tensor(crow_indices, torch.tensor(items), values, (2, *SIZE))
    ours = derivatives_of(spgrad.sparse_mm(A, B), values, B)
    matrices = [dense(rows, *item) for item in zip(items, values, strict=True)]
    torch.testing.assert_close(ours, derivatives_of(torch.stack(matrices) @ B, values, B))


@pytest.mark.parametrize("make", [csr, coo])
def test_uses_by_spgrad_and_by_pytorch_add_up(make):
    # PyTorch's own derivative wants sorted columns.
    entries = PLACES["repeated" if make is coo else "sorted"]
    values, B, other = random(4), random(SIZE[1], 3), random(SIZE[1], 2)
    A = make(*entries, values)
    products = spgrad.sparse_mm(A, B), spgrad.sparse_mm(A, other), torch.sparse.mm(A, other)
    sum(C.sum() for C in products).backward()
    A = dense(*entries, values)
    (right,) = torch.autograd.grad((A @ B).sum() + 2 * (A @ other).sum(), values)
    torch.testing.assert_close(values.grad, right)


def test_repeated_entries_that_pytorch_moved_are_refused():
    # What PyTorch makes of a gradient with one derivative for two entries stands for twice as much.
    values = random(2)
    A = torch.sparse_csr_tensor([0, 2, 2], [1, 1], values, (2, 2))
    moved = A.to_sparse_coo().t().coalesce()
    with pytest.raises(RuntimeError, match=r"must be distinct .* use csr_mm or coo_mm"):
        spgrad.sparse_mm(moved, torch.ones(2, 1, dtype=torch.double)).sum().backward()


def test_no_dense_matrix_is_made_for_the_gradient_of_values():
    size = 10**6
    values = torch.ones(2, requires_grad=True)
    crow_indices = torch.full((size + 1,), 2).index_fill_(0, torch.tensor(0), 0)
    A = torch.sparse_csr_tensor(crow_indices, [7, 3], values, (size, size))
    B = torch.arange(size, dtype=values.dtype).unsqueeze(1)
    (gradient,) = torch.autograd.grad(spgrad.sparse_mm(A, B).sum(), values)
    assert gradient.tolist() == [7, 3]


@pytest.mark.parametrize("make", [coo, flagged_coo])  # PyTorch has no torch.func for CSR tensors
@pytest.mark.parametrize("places", PLACES)
def test_derivatives_by_torch_func_are_those_through_the_dense_matrix(make, places):
    values, B = random(4).detach(), random(SIZE[1], 3).detach()

    def second(matrix, multiply):
        first = torch.func.grad(lambda v: multiply(matrix(*PLACES[places], v), B).pow(3).sum())
        return first(values), torch.func.grad(lambda v: first(v).pow(2).sum())(values)

    torch.testing.assert_close(second(make, spgrad.sparse_mm), second(dense, torch.mm))


def test_hooks_and_captures_see_the_gradient_of_the_tensor():
    values, B = random(4), random(SIZE[1], 3)
    A = csr(*PLACES["unsorted"], values)
    seen = []
    A.register_hook(seen.append)
    C = spgrad.sparse_mm(A, B)
    of_A, of_values = torch.autograd.grad(C.sum(), (A, values))
    assert torch.equal(of_A.col_indices(), A.col_indices())
    assert torch.equal(of_A.values(), of_values)
    assert torch.equal(seen[0].values(), of_values)


def test_a_hook_may_change_the_gradient_of_the_tensor():
    values, B = random(4), random(SIZE[1], 3)
    A = csr(*PLACES["unsorted"], values)
    A.register_hook(lambda gradient: gradient * 3)
    spgrad.sparse_mm(A, B).sum().backward()
    right = torch.autograd.grad((dense(*PLACES["unsorted"], values) @ B).sum(), values)[0]
    torch.testing.assert_close(values.grad, 3 * right)


def test_an_error_in_a_pass_leaves_nothing_for_the_next():
    values, B = random(4), random(SIZE[1], 3)
    A = csr(*PLACES["unsorted"], values)
    C = spgrad.sparse_mm(A, B).sum()
    C.backward()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            C.backward()
    first = values.grad.clone()
    C = spgrad.sparse_mm(csr(*PLACES["unsorted"], values), B).sum()
    C.backward()
    torch.testing.assert_close(values.grad, 2 * first)


# Of the values given, and of A.
CHANGES = {
    "the values given": lambda values, _: values.mul_(7),
    "an alias of them": lambda values, _: values[:2].zero_(),
    "the values of A": lambda _, A: A.values().mul_(7),
    "A": lambda _, A: A.mul_(7),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_values_that_change_before_the_backward_pass_are_an_error(change, requires_grad):
    values, B = torch.ones(4, requires_grad=requires_grad), torch.ones(4, 3, requires_grad=True)
    A = csr(*PLACES["sorted"], values)
    C = spgrad.sparse_mm(A, B)
    with torch.no_grad():
        CHANGES[change](values, A.detach() if change == "A" else A)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        C.sum().backward()


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_a_gradient_that_a_hook_has_kept_does_not_change(layout):
    A = torch.eye(3).to_sparse(layout=layout).requires_grad_()
    kept = []
    for _ in range(3):
        values = torch.ops.spgrad._specified_values(A)
        values.grad_fn.register_prehook(lambda grads: kept.append(grads[0]))
        values.grad_fn.register_prehook(lambda grads: kept.append(grads[0].view(3, 1)))
        product = torch.ops.spgrad.csr_mm(torch.arange(4), torch.arange(3), values, torch.eye(3))
        product.sum().backward()
    assert all(gradient.flatten().tolist() == [1, 1, 1] for gradient in kept)
    assert A.grad.to_dense().diagonal().tolist() == [3, 3, 3]
