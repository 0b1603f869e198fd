"""Least squares beside dense ones: solutions, gradients, options, reports, and bad input."""

import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares import (
    DTYPES,
    FORMS,
    SHAPES,
    WIDE,
    assert_close,
    assert_same_bits_on_threads,
    assert_transforms,
    drawn,
    gradients,
    matrix,
    right_side,
    solver,
    uncoalesced,
)
from pairs import pairwise
from programs import output_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import spgrad

COMPOSITE = torch._C.DispatchKey.CompositeExplicitAutograd

# By PyTorch, where it makes forward mode of its own operators.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")


@pairwise(shape=SHAPES, form=FORMS, dtype=DTYPES)
def test_solution_and_gradients_are_those_of_the_dense_problem(shape, form, dtype):
    n, m, rank = shape
    D = matrix(n, m, rank, dtype)
    B, G = right_side(n, 3, dtype=dtype).requires_grad_(), right_side(m, 3, dtype=dtype, seed=3)
    leaf, (row, column), solve = solver(D, form)
    x = solve(B)
    x.backward(G)
    wide = WIDE.get(dtype, dtype)
    tolerance = 1e-10 if wide == dtype else 2e-3
    X, dA, dB = gradients(*(tensor.detach().to(wide) for tensor in (D, B, G)))
    assert_close(x, X, tolerance)
    assert_close(B.grad, dB, tolerance)
    grad = leaf.grad
    if grad.layout == torch.sparse_csr:
        assert grad.crow_indices().equal(leaf.crow_indices())
        assert grad.col_indices().equal(leaf.col_indices())
        values = grad.values()
    elif grad.layout == torch.sparse_coo:
        assert grad._indices().equal(leaf._indices())
        values = grad._values()
    else:
        values = grad
    assert_close(values, dA[row, column], tolerance)


