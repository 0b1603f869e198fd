"""Optimisers, over many steps, and the memory that they take."""

import multiprocessing

import psutil
import pytest
import torch
from cases import ALL_KINDS, COO_KINDS, SIZES
from oracle import (
    BATCHED,
    KINDS,
    PLAIN,
    assert_sparse,
    dense_for,
    gradient_of_values,
    make_sparse,
    needs_sums_of_pytorch,
    output_gradient_for,
    to_dense,
    values_of,
)
from torch.optim import SGD, Adam, SparseAdam

import spgrad

# Every matrix that PyTorch's own in-place addition, of which SGD is made, can change.
TRAINABLE = [(kind, PLAIN) for kind in KINDS] + [(kind, BATCHED) for kind in COO_KINDS]
LEARNING_RATE = 0.125  # a power of two, so that small integers stay exact


def step(optimizer, A, B, G):
    """Take one step against the gradient of the sum of G · (A B)."""
    optimizer.zero_grad()
    spgrad.sparse_mm(A, B).backward(G)
    optimizer.step()


@pytest.mark.parametrize("momentum", [0, 0.5], ids=["plain", "momentum"])
@pytest.mark.parametrize(("kind", "size"), TRAINABLE)
def test_sgd_takes_the_steps_of_a_dense_vector_of_values(kind, size, momentum):
    A = make_sparse(kind, size)
    needs_sums_of_pytorch(A)
    B, G = dense_for(A), output_gradient_for(A)
    # The gradient is the same in each step, as the loss is linear in A.
    values = values_of(A).clone().requires_grad_()
    values.grad = gradient_of_values(A, B, G)
    pattern = A.clone()
    A.requires_grad_()
    optimizers = [SGD([x], lr=LEARNING_RATE, momentum=momentum) for x in (A, values)]
    for _ in range(5):
        step(optimizers[0], A, B, G)
        optimizers[1].step()
        if kind == "uncoalesced":
            # Which of the duplicates PyTorch's addition changes is its affair; their sum is ours.
            by_values = torch.sparse_coo_tensor(pattern._indices(), values.detach(), size)
            assert torch.equal(A.detach().to_dense(), by_values.to_dense())
        else:
            assert torch.equal(values_of(A), values.detach())
    if kind != "uncoalesced":
        assert torch.equal(values_of(A.grad), values.grad)


@pytest.mark.parametrize("kind", ["csr32", "csr64"])
def test_pytorch_spoils_a_batched_csr_parameter_in_its_own_addition(kind):
    A = make_sparse(kind, BATCHED)
    A.add_(A.clone(), alpha=-LEARNING_RATE)
    assert A.values().dim() != make_sparse(kind, BATCHED).values().dim()


def test_a_batched_csr_matrix_is_trained_by_its_values():
    pattern = make_sparse("csr32", BATCHED)
    B, G = dense_for(pattern), output_gradient_for(pattern)
    values = pattern.values().clone().requires_grad_()
    optimizer = SGD([values], lr=LEARNING_RATE)
    for _ in range(3):
        A = torch.sparse_csr_tensor(pattern.crow_indices(), pattern.col_indices(), values, BATCHED)
        step(optimizer, A, B, G)
    expected = pattern.values() - 3 * LEARNING_RATE * gradient_of_values(pattern, B, G)
    assert torch.equal(values.detach(), expected)


@pytest.mark.parametrize("kind", COO_KINDS)
def test_sparse_adam_takes_the_gradient_for_a_dense_parameter(kind):
    A = make_sparse(kind, PLAIN).requires_grad_()
    B, G = dense_for(A), output_gradient_for(A)
    W = make_sparse("coalesced", PLAIN, seed=5).to_dense().requires_grad_()
    same = W.detach().clone().requires_grad_()
    start = W.detach().clone()
    optimizer, reference = SparseAdam([W]), SparseAdam([same])
    for _ in range(4):
        A.grad = None
        spgrad.sparse_mm(A, B).backward(G)
        W.grad = A.grad
        same.grad = torch.sparse_coo_tensor(A._indices(), gradient_of_values(A, B, G), PLAIN)
        optimizer.step()
        reference.step()
    assert torch.equal(W, same)
    moved = A.grad.to_dense() != 0
    assert moved.any()
    assert torch.equal(W[~moved], start[~moved])
    assert (W[moved] != start[moved]).all()


@SIZES
@ALL_KINDS
def test_a_gradient_set_to_zero_in_place_leaves_the_matrix_as_it_is(kind, size):
    A = make_sparse(kind, size).requires_grad_()
    pattern = make_sparse(kind, size)
    B, G = dense_for(A), output_gradient_for(A)
    expected = make_sparse(kind, size)
    values_of(expected).copy_(gradient_of_values(A, B, G))
    expected = to_dense(expected)
    for _ in range(3):
        spgrad.sparse_mm(A, B).backward(G)
        assert torch.equal(to_dense(A.grad), expected)
        assert_sparse(A.detach(), pattern, values_of(pattern))
        A.grad.zero_()
        assert_sparse(A.detach(), pattern, values_of(pattern))


