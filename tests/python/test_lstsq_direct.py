"""Least squares by a sparse Cholesky factor, beside dense ones."""

import copy
import re

import pytest
import torch
from least_squares import (
    DTYPES,
    FORMS,
    WIDE,
    assert_close,
    assert_same_bits_on_threads,
    assert_transforms,
    gradients,
    matrix,
    right_side,
    solver,
)
from pairs import pairwise
from torch._subclasses.fake_tensor import FakeTensorMode

import spgrad
from spgrad import _pattern

# By PyTorch, where it makes forward mode of its own operators.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

SHAPES = ((30, 10), (12, 12), (8, 20))


def grid(side):
    """Make the differences along a grid, with one known value: full column rank, some fill."""
    point = torch.arange(side * side).view(side, side)
    start = torch.cat([point[:, :-1].flatten(), point[:-1].flatten()])
    end = torch.cat([point[:, 1:].flatten(), point[1:].flatten()])
    row = torch.arange(len(start))
    indices = torch.stack(
        [torch.cat([row, row, row[-1:] + 1]), torch.cat([start, end, torch.zeros(1).long()])]
    )
    values = torch.cat([-torch.ones(len(start)), torch.ones(len(start) + 1)]).double()
    return torch.sparse_coo_tensor(indices, values, (len(start) + 1, side * side)).coalesce()


@pairwise(shape=SHAPES, form=FORMS, dtype=DTYPES, damp=(0.0, 0.3))
def test_solution_and_gradients_are_those_of_the_dense_problem(shape, form, dtype, damp):
    n, m = shape
    D = matrix(n, m, dtype=dtype)
    B, G = right_side(n, 3, dtype=dtype).requires_grad_(), right_side(m, 3, dtype=dtype, seed=3)
    leaf, (row, column), solve = solver(D, form)
    x, report = solve(B, method="direct", damp=damp, return_report=True)
    x.backward(G)
    wide = WIDE.get(dtype, dtype)
    tolerance = 1e-12 if wide == dtype else 1e-4
    stacked, right = D.to(wide), B.detach().to(wide)
    if damp:
        stacked = torch.cat([stacked, damp * torch.eye(m, dtype=wide)])
        right = torch.cat([right, torch.zeros(m, 3, dtype=wide)])
    X, dA, dB = gradients(stacked, right, G.to(wide))
    assert_close(x, X, tolerance)
    assert_close(B.grad, dB[:n], tolerance)
    grad = leaf.grad
    if grad.layout != torch.strided:
        grad = grad.values() if grad.layout == torch.sparse_csr else grad._values()
    assert_close(grad, dA[row, column], tolerance)
    assert report.converged.all()
    assert report.iterations.max() <= 3
    assert all(solved.iterations.max() <= 3 for solved in report.backward)
    # The numbers of the problem itself, and not of the one that was iterated.
    residual = (right - stacked @ x.detach().to(wide)).norm(dim=0)
    assert (report.residual_norm - residual).abs().max() <= tolerance * right.norm()
    if n > m and not damp:
        assert report.optimality.max() <= tolerance