@pytest.mark.parametrize(("n", "m"), [(6, 3), (3, 6)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivatives_of_any_order(n, m, dtype):
    D = matrix(n, m, dtype=dtype)
    values, _, _ = solver(D, "pattern")
    pattern = spgrad.Pattern(D.to_sparse_csr())
    B = right_side(n, 2, dtype=dtype).requires_grad_()
    assert torch.autograd.gradcheck(pattern.lstsq, (values, B), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(pattern.lstsq, (values, B))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": "columns"},
        pytest.param({"damp": 0.4, "method": "direct"}, marks=pytest.mark.of_kernels),
    ],
)
def test_forward_over_reverse_mode(options):
    D = matrix(5, 2)
    values, _, _ = solver(D, "pattern")
    pattern = spgrad.Pattern(D.to_sparse_csr())
    B = right_side(5, 2).requires_grad_()
    solve = lambda values, B: pattern.lstsq(values, B, **options)  # noqa: E731
    assert torch.autograd.gradgradcheck(solve, (values, B), check_fwd_over_rev=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("k", [0, 2])
def test_gradients_are_mapped(dtype, k):
    D = matrix(6, 3, dtype=dtype)
    values, _, _ = solver(D, "pattern")
    pattern = spgrad.Pattern(D.to_sparse_csr())
    B = right_side(6, k, dtype=dtype).requires_grad_()
    x = pattern.lstsq(values, B, damp=0.1, scale="columns")
    grads = right_side(2, 5, *x.shape, dtype=dtype, seed=3).flatten(0, 1)
    options = {"retain_graph": True, "is_grads_batched": True}
    dvalues, dB = torch.autograd.grad(x, (values, B), grads, **options)
    for g, of_values, of_B in zip(grads, dvalues, dB, strict=True):
        one = torch.autograd.grad(x, (values, B), g, retain_graph=True)
        assert_close(of_values, one[0], 1e-12)
        assert_close(of_B, one[1], 1e-12)


def test_jacobians_in_one_pass():
    D, B = matrix(6, 3), right_side(6, 2)
    pattern = spgrad.Pattern(D.to_sparse_csr())
    values = solver(D, "pattern")[0].detach()
    expected = torch.func.jacrev(pattern.lstsq, (0, 1))(values, B)
    for strategy in ("reverse-mode", "forward-mode"):
        jacobians = torch.autograd.functional.jacobian(
            pattern.lstsq, (values, B), vectorize=True, strategy=strategy
        )
        assert all(map(torch.allclose, jacobians, expected))


def test_second_derivatives_without_full_rank_along_changes_that_keep_it():
    left, right = right_side(4, 2), right_side(2, 3, seed=4)
    pattern = spgrad.Pattern(torch.ones(4, 3).to_sparse_csr())
    b = right_side(4, 1, seed=5)
    problem = (left.requires_grad_(), right.requires_grad_())

    def solve(left, right):
        return pattern.lstsq((left @ right).flatten(), b)

    assert torch.autograd.gradcheck(solve, problem)
    assert torch.autograd.gradgradcheck(solve, problem)


@pytest.mark.parametrize(("n", "m"), [(9, 4), (4, 9)])
@pytest.mark.parametrize("form", ["coo", "csr_lstsq", "pattern"])
def test_damping(n, m, form):
    D = matrix(n, m, dtype=torch.complex128)
    B = right_side(n, 2, dtype=torch.complex128)
    _, _, solve = solver(D, form)
    ridge = D.mH @ D + 0.3**2 * torch.eye(m, dtype=D.dtype)
    x, report = solve(B, damp=0.3, return_report=True)
    assert_close(x, torch.linalg.solve(ridge, D.mH @ B), 1e-12)
    stacked = torch.cat([B - D @ x.detach(), -0.3 * x.detach()])
    assert_close(report.residual_norm, stacked.norm(dim=0), 1e-12)


def test_damping_has_gradients():
    D, B = matrix(5, 2), right_side(5, 2).requires_grad_()
    values, _, _ = solver(D, "pattern")
    pattern = spgrad.Pattern(D.to_sparse_csr())
    damp = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def solve(values, B, damp):
        return pattern.lstsq(values, B, damp=damp)

    assert torch.autograd.gradcheck(solve, (values, B, damp), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(solve, (values, B, damp))


@pytest.mark.parametrize("form", ["csr", "coo", "uncoalesced"])
def test_batches_are_as_their_items(form):
    items = [matrix(6, 4, seed=seed) for seed in range(3)]
    items[1][:, 2] = 0
    places = (torch.stack(items) != 0) | (form == "csr")  # as many entries in each
    Ds = torch.stack(items)
    indices = places.nonzero().T
    coo = torch.sparse_coo_tensor(indices, Ds[tuple(indices)], Ds.shape, is_coalesced=True)
    A = {
        "csr": lambda: torch.stack([D + 0 for D in items]),
        "coo": lambda: coo,
        "uncoalesced": lambda: uncoalesced(coo),
    }[form]()
    if form == "csr":
        col = torch.arange(4).repeat(6).expand(3, 24)
        crow = torch.arange(0, 28, 4).expand(3, 7)
        A = torch.sparse_csr_tensor(crow, col, Ds.reshape(3, 24), Ds.shape)
    B = right_side(3, 6, 2)
    for options in ({}, {"damp": 0.5}, {"scale": "columns", "damp": 0.1}):
        x, report = spgrad.sparse_lstsq(A, B, return_report=True, **options)
        single = [
            spgrad.sparse_lstsq(D.to_sparse_csr(), b, **options)
            for D, b in zip(items, B, strict=True)
        ]
        assert_close(x, torch.stack(single), 1e-10)
        assert report.iterations.shape == report.optimality.shape == (3, 2)


def test_scaled_columns():
    D, B = matrix(40, 15), right_side(40, 2)
    scales = torch.logspace(-3, 3, 15, dtype=torch.float64)
    A = (D * scales).to_sparse_csr()
    x, report = spgrad.sparse_lstsq(A, B, scale="columns", return_report=True)
    assert_close(x * scales.unsqueeze(1), torch.linalg.lstsq(D, B).solution, 1e-9)
    plain = spgrad.sparse_lstsq(A, B, return_report=True, on_failure="ignore")[1]
    assert report.iterations.max() < plain.iterations.min()


@pytest.mark.parametrize(
    "scales",
    [[[1e13, 1.0, 1e-11]], [[1e20, 1e20, 1e20], [1e-4, 1e-12, 1e-4]]],
    ids=["one", "batch"],
)
def test_columns_may_be_as_different_as_float32_allows(scales):
    scales = torch.tensor(scales).unsqueeze(1)
    D = torch.stack([matrix(20, 3, seed=seed) for seed in range(len(scales))]).float()
    right = torch.tensor([1.0, 2.0, 3.0])
    A = (D * scales).to_sparse_coo()
    x, report = spgrad.sparse_lstsq(
        A, (D @ right).unsqueeze(-1), scale="columns", return_report=True
    )
    assert report.converged.all()
    assert_close(x.squeeze(-1) * scales.squeeze(1), right.expand(len(scales), 3), 1e-4)


def test_autocast_reaches_no_solve():
    D, B = matrix(20, 8).float(), right_side(20).float()
    A = D.to_sparse_csr().requires_grad_()
    autocast = partial(torch.autocast, torch.get_default_device().type, torch.bfloat16)

    def solved(enabled, **options):
        with autocast(enabled=enabled):
            x = spgrad.sparse_lstsq(A, B, damp=0.1, **options)
        with autocast(enabled=enabled and not options):  # of what options add, it is PyTorch's
            (dA,) = torch.autograd.grad(x.sum(), A)
        return x.detach(), dA.values()

    for options in ({}, {"scale": "columns", "x0": torch.ones(8)}):
        assert all(map(torch.equal, solved(True, **options), solved(False, **options)))


def test_scaled_columns_have_gradients():
    D, B = matrix(8, 4), right_side(8, 2).requires_grad_()
    values, _, _ = solver(D, "pattern")
    pattern = spgrad.Pattern(D.to_sparse_csr())
    solve = lambda values, B: pattern.lstsq(values, B, scale="columns")  # noqa: E731
    assert torch.autograd.gradcheck(solve, (values, B))


@pytest.mark.parametrize("form", ["coo", "uncoalesced", "transposed"])
def test_columns_are_scaled_by_the_sums_of_their_duplicates(form):
    # Wide, so that the solution depends on the scales, and an entry is in parts that cancel.
    D, B, G = matrix(3, 7).requires_grad_(), right_side(3, 2), right_side(7, 2, seed=3)
    norms = D.square().sum(0).sqrt()
    expected = torch.linalg.pinv(D / norms) @ B / norms.unsqueeze(1)
    (dD,) = torch.autograd.grad(expected, D, G)
    coo = D.detach().to_sparse_coo()
    indices, values = coo.indices(), coo.values()
    if form != "coo":
        order = drawn(3 * values.numel(), seed=2).argsort()
        indices = indices.repeat(1, 3)[:, order]
        values = torch.cat([values * 7, values * 0.5, values * -6.5])[order]
    values = values.clone().requires_grad_()
    if form == "transposed":
        pattern = spgrad.Pattern.from_coo(indices.flip(0).contiguous(), (7, 3)).T
        x = pattern.lstsq(values, B, scale="columns")
    else:
        x = spgrad.coo_lstsq(indices, values, D.shape, B, scale="columns")
    assert_close(x, expected.detach(), 1e-12)
    x.backward(G)
    assert_close(values.grad, dD[tuple(indices)], 1e-11)


def test_a_first_guess():
    D, B = matrix(20, 8), right_side(20)
    A = D.to_sparse_csr()
    exact, cold = spgrad.sparse_lstsq(A, B, tol=1e-10, return_report=True)
    near = exact + 1e-6 * right_side(8, seed=7)
    x, warm = spgrad.sparse_lstsq(A, B, x0=near, tol=1e-4, return_report=True)
    assert_close(x, exact, 1e-5)
    assert warm.iterations < cold.iterations
    # Of several solutions, the one next to it.
    D, B, x0 = matrix(4, 9), right_side(4), right_side(9, seed=8)
    expected = x0 + torch.linalg.pinv(D) @ (B - D @ x0)
    assert_close(spgrad.sparse_lstsq(D.to_sparse_csr(), B, x0=x0), expected, 1e-10)


@pytest.mark.parametrize(("n", "m", "k"), [(5, 0, 2), (0, 3, 2), (5, 3, 0), (0, 0, 0)])
def test_empty_problems(n, m, k):
    A = torch.zeros(n, m).to_sparse_csr().requires_grad_()
    B = torch.ones(n, k, requires_grad=True)
    x, report = spgrad.sparse_lstsq(A, B, return_report=True)
    assert x.shape == (m, k)
    assert not x.any()
    x.sum().backward()
    assert B.grad.shape == (n, k)
    assert report.converged.all()


def test_special_right_sides():
    D = matrix(12, 5)
    A = D.to_sparse_csr()
    outside = torch.linalg.svd(D).U[:, -1]  # orthogonal to the range
    B = torch.stack([torch.zeros(12, dtype=D.dtype), outside, D @ torch.ones(5, dtype=D.dtype)], 1)
    x, report = spgrad.sparse_lstsq(A, B, return_report=True)
    expected = torch.stack([torch.zeros(5), torch.zeros(5), torch.ones(5)], 1).double()
    torch.testing.assert_close(x, expected, atol=1e-12, rtol=0)
    assert report.reason.tolist() == [0, 1, 0]
    assert report.iterations.tolist()[:2] == [0, 0]


def test_complex_numbers_whose_magnitude_has_no_number():
    largest = torch.tensor(3e38 + 3e38j)
    A = torch.stack([largest, largest.conj()]).unsqueeze(1).to_sparse_csr()
    x = spgrad.sparse_lstsq(A, torch.stack([largest, largest.conj()]))
    torch.testing.assert_close(x, torch.ones(1, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        *((torch.float64, scale) for scale in (1e150, 1e-150, 1e307, 1e-305, 1e-320)),
        *((torch.float32, scale) for scale in (1e25, 4e37, 1e-36, 1e-40)),
        *((torch.complex64, scale) for scale in (1e37, 1e-40)),
    ],
)
def test_scales_at_the_edge(dtype, scale):
    wide = WIDE.get(dtype, dtype)
    D, B, G = (T.to(dtype) for T in (matrix(9, 4), right_side(9, 2), right_side(4, 2, seed=6)))
    small, b, g = (D * scale, B * scale, G * scale)
    finfo = torch.finfo(dtype)
    limit = 100 * finfo.eps
    rounded = finfo.tiny * finfo.eps / scale  # of the smallest numbers
    at_unit = lambda T: T.to(wide) / scale  # noqa: E731 - what the rounding of small numbers left

    def solved(A, B, **options):
        return spgrad.sparse_lstsq(A.to_sparse_csr(), B, return_report=True, **options)

    for options in ({}, {"scale": "columns"}):
        x, report = solved(small, b, **options)
        X = torch.linalg.lstsq(at_unit(small), at_unit(b)).solution
        assert_close(x, X, limit + (100 * rounded if options else 0))  # scaled values are rounded
        residual = (at_unit(b) - at_unit(small) @ X).norm(dim=0)
        assert_close(report.residual_norm.div(scale), residual, limit + 100 * rounded)
    x, _ = solved(D, b)
    expected = torch.linalg.lstsq(D.to(wide), at_unit(b)).solution
    assert_close(x.to(wide) / scale, expected, limit + 100 * rounded)
    if not finfo.tiny < scale < 1e-2 / finfo.tiny:  # what follows has no number for 1 / scale
        return
    x, _ = solved(small, B)
    assert_close(x.to(wide) * scale, torch.linalg.lstsq(at_unit(small), B.to(wide)).solution, limit)
    leaf, right = small.to_sparse_csr().requires_grad_(), b.clone().requires_grad_()
    spgrad.sparse_lstsq(leaf, right, tol=0).backward(g)
    _, dA, W = gradients(at_unit(small), at_unit(b), at_unit(g))
    assert_close(right.grad, W, limit)
    assert_close(leaf.grad.values(), dA[tuple(D.to_sparse_coo().indices())], 10 * limit)


@pytest.mark.parametrize("form", ["coo", "uncoalesced"])
def test_damped_batches_with_empty_items(form):
    Ds = torch.stack([matrix(5, 4), torch.zeros(5, 4, dtype=torch.float64), matrix(5, 4, seed=3)])
    Ds[0, 4] = Ds[2, :, 1] = 0
    B = right_side(3, 5, 2)
    expected = torch.linalg.solve(Ds.mT @ Ds + 0.25 * torch.eye(4).double(), Ds.mT @ B)
    coo = Ds.to_sparse_coo().coalesce()
    A = (uncoalesced(coo) if form == "uncoalesced" else coo).requires_grad_()
    x = spgrad.sparse_lstsq(A, B, damp=0.5)
    assert_close(x, expected, 1e-12)
    x.square().sum().backward()
    D = Ds.clone().requires_grad_()
    dense = torch.linalg.solve(D.mT @ D + 0.25 * torch.eye(4).double(), D.mT @ B)
    dense.square().sum().backward()
    places = A._indices()
    assert_close(A.grad._values(), D.grad[tuple(places)], 1e-11)


def test_condition_numbers():
    for condition in (1e1, 1e3, 1e6):
        U, V = (torch.linalg.qr(drawn(size, 25)).Q for size in (60, 25))
        D = U * torch.logspace(0, -math.log10(condition), 25, dtype=torch.float64) @ V.T
        B, G = right_side(60, 1), right_side(25, 1, seed=6)
        X, dA, _ = gradients(D, B, G, rtol=1e-12)
        A = D.to_sparse_csr().requires_grad_()
        x = spgrad.sparse_lstsq(A, B)
        x.backward(G)
        least = 1e-13 * condition
        assert_close(x, X, least)
        assert_close(A.grad.to_dense(), dA, 10 * least)


def test_iterations_suffice_for_many_singular_values():
    U, V = (torch.linalg.qr(drawn(size, 40, seed=4)).Q for size in (80, 40))
    D = U * torch.logspace(0, -6, 40, dtype=torch.float64) @ V.T
    B, G = right_side(80, 3), right_side(40, 3, seed=6)
    A = D.to_sparse_csr().requires_grad_()
    spgrad.sparse_lstsq(A, B, on_failure="raise").backward(G)


def test_columns_end_on_their_own():
    # The fourth column takes many iterations, and the others are dropped before.
    D = torch.diag(torch.logspace(0, -3, 40, dtype=torch.float64))
    B = torch.zeros(40, 4, dtype=torch.float64)
    B[0, 0] = B[5, 1] = B[9, 2] = 1
    B[:, 3] = 1
    x, report = spgrad.sparse_lstsq(D.to_sparse_csr(), B, return_report=True)
    assert_close(x, torch.linalg.solve(D, B), 1e-9)
    assert report.iterations[:3].tolist() == [1, 1, 1]
    assert report.iterations[3] > 20
    alone = spgrad.sparse_lstsq(D.to_sparse_csr(), B[:, 3], return_report=True)
    assert abs(alone[1].iterations - report.iterations[3]) < 25


def test_columns_are_dropped_one_after_the_other():
    # With as many singular values to find as a column has numbers: the columns end far apart.
    singular = torch.logspace(0, -2, 60, dtype=torch.float64)
    B = torch.stack([torch.arange(60) < count for count in (40, 1, 12, 24)], 1).double()
    values, b = singular.clone().requires_grad_(), B.clone().requires_grad_()
    pattern = spgrad.Pattern(torch.eye(60).to_sparse_csr())
    x, report = pattern.lstsq(values, b, return_report=True)
    assert report.iterations.argsort().tolist() == [1, 2, 3, 0]
    assert report.iterations.unique().diff().min() >= 8
    expected = B / singular.unsqueeze(1)
    assert_close(x, expected, 1e-12)
    x.backward(B)
    assert_close(b.grad, expected, 1e-12)
    assert_close(values.grad, -(expected**2 * singular.unsqueeze(1)).sum(1) / singular, 1e-11)
    again = report.backward[0]
    assert again.iterations.unique().diff().min() >= 8


@pytest.mark.of_kernels
def test_same_bits_on_any_number_of_threads():
    make = torch.Generator().manual_seed(0)
    row, column = (
        torch.randint(9000, (40000,), generator=make),
        torch.randint(3000, (40000,), generator=make),
    )
    values = torch.randn(40000, generator=make, dtype=torch.float64)
    A = torch.sparse_coo_tensor(torch.stack([row, column]), values, (9000, 3000)).to_sparse_csr()
    B = right_side(9000, 5)
    assert_same_bits_on_threads(lambda A: spgrad.sparse_lstsq(A, B, damp=0.1, tol=1e-10), A)


def test_reports_forward_and_backward():
    D, B = matrix(12, 5), right_side(12)
    leaf, _, solve = solver(D, "pattern")
    x, report = solve(B, return_report=True)
    assert report.iterations.shape == report.residual_norm.shape == ()
    r = B - D @ x.detach()
    assert_close(report.residual_norm, r.norm(), 1e-12)
    assert report.reason == 1
    assert 0 <= report.optimality < 1e-13
    assert report.backward == ()
    x.sum().backward()
    assert [bool(solved.converged) for solved in report.backward] == [True, True]
    assert leaf.grad is not None
    assert "converged=True" in repr(report)


@pytest.mark.parametrize("reached", [True, False])
def test_a_gradient_within_the_range_takes_one_iteration_for_two_solves(reached):
    D = matrix(12, 7, 4)
    B, G = right_side(12, 2), right_side(7, 2, seed=3)
    if reached:
        G = D.T @ right_side(12, 2, seed=4)
    leaf, (row, column), solve = solver(D, "pattern")
    x, report = solve(B, return_report=True)
    x.backward(G)
    _, dA, _ = gradients(D, B, G)
    assert_close(leaf.grad, dA[row, column], 1e-10)
    reasons = [solved.reason.tolist() for solved in report.backward]
    assert reasons == ([[0, 0], [0, 0]] if reached else [[1, 1], [0, 0], [0, 0]])
    if reached:
        w, z = report.backward
        assert w.iterations.equal(z.iterations)
        assert (z.residual_norm < 1e-12).all()


def test_a_report_tells_of_the_last_backward_pass_alone():
    D = matrix(12, 7, 4)
    values, _, solve = solver(D, "pattern")
    B = right_side(12).requires_grad_()
    x, report = solve(B, return_report=True)
    reached = D.T @ right_side(12, seed=4)
    for leaves, g, count in (
        ((values, B), right_side(7, seed=3), 3),
        ((values, B), reached, 2),
        ((B,), reached, 1),
    ):
        torch.autograd.grad(x, leaves, g, retain_graph=True)
        assert len(report.backward) == count
        assert all((solve.iterations > 0).all() for solve in report.backward)
    (held,) = report.backward
    iterations, residual_norm = held.iterations.clone(), held.residual_norm.clone()

    def gradient(g):
        return torch.autograd.grad(x, B, g, create_graph=True)[0]

    _, pullback = torch.func.vjp(gradient, reached)
    torch.testing.assert_close(pullback(right_side(12))[0], torch.linalg.pinv(D) @ right_side(12))
    mapped = torch.stack([reached, reached])
    torch.autograd.grad(x, B, mapped, is_grads_batched=True)
    assert report.backward == ()  # whose numbers cannot be read
    assert torch.equal(held.iterations, iterations)
    assert torch.equal(held.residual_norm, residual_norm)


@pytest.mark.parametrize("solve", [spgrad.sparse_lstsq, spgrad.sparse_generic_lstsq])
def test_a_warning_names_the_line_of_the_caller(solve):
    A = torch.diag(torch.logspace(0, 9, 40, dtype=torch.float64)).to_sparse_csr()
    with pytest.warns(spgrad.ConvergenceWarning) as warnings:
        solve(A, right_side(40))
    assert [warning.filename for warning in warnings] == [__file__]


def test_code_without_a_module_is_warned():
    A = torch.diag(torch.logspace(0, 9, 40, dtype=torch.float64)).to_sparse_csr()
    with pytest.warns(spgrad.ConvergenceWarning):
        exec("solve(A, b)", {"solve": spgrad.sparse_lstsq, "A": A, "b": right_side(40)})  # noqa: S102


def test_what_did_not_converge_is_told():
    _, _, solve = solver(matrix(30, 20), "pattern")
    B = right_side(30)
    with pytest.warns(
        spgrad.ConvergenceWarning, match=r"least squares did not converge: 1 of 1 col"
    ):
        x = solve(B, maxiter=3)
    with pytest.warns(spgrad.ConvergenceWarning, match="a solve of the backward pass"):
        x.sum().backward()
    with pytest.raises(spgrad.ConvergenceError, match="after 3 iterations"):
        solve(B, maxiter=3, on_failure="raise")
    x, report = solve(B, maxiter=3, on_failure="ignore", return_report=True)
    assert report.reason == 2
    assert not report.converged
    x.sum().backward()


class Subclass(Tensor):
    pass


@pytest.mark.parametrize("kind", [torch.nn.Parameter, lambda tensor: tensor.as_subclass(Subclass)])
def test_tensors_of_other_types_are_judged_too(kind):
    values, _, _ = solver(matrix(30, 20), "pattern")
    pattern, B = spgrad.Pattern(matrix(30, 20).to_sparse_csr()), right_side(30)
    values = kind(values.detach())
    with pytest.raises(spgrad.ConvergenceError, match="after 3 iterations"):
        pattern.lstsq(values, B, maxiter=3, on_failure="raise")
    for damp in (-0.1, math.nan):
        with pytest.raises(ValueError, match="damp must be a finite number of 0 or more"):
            pattern.lstsq(values, B, damp=kind(torch.tensor(damp)))


def test_shapes_without_data():
    csr = matrix(9, 4).to_sparse_csr()
    tensors = (csr.crow_indices(), csr.col_indices(), csr.values(), right_side(9, 2))
    x, report = spgrad.csr_lstsq(*(t.to("meta") for t in tensors), 4, return_report=True)
    assert x.is_meta
    assert x.shape == (4, 2)
    assert report.iterations.shape == (2,)


def test_a_backward_pass_that_does_not_converge_raises():
    # The right-hand side needs one iteration, and its gradient more than three.
    values = torch.logspace(0, -3, 20, dtype=torch.float64).requires_grad_()
    pattern = spgrad.Pattern(torch.eye(20).to_sparse_csr())
    b = torch.zeros(20, dtype=torch.float64)
    b[0] = 1
    x = pattern.lstsq(values, b, maxiter=3, on_failure="raise")
    with pytest.raises(spgrad.ConvergenceError, match="a solve of the backward pass"):
        x.sum().backward()


def test_compile_export_and_transforms():
    D, b = matrix(9, 4), right_side(9)
    csr = D.to_sparse_csr()
    structure, values = (csr.crow_indices(), csr.col_indices()), csr.values().clone()

    def solve(values, b):
        return spgrad.csr_lstsq(*structure, values, b, 4, damp=0.1, scale="columns")

    assert_transforms(solve, values, b)

    damped = lambda damp: spgrad.csr_lstsq(*structure, values, b, 4, damp=damp)  # noqa: E731
    compiled = torch.compile(damped, fullgraph=True, backend="aot_eager")
    for damp in (0.1, 0.2):  # the second is a number that changes
        assert torch.equal(compiled(damp), damped(damp))


@pytest.mark.parametrize("shape", [(9, 4), (3, 6, 4)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"damp": 0.1, "scale": "columns"},
        pytest.param({"method": "direct"}, marks=pytest.mark.of_kernels),
    ],
)
def test_coordinates_are_compiled_and_exported_in_any_order(shape, options):
    D = torch.stack([matrix(*shape[-2:], seed=seed) for seed in range(3)])
    D = D if len(shape) == 3 else D[0]
    indices = D.nonzero().T.contiguous()
    values, B = D[tuple(indices)], right_side(*shape[:-1], 2)

    def solve(indices, values, B):
        return spgrad.coo_lstsq(indices, values, shape, B, **options)

    class Solve(torch.nn.Module):
        def forward(self, indices, values, B):
            return solve(indices, values, B)

    torch.compiler.reset()  # each case compiles the same function
    compiled = torch.compile(solve, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(Solve(), (indices, values, B)).module()
    expected = solve(indices, values, B)
    for order in (torch.arange(values.numel()), drawn(values.numel()).argsort()):
        moved = indices[:, order].contiguous()
        leaf, same = (values[order].clone().requires_grad_() for _ in range(2))
        result = compiled(moved, leaf, B)
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(exported(moved, leaf, B), expected)
        result.square().sum().backward()
        solve(moved, same, B).square().sum().backward()
        torch.testing.assert_close(leaf.grad, same.grad)
    with pytest.raises(RuntimeError, match=r"must be in \[0, \d\), but received"):
        compiled(indices + shape[-2], values, B)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("csr_lstsq", {"x0": right_side(4, 2, seed=8)}),
        ("coo_lstsq", {"scale": "columns"}),
        pytest.param("pattern", {"method": "direct"}, marks=pytest.mark.of_kernels),
    ],
)
def test_a_problem_that_is_a_constant_is_exported(form, options):
    D = matrix(9, 4)
    indices = D.nonzero().T.contiguous()
    values, (_, column), _ = solver(D, form)
    values, offsets = values.detach(), D.to_sparse_csr().crow_indices()
    pattern = spgrad.Pattern.from_coo(indices, D.shape)
    solve = {
        "csr_lstsq": partial(spgrad.csr_lstsq, offsets, column, values, m=4),
        "coo_lstsq": partial(spgrad.coo_lstsq, indices, values, D.shape),
        "pattern": partial(pattern.lstsq, values),
    }[form]

    class Solve(torch.nn.Module):
        def forward(self, B):
            return solve(B=B, **options)

    exported = torch.export.export(Solve(), (right_side(9, 2),)).module()
    B = right_side(9, 2, seed=5)
    torch.testing.assert_close(exported(B), solve(B=B, **options))


@given(n=st.integers(1, 12), m=st.integers(1, 12), k=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_normal_equations_hold_and_the_order_of_rows_does_not_matter(n, m, k, seed):
    D, B = matrix(n, m, seed=seed), right_side(n, k, seed=seed)
    x = spgrad.sparse_lstsq(D.to_sparse_coo(), B, on_failure="raise")
    assert (D.mH @ (B - D @ x)).norm() <= 1e-11 * D.norm() * max(B.norm(), 1)
    order = drawn(n, seed=seed).argsort()
    again = spgrad.sparse_lstsq(D[order].to_sparse_coo(), B[order])
    condition = torch.linalg.cond(D)
    assert (x - again).norm() <= 1e-13 * condition**2 * (1 + x.norm())


# Dense solvers, as a caller would write them.
FUNCTIONS = (
    lambda A, B: torch.linalg.pinv(A.detach().to_dense()) @ B,
    lambda A, B: torch.linalg.pinv(A.detach().to_dense().T) @ B,
)


@pytest.mark.parametrize("form", ["csr", "coo", "uncoalesced"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3], SHAPES[4]])
@pytest.mark.parametrize("given_functions", [False, True])
def test_the_generic_form(form, shape, given_functions):
    n, m, rank = shape
    D, G = matrix(n, m, rank), right_side(m, seed=3)
    B = right_side(n).requires_grad_()
    A, (row, column), _ = solver(D, form)
    x = spgrad.sparse_generic_lstsq(A, B, *(FUNCTIONS if given_functions else ()))
    x.backward(G)
    X, dA, dB = gradients(D, B.detach().unsqueeze(1), G.unsqueeze(1))
    assert_close(x, X[:, 0], 1e-10)
    assert_close(B.grad, dB[:, 0], 1e-10)
    grad = A.grad.values() if form == "csr" else A.grad._values()
    assert_close(grad, dA[row, column], 1e-10)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [*((torch.float32, scale) for scale in (1e25, 1e-30)), (torch.float64, 1e200)],
)
def test_the_generic_form_at_any_scale(dtype, scale):
    D, B, G = (T.to(dtype) for T in (matrix(9, 4), right_side(9, 2), right_side(4, 2, seed=3)))
    A, b = D.to_sparse_csr().requires_grad_(), (B * scale).requires_grad_()
    spgrad.sparse_generic_lstsq(A, b, *FUNCTIONS).backward(G)
    _, dA, _ = gradients(D.double(), B.double(), G.double())
    limit = 1000 * torch.finfo(dtype).eps
    assert_close(A.grad.values().double() / scale, dA[tuple(D.to_sparse_coo().indices())], limit)


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
def test_functions_may_return_one_column_as_a_vector_or_a_matrix(shape):
    D = matrix(9, 4)
    flat, tall = (lambda x: x.flatten()), (lambda x: x.reshape(-1, 1))
    for form in (flat, tall):
        A, B = D.to_sparse_csr().requires_grad_(), right_side(*shape).requires_grad_()
        functions = [lambda A, B, f=f, form=form: form(f(A, tall(B))) for f in FUNCTIONS]
        x = spgrad.sparse_generic_lstsq(A, B, *functions)
        assert x.shape == (4, *shape[1:])
        x.backward(right_side(*x.shape, seed=3))
        X, dA, dB = gradients(D, tall(B.detach()), right_side(4, 1, seed=3))
        assert_close(tall(x), X, 1e-12)
        assert_close(tall(B.grad), dB, 1e-12)
        assert_close(A.grad.values(), dA[tuple(D.to_sparse_coo().indices())], 1e-11)