def growth(action, *, warm_up, count):
    """Measure how much memory `count` calls keep: four times what the last but one quarter does.

    Quarters are ordered by what they take: what is taken once, such as the arenas of 1 MB that
    Python has its small objects in, is in one of them only.
    """
    # Anonymous memory, counted page by page. What else is resident, also what is resident for this
    # process alone, grows by the pages of libraries when another process that has them ends.
    process = psutil.Process()

    def memory():
        return sum(region.anonymous for region in process.memory_maps())

    for _ in range(warm_up):
        action()
    memory()  # takes some itself, the first time
    quarters = []
    for _ in range(4):
        before = memory()
        for _ in range(count // 4):
            action()
        quarters.append(memory() - before)
        print(f"{count // 4} calls: {quarters[-1] / 1000:+.0f} kB")
    return 4 * sorted(quarters)[-2]


def assert_memory_stays_flat(action, steps):
    # Steps that kept nothing but the 400 float32 values of their gradients would take 1.6 MB in the
    # 1,000 steps that are usual, and those that kept 50 bytes 1 MB in the 20,000 of `make soak`.
    assert growth(action, warm_up=200, count=steps) < 1_000_000


def change_values(values, grad):
    with torch.no_grad():
        values.sub_(grad, alpha=1e-3)


@pytest.mark.parametrize("momentum", [0, 0.5], ids=["plain", "momentum"])
@pytest.mark.parametrize("kind", COO_KINDS)
def test_memory_stays_flat_over_steps_of_sgd(kind, momentum, steps):
    A = make_sparse(kind, (50, 60), 400, dtype=torch.float32).requires_grad_()
    needs_sums_of_pytorch(A)
    B, G = dense_for(A), output_gradient_for(A)
    optimizer = SGD([A], lr=1e-3, momentum=momentum)
    assert_memory_stays_flat(lambda: step(optimizer, A, B, G), steps)
    assert values_of(A.grad).numel() == values_of(A).numel()


@ALL_KINDS
def test_memory_stays_flat_over_steps_that_change_the_values(kind, steps):
    A = make_sparse(kind, (50, 60), 400, dtype=torch.float32).requires_grad_()
    B, G = dense_for(A), output_gradient_for(A)

    def change():
        A.grad = None
        spgrad.sparse_mm(A, B).backward(G)
        change_values(values_of(A), values_of(A.grad))

    assert_memory_stays_flat(change, steps)


@pytest.mark.parametrize("kind", ["csr32", "coalesced"])
def test_memory_stays_flat_over_steps_of_a_pattern(kind, steps):
    A = make_sparse(kind, (50, 60), 400, dtype=torch.float32)
    B, G = dense_for(A), output_gradient_for(A)
    pattern = spgrad.Pattern(A)
    values = values_of(A).clone().requires_grad_()

    def change():
        values.grad = None
        pattern.mm(values, B).backward(G)
        change_values(values, values.grad)

    assert_memory_stays_flat(change, steps)


def test_memory_stays_flat_over_steps_of_a_sparse_linear_layer(steps):
    layer = spgrad.nn.SparseLinear(60, 50, sparsity=0.8)
    optimizer = Adam(layer.parameters())
    x = torch.ones(8, 60)

    def train():
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()

    assert_memory_stays_flat(train, steps)


@pytest.mark.parametrize("kind", ["csr32", "unflagged"])
def test_memory_stays_flat_where_steps_are_shared_out_to_threads(kind, steps, set_threads):
    set_threads(2)
    # 20,000 entries times 32 columns are enough for two tasks.
    A = make_sparse(kind, (1000, 1200), 20_000, dtype=torch.float32).requires_grad_()
    B, G = dense_for(A, 32).requires_grad_(), output_gradient_for(A, 32)

    def change():
        A.grad = B.grad = None
        spgrad.sparse_mm(A, B).backward(G)
        change_values(values_of(A), values_of(A.grad))

    # Each waits for two threads, up to 20 ms of it on a busy machine.
    assert growth(change, warm_up=30, count=steps // 20) < 1_000_000


def growth_of_additions_and_of_steps():
    A = make_sparse("csr32", (50, 60), 400, dtype=torch.float32)
    alone = growth(lambda: A.add_(A.clone(), alpha=-1e-3), warm_up=50, count=300)
    B, G = dense_for(A), output_gradient_for(A)
    A.requires_grad_()
    optimizer = SGD([A], lr=1e-3)
    return alone, growth(lambda: step(optimizer, A, B, G), warm_up=50, count=300)


def test_sgd_on_csr_takes_no_more_memory_than_the_addition_of_pytorch_leaks():
    # PyTorch 2.15 loses some 40 kB in each addition of CSR tensors. In a process of its own, which
    # has no memory left over from other tests that could hide it.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        alone, steps = pool.apply(growth_of_additions_and_of_steps)
    assert steps < alone + 400_000