@pytest.mark.parametrize(("n", "m"), [(9, 4), (4, 9), (5, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivatives_of_any_order(n, m, dtype):
    D = matrix(n, m, dtype=dtype)
    values, _, _ = solver(D, "pattern")
    pattern = spgrad.Pattern(D.to_sparse_csr())
    B = right_side(n, 2, dtype=dtype).requires_grad_()
    damp = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def solve(values, B, damp=0.0):
        return pattern.lstsq(values, B, damp=damp, method="direct")

    assert torch.autograd.gradcheck(solve, (values, B), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(solve, (values, B))
    assert torch.autograd.gradgradcheck(solve, (values, B, damp))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_batches_are_as_their_items(shape):
    items = torch.stack([matrix(*shape, seed=seed) * 10.0**seed for seed in range(3)])
    indices = items.nonzero().T
    A = torch.sparse_coo_tensor(indices, items[tuple(indices)], items.shape, is_coalesced=True)
    B = right_side(3, shape[0], 2)
    for options in ({}, {"damp": 0.5}, {"scale": "columns"}, {"x0": right_side(3, shape[1], 2)}):
        x, report = spgrad.sparse_lstsq(A, B, method="direct", return_report=True, **options)
        assert report.iterations.shape == (3, 2)
        expected = spgrad.sparse_lstsq(A, B, **options)
        assert_close(x, expected, 1e-12)


@pytest.mark.parametrize("scale", [1e150, 1e-150])
def test_scales_at_the_edge(scale):
    D, B = matrix(9, 4), right_side(9, 2)
    expected = torch.linalg.lstsq(D, B).solution
    x, report = spgrad.sparse_lstsq(
        (D * scale).to_sparse_csr(), B, method="direct", return_report=True
    )
    assert_close(x * scale, expected, 1e-12)
    assert_close(report.residual_norm, (B - D @ expected).norm(dim=0), 1e-12)
    x, report = spgrad.sparse_lstsq(
        D.to_sparse_csr(), B * scale, method="direct", return_report=True
    )
    assert_close(x / scale, expected, 1e-12)
    assert_close(report.residual_norm / scale, (B - D @ expected).norm(dim=0), 1e-12)


def test_numbers_without_reciprocals():
    A, B = matrix(9, 4) * 1e-310, right_side(9, 2) * 1e-310
    x = spgrad.sparse_lstsq(A.to_sparse_csr(), B, method="direct")
    assert_close(x, torch.linalg.lstsq(A / 1e-310, B / 1e-310).solution, 1e-11)


@pytest.mark.parametrize("condition", [1e2, 1e6])
def test_it_is_as_exact_as_qr_where_iterations_take_hundreds(condition):
    make = torch.Generator().manual_seed(0)
    U, V = (
        torch.linalg.qr(torch.randn(size, generator=make, dtype=torch.float64)).Q
        for size in ((60, 25), (25, 25))
    )
    singular = torch.logspace(0, 0, 25, dtype=torch.float64)
    singular[12:] /= condition
    D = U * singular @ V.T
    x_exact = right_side(25, 1)
    B = D @ x_exact  # is reached, so that the errors are those of rounding times the condition
    x, report = spgrad.sparse_lstsq(D.to_sparse_csr(), B, method="direct", return_report=True)
    assert_close(x, x_exact, 1e-15 * condition)
    assert report.iterations.max() <= 5


def test_a_pattern_keeps_the_analysis_and_the_node_the_factor():
    A = grid(8)
    pattern = spgrad.Pattern(A)
    values, B = A.values().clone().requires_grad_(), right_side(A.shape[0], 2)
    calls = {"gram_analysis": 0, "gram_factor": 0}

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
            name = function.name().removeprefix("spgrad::pattern_")
            if name in calls:
                calls[name] += 1
            return function(*args, **(kwargs or {}))

    with Count():
        for _ in range(2):
            pattern.lstsq(values, B, method="direct").sum().backward()
    assert calls == {"gram_analysis": 1, "gram_factor": 2}
    # A copy has the same structure, and looks for the rest itself.
    again = copy.deepcopy(pattern)
    assert again.lstsq(values, B, method="direct").equal(pattern.lstsq(values, B, method="direct"))
    with Count():
        pattern.lstsq(values, B, method="direct", damp=0.1)
        pattern.T.lstsq(values, right_side(A.shape[1], 2), method="direct")
    assert calls == {"gram_analysis": 2, "gram_factor": 4}


def test_what_a_pattern_keeps_belongs_to_no_transform():
    D, b = matrix(9, 4), right_side(9)
    csr = D.to_sparse_csr()
    values = csr.values().clone()
    pattern = spgrad.Pattern(csr)
    loss = lambda values: pattern.lstsq(values, b, method="direct").square().sum()  # noqa: E731
    iterated = lambda values: pattern.lstsq(values, b).square().sum()  # noqa: E731
    expected = torch.func.hessian(iterated)(values)
    for _ in range(2):  # the first looks for the structure
        assert_close(torch.func.hessian(loss)(values), expected, 1e-10)


def test_the_order_keeps_the_factor_sparse():
    # An arrow: in the order as given, its factor would be full.
    m = 2000
    row = torch.cat([torch.arange(m), torch.arange(m)])
    column = torch.cat([torch.arange(m), torch.zeros(m).long()])
    pattern = spgrad.Pattern.from_coo(torch.stack([row, column]), (m, m))
    *_, rows = pattern._analysis(0.0)
    assert rows.numel() == 2 * m - 1
    *_, rows = spgrad.Pattern(grid(40))._analysis(0.0)
    assert rows.numel() < 15 * 40**2


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda D: D[:, 2].zero_(), {}, "needs a matrix of full column rank, but column 2 is zero"),
        (lambda D: D[:, 3].copy_(D[:, 1]), {}, "full column rank, but column"),
        (lambda D: D.T[:, 3].copy_(D.T[:, 1]), {"wide": True}, "full row rank, but row"),
        (lambda D: D[:, 3].copy_(D[:, 1]), {"dtype": torch.float32}, "set damp"),
    ],
)
def test_a_matrix_without_full_rank_is_refused(spoil, options, message):
    D = matrix(12, 5, dtype=options.get("dtype", torch.float64)).abs().add(0.1)
    D = D.T.contiguous() if options.get("wide") else D
    spoil(D)
    A, B = D.to_sparse_csr(), right_side(D.shape[0], dtype=D.dtype)
    with pytest.raises(RuntimeError, match=re.escape(message)):
        spgrad.sparse_lstsq(A, B, method="direct")
    damped = spgrad.sparse_lstsq(A, B, method="direct", damp=0.1)
    assert_close(
        damped, spgrad.sparse_lstsq(A, B, damp=0.1), 1e-4 if D.dtype.itemsize == 4 else 1e-11
    )


def test_a_factor_of_many_entries_is_refused():
    n, m = 6000, 3000
    make = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.arange(n).repeat(4), torch.randint(m, (4 * n,), generator=make)])
    values = torch.randn(4 * n, generator=make, dtype=torch.float64)
    with pytest.raises(
        RuntimeError,
        match=r"takes matrices whose Cholesky factor has at most 1048576 entries.*24000 entries",
    ):
        spgrad.coo_lstsq(indices, values, (n, m), right_side(n), method="direct")