def test_second_derivatives_of_the_generic_form():
    D = matrix(6, 3)
    csr = D.to_sparse_csr()
    values, B = csr.values().clone().requires_grad_(), right_side(6, 2).requires_grad_()

    def solve(values, B):
        A = torch.sparse_coo_tensor(
            csr.to_sparse_coo().indices(), values, D.shape, is_coalesced=True
        )
        return spgrad.sparse_generic_lstsq(A, B, *FUNCTIONS)

    assert torch.autograd.gradcheck(solve, (values, B))
    assert torch.autograd.gradgradcheck(solve, (values, B))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_generic_solve(dtype):
    D, B = matrix(8, 8, dtype=dtype), right_side(8, 2, dtype=dtype)
    A = D.to_sparse_csr().requires_grad_()
    dense = D.clone().requires_grad_()
    torch.linalg.solve(dense, B).abs().sum().backward()
    x = spgrad.sparse_generic_solve(A, B)
    x.abs().sum().backward()
    assert_close(x, torch.linalg.solve(D, B), 1e-10)
    assert_close(A.grad.to_dense(), dense.grad * (D != 0), 1e-10)
    with pytest.raises(ValueError, match=re.escape("A must be square, but received shape (8, 3)")):
        spgrad.sparse_generic_solve(matrix(8, 3).to_sparse_csr(), B.real)


def test_the_generic_solve_passes_options_on():
    D, b = matrix(8, 8), right_side(8).requires_grad_()
    seen = []

    def solve(A, B, *, name):
        seen.append(name)
        return torch.linalg.solve(A.to_dense(), B)

    def transpose_solve(A, G, *, name):
        seen.append(name)
        return torch.linalg.solve(A.to_dense().T, G)

    A = D.to_sparse_csr()
    x = spgrad.sparse_generic_solve(A, b, solve, transpose_solve, name="given")
    x.backward(right_side(8, seed=3))
    assert seen == ["given", "given"]
    assert_close(b.grad, torch.linalg.solve(D.T, right_side(8, seed=3)), 1e-12)
    with pytest.raises(ValueError, match=r"options need a function .* but received name alone"):
        spgrad.sparse_generic_solve(A, b, name="given")


def test_a_function_may_be_any_object_that_is_called():
    class Solver:
        __hash__ = None

        def __call__(self, A, b):
            return torch.linalg.solve(A.to_dense(), b)

    D, b = matrix(8, 8), right_side(8)
    x = spgrad.sparse_generic_solve(D.to_sparse_csr(), b, Solver())
    torch.testing.assert_close(x, torch.linalg.solve(D, b))


@pytest.mark.parametrize("names", [("lstsq", "transpose_lstsq"), ("solve", "transpose_solve")])
def test_what_is_no_function_is_refused(names):
    generic = getattr(spgrad, f"sparse_generic_{names[0]}")
    A, b = matrix(8, 8).to_sparse_csr(), right_side(8)
    for name in names:
        with pytest.raises(ValueError, match=f"^{name} must be a function, but received int$"):
            generic(A, b, **{name: 3})