def test_bad_numbers_and_factors_are_refused():
    D, b = matrix(6, 4), right_side(6)
    with pytest.raises(RuntimeError, match="values must have finite numbers only"):
        spgrad.sparse_lstsq((D * torch.inf).to_sparse_csr(), b, method="direct")
    pattern = spgrad.Pattern(D.to_sparse_csr())
    values, B = D.to_sparse_csr().values(), b[:, None]
    structure = (*pattern._tensors, pattern.shape)
    ops = torch.ops.spgrad
    order, offsets, rows = ops.pattern_gram_analysis(*structure, 1)
    factor = ops.pattern_gram_factor(*structure, values, 1, [order, offsets, rows])
    solve = lambda *factor: ops.pattern_pinv_mm(*structure, values, B, 1e-14, 9, 1, factor)  # noqa: E731
    assert_close(solve(order, offsets, rows, factor)[0], torch.linalg.lstsq(D, B).solution, 1e-12)
    message = "a factor must be that of the matrix"
    for bad in (
        (order * 7, offsets, rows, factor),
        (order[:-1], offsets, rows, factor),
        (order, offsets * 3, rows, factor),
        (order, offsets - 1, rows, factor),
        (order, offsets, rows + 1, factor),
        (order, offsets, rows.flip(0), factor),
        (order, offsets, rows, factor[:-1]),
    ):
        with pytest.raises(RuntimeError, match=message):
            solve(*bad)
    with pytest.raises(ValueError, match="must be a vector of Double"):
        solve(order, offsets, rows, factor.float())
    with pytest.raises(ValueError, match="factor must have four tensors"):
        solve(order, offsets, rows)
    with pytest.raises(ValueError, match="gram must be 1, of the columns, or 2"):
        ops.pattern_gram_analysis(*structure, 3)


def test_ctrl_c_ends_the_analysis_of_a_pattern(monkeypatch):
    def interrupted(*_):
        message = "interrupted: a signal ended the iteration"
        raise RuntimeError(message)

    monkeypatch.setattr(_pattern, "_pattern_gram_analysis", interrupted)
    pattern = spgrad.Pattern(torch.eye(2).to_sparse_csr())
    with pytest.raises(KeyboardInterrupt):
        pattern.lstsq(torch.ones(2), torch.ones(2), method="direct")


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_compile_export_and_transforms(shape):
    n, m = shape
    D, b = matrix(n, m), right_side(n)
    csr = D.to_sparse_csr()
    structure, values = (csr.crow_indices(), csr.col_indices()), csr.values().clone()
    pattern = spgrad.Pattern(csr)

    def solve(values, b):
        return spgrad.csr_lstsq(*structure, values, b, m, method="direct")

    assert_transforms(solve, values, b)

    compiled = torch.compile(
        lambda values, b: pattern.lstsq(values, b, method="direct"),
        fullgraph=True,
        backend="aot_eager",
    )
    leaf, same = values.clone().requires_grad_(), values.clone().requires_grad_()
    compiled(leaf, b).sum().backward()
    solve(same, b).sum().backward()
    torch.testing.assert_close(leaf.grad, same.grad)


def test_same_bits_on_any_number_of_threads():
    A = grid(60)
    B = right_side(A.shape[0], 20)
    assert_same_bits_on_threads(lambda A: spgrad.sparse_lstsq(A, B, method="direct"), A)


@pytest.mark.parametrize(("n", "m", "k"), [(0, 3, 2), (5, 3, 0), (0, 0, 0)])
def test_empty_problems(n, m, k):
    A = matrix(n, m).to_sparse_csr() if n and m else torch.zeros(n, m).double().to_sparse_csr()
    x = spgrad.sparse_lstsq(A, torch.ones(n, k, dtype=torch.float64), method="direct")
    assert x.shape == (m, k)
    assert not x.any()


@pytest.mark.parametrize("damp", [0.0, 0.5])
def test_a_batch_of_nothing(damp):
    A = torch.zeros(0, 4, 3).double().to_sparse().requires_grad_()
    B = torch.zeros(0, 4, 2).double().requires_grad_()
    x = spgrad.sparse_lstsq(A, B, method="direct", damp=damp)
    assert x.shape == (0, 3, 2)
    x.sum().backward()
    assert B.grad.shape == B.shape


def test_a_solve_without_data_keeps_no_analysis():
    A = torch.eye(7, dtype=torch.float64).to_sparse_csr()
    pattern, values, b = spgrad.Pattern(A), A.values().clone(), torch.ones(7).double()
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert pattern.lstsq(values, b, method="direct").shape == (7,)
    torch.testing.assert_close(pattern.lstsq(values, b, method="direct"), b)