def test_the_generic_solve_refuses_singular_matrices():
    D, b = matrix(8, 8), right_side(8)
    D[:, 5] = D[:, 2]
    A = D.to_sparse_csr()
    message = "A must be regular, but for .* received one that is singular"
    for functions in ((), (None, lambda _, G: G)):
        with pytest.raises(RuntimeError, match=message):
            spgrad.sparse_generic_solve(A, b, *functions)
    x = spgrad.sparse_generic_solve(A, D @ right_side(8))  # has solutions
    assert_close(D @ x, D @ right_side(8), 1e-12)
    leaf = A.clone().requires_grad_()
    x = spgrad.sparse_generic_solve(leaf, D @ right_side(8), lambda *_: right_side(8))
    with pytest.raises(RuntimeError, match=message):
        x.backward(b)


def test_generic_forms_map_gradients_and_take_a_result_that_is_the_right_side():
    D, b = torch.eye(4, dtype=torch.float64) * 2, right_side(4)
    A = D.to_sparse_csr().requires_grad_()
    halves = lambda _, B: B / 2  # noqa: E731 - for both
    b.requires_grad_()
    x = spgrad.sparse_generic_solve(A, b, halves, halves)
    G = torch.stack([right_side(4, seed=7), right_side(4, seed=8)])
    (mapped,) = torch.autograd.grad(x, b, G, is_grads_batched=True)
    assert_close(mapped, G / 2, 1e-15)
    same = spgrad.sparse_generic_solve((D / 2).to_sparse_csr(), b, lambda _, B: B, lambda _, G: G)
    assert torch.equal(same, b)
    assert torch.equal(torch.autograd.grad(same.sum(), b)[0], torch.ones_like(b))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"maxiter": torch.tensor(2.5)}, "maxiter"),
        ({"maxiter": -(2**64)}, "maxiter"),
        ({"maxiter": np.array([3, 4])}, "maxiter"),
        ({"tol": 10**400}, "tol"),
        ({"tol": torch.tensor([0.1, 0.2])}, "tol"),
        ({"damp": np.complex64(1 + 2j)}, "damp"),
        ({"damp": np.array([0.1])}, "damp"),
        ({"damp": 10**400}, "damp"),
        ({"on_failure": np.array(["warn"])}, "on_failure"),
    ],
)
def test_options_that_are_nearly_numbers_are_refused(options, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        spgrad.sparse_lstsq(matrix(5, 3).to_sparse_csr(), right_side(5), **options)


def test_options_may_be_numbers_of_numpy_and_tensors():
    A, b = matrix(5, 3).to_sparse_csr(), right_side(5)
    expected = spgrad.sparse_lstsq(A, b, tol=1e-9, maxiter=50, damp=0.5)
    for kind in (np.float64, torch.tensor):
        options = {"tol": kind(1e-9), "damp": kind(0.5)}
        options["maxiter"] = torch.tensor(50) if kind is torch.tensor else np.int32(50)
        assert_close(spgrad.sparse_lstsq(A, b, **options), expected, 1e-9)


def test_a_first_guess_whose_product_overflows_is_named():
    A = (torch.eye(2, dtype=torch.float64) * 1e10).to_sparse_csr()
    with pytest.raises(RuntimeError, match="A @ x0 must have finite numbers only"):
        spgrad.sparse_lstsq(A, torch.ones(2).double(), x0=torch.ones(2).double() * 1e300)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("x", "lstsq must return a tensor, but returned str"),
        (torch.zeros(3, 2), "lstsq must return shape (4, 2), torch.float64"),
        (torch.zeros(4, 2), "but returned (4, 2), torch.float32"),
        (
            torch.zeros(4, 2).double().to_sparse(),
            "lstsq must return a dense (strided) tensor, but returned torch.sparse_coo",
        ),
    ],
)
def test_wrong_results_of_functions_are_refused(result, message):
    with pytest.raises(RuntimeError, match=re.escape(message)):
        spgrad.sparse_generic_lstsq(
            matrix(9, 4).to_sparse_csr(), right_side(9, 2), lambda *_: result
        )


A, B = matrix(6, 4).to_sparse_csr(), right_side(6, 2)
MISUSES = [
    (ValueError, "A must be a torch.Tensor, but received list", ([], B), {}),
    (
        ValueError,
        "A must be a sparse COO or CSR tensor, but received layout",
        (A.to_dense(), B),
        {},
    ),
    (ValueError, "B must have shape (n) or (n, k), but received [6, 2, 1]", (A, B[..., None]), {}),
    (ValueError, "B must have 6 rows", (A, B[:5]), {}),
    (
        ValueError,
        "damp must be a finite number of 0 or more, but received -1",
        (A, B),
        {"damp": -1},
    ),
    (ValueError, "damp must be a finite number", (A, B), {"damp": math.nan}),
    (ValueError, "damp must be a number or a real 0-d", (A, B), {"damp": torch.ones(2)}),
    (ValueError, "0 or more, but received '0.1'", (A, B), {"damp": "0.1"}),
    (ValueError, "0 or more, but received None", (A, B), {"damp": None}),
    (ValueError, "None or a number in [0, 1), but received 'x'", (A, B), {"tol": "x"}),
    (ValueError, "an integer from 0 to 9223372036854775807", (A, B), {"maxiter": 2.5}),
    (ValueError, "but received 9223372036854775808", (A, B), {"maxiter": 2**63}),
    (ValueError, 'scale must be None or "columns", but received True', (A, B), {"scale": True}),
    (ValueError, 'method must be "lsmr" or "direct", but received None', (A, B), {"method": None}),
    (ValueError, "tol must be in [0, 1), but received -1", (A, B), {"tol": -1.0}),
    (ValueError, "tol must be in [0, 1), but received nan", (A, B), {"tol": math.nan}),
    (ValueError, "maxiter must not be negative, but received -3", (A, B), {"maxiter": -3}),
    (
        ValueError,
        'method must be "lsmr" or "direct", but received "qr"',
        (A, B),
        {"method": "qr"},
    ),
    (ValueError, 'scale must be None or "columns", but received "rows"', (A, B), {"scale": "rows"}),
    (ValueError, 'on_failure must be "warn", "raise" or "ignore"', (A, B), {"on_failure": "x"}),
    (ValueError, "x0 must have the shape of the solution, [4, 2]", (A, B), {"x0": torch.ones(4)}),
    (ValueError, "x0 must be a dense", (A, B), {"x0": torch.ones(4, 2).double().to_sparse()}),
    (
        RuntimeError,
        "x0 must have the dtype and device of B, Double on cpu, but received Float on cpu",
        (A, B),
        {"x0": torch.ones(4, 2)},
    ),
    (RuntimeError, "x0 must have finite", (A, B), {"x0": torch.full((4, 2), math.nan).double()}),
    (RuntimeError, "values and B must have the same dtype", (A, B.float()), {}),
    (RuntimeError, "must be float32, float64, complex64 or complex128", (A.half(), B.half()), {}),
    (RuntimeError, "B must have finite numbers only", (A, B * math.inf), {}),
    (RuntimeError, "values must have finite numbers only", (A * math.nan, B), {}),
]


GENERIC_MISUSES = [
    (ValueError, "B must be a dense (strided) tensor, but received", (A, B.to_sparse())),
    (RuntimeError, "A and B must have the same dtype and device", (A, B.float())),
    (RuntimeError, "A and B must be float32, float64, complex64 or", (A.half(), B.half())),
    (RuntimeError, "A must have finite numbers only", (A * math.nan, B)),
    (RuntimeError, "B must have finite numbers only", (A, B * math.inf)),
]


@pytest.mark.parametrize(("error", "message", "arguments"), GENERIC_MISUSES)
def test_functions_get_what_was_checked(error, message, arguments):
    def never(*_):
        pytest.fail("the function must not be called")

    with pytest.raises(error, match=re.escape(message)):
        spgrad.sparse_generic_lstsq(*arguments, never, never)


def test_a_gradient_for_functions_is_checked():
    x = spgrad.sparse_generic_lstsq(A.clone().requires_grad_(), B, *FUNCTIONS)
    with pytest.raises(RuntimeError, match="the incoming gradient must have finite numbers only"):
        x.backward(torch.full_like(x, math.nan))


@pytest.mark.parametrize(("error", "message", "arguments", "options"), MISUSES)
def test_misuses_are_refused(error, message, arguments, options):
    with pytest.raises(error, match=re.escape(message)):
        spgrad.sparse_lstsq(*arguments, **options)


def test_malformed_indices_are_refused():
    values, b = torch.ones(2), torch.ones(2)
    with pytest.raises(RuntimeError, match="col_indices"):
        spgrad.csr_lstsq(torch.tensor([0, 1, 2]), torch.tensor([0, 5]), values, b, 2)
    with pytest.raises(RuntimeError, match="indices"):
        spgrad.coo_lstsq(torch.tensor([[0, 9], [0, 1]]), values, (2, 2), b)
    hostile = spgrad.Pattern(torch.eye(2).to_sparse_coo())
    hostile._tensors[3][0, 1] = 77
    with pytest.raises(RuntimeError, match="row_offsets"):
        hostile.lstsq(values, b)


def test_a_gradient_that_is_not_finite_is_refused():
    x = spgrad.sparse_lstsq(A.clone().requires_grad_(), B)
    with pytest.raises(RuntimeError, match="the incoming gradient must have finite numbers only"):
        x.backward(torch.full_like(x, math.nan))


class Waits(TorchDispatchMode):
    """Counts the numbers that the host waits for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if arguments and isinstance(arguments[0], Tensor):
            device = arguments[0].device
            read = function is torch.ops.aten._local_scalar_dense.default
            copied = isinstance(result, Tensor) and result.device != device
            self.count += device.type == torch.get_default_device().type and (read or copied)
        return result


@pytest.mark.parametrize("operator", ["pattern_pinv_mm", "pattern_pinv_with_multipliers"])
def test_other_devices_wait_at_every_eighth_iteration(operator, backend):
    key = torch._C.DispatchKey.CUDA if backend == "cuda" else COMPOSITE
    values = torch.logspace(0, -6, 200, dtype=torch.float64)
    pattern = spgrad.Pattern(torch.eye(200).to_sparse_csr())
    B = right_side(200, 2)

    def waits(most_iterations):
        with Waits() as mode:
            *_, reports = getattr(torch.ops.spgrad, operator).default._op_dk(
                key, *pattern._tensors, list(pattern.shape), values, B, 0.0, most_iterations, 0, []
            )
        assert reports[0, ..., 0].eq(most_iterations).all()
        return mode.count

    few, more = waits(40), waits(80)
    assert few <= 8 + 40 / 8
    assert 0 < more - few <= 40 / 8


@pytest.mark.of_kernels  # of which the composite is told apart
def test_devices_without_a_factor_say_so():
    pattern = spgrad.Pattern(torch.eye(2).to_sparse_csr())
    arguments = (*pattern._tensors, list(pattern.shape))
    with pytest.raises(NotImplementedError, match='method="direct" solves on the CPU only'):
        torch.ops.spgrad.pattern_gram_analysis.default._op_dk(COMPOSITE, *arguments, 1)
    with pytest.raises(NotImplementedError, match='method="direct" solves on the CPU only'):
        torch.ops.spgrad.pattern_pinv_mm.default._op_dk(
            COMPOSITE, *arguments, torch.ones(2), torch.ones(2, 1), 0.0, 9, 1, []
        )


@pytest.mark.of_kernels
def test_ctrl_c_ends_the_iteration():
    (seconds,) = output_of(
        """
import os, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in the background
n = 60000
A = torch.sparse_coo_tensor(torch.randint(n, (2, 4 * n)), torch.randn(4 * n).double(), (n, n))
timer = threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT))
timer.start()
start = time.monotonic()
try:
    spgrad.sparse_lstsq(A.to_sparse_csr(), torch.ones(n).double(), tol=0.0, maxiter=10**9)
except KeyboardInterrupt:
    print(time.monotonic() - start)
""",
        seconds=120,
    )
    assert float(seconds) < 30
