"""Least squares and solves by functions of the caller, with gradients of ours."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from spgrad._arguments import refuse_others_than_tensors
from spgrad._lstsq import has_numbers, sparse_lstsq
from spgrad._pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spgrad._lstsq import LstsqReport

    Solve = Callable[[Tensor, Tensor], Tensor]

_specified_values = torch.ops.spgrad._specified_values.default  # noqa: SLF001
_with_values = torch.ops.spgrad._with_values.default  # noqa: SLF001

_LEAST_SQUARES = 1  # the reason of a solve whose residual is not 0
_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class _Problem(NamedTuple):
    A: Tensor
    pattern: Pattern
    solve: Solve
    transpose_solve: Solve
    names: tuple[str, str]
    square: bool  # and regular: no residual, and nothing outside of the range


def _columns(x: Tensor) -> Tensor:
    return x if x.dim() > 1 else x.unsqueeze(-1)


def _is_zero(x: Tensor, beside: Tensor) -> bool:
    """Whether a part of ``beside`` is rounding, and what a solver leaves."""
    if not has_numbers(x):
        return False
    if x.numel() == 0:
        return True
    largest = beside.abs().amax(dim=0)
    unit = largest.where(largest > 0, 1)  # squares of other numbers may overflow or vanish
    least = torch.finfo(x.dtype).eps ** 0.75
    return bool(((x / unit).norm(dim=0) <= least * (beside / unit).norm(dim=0)).all())


class _Solution(torch.autograd.Function):
    """A⁺ b, or that of the transposed matrix with these values: src/torch/solvers/autograd.cpp."""

    @staticmethod
    def forward(values: Tensor, B: Tensor, problem: _Problem, transposed: bool) -> Tensor:  # noqa: FBT001
        solve = problem.transpose_solve if transposed else problem.solve
        name = problem.names[transposed]
        X = solve(_with_values(problem.A, values), B)
        rows = problem.A.shape[0 if transposed else 1]
        shape = (rows, *B.shape[1:])
        if not isinstance(X, Tensor):
            message = f"{name} must return a tensor, but returned {type(X).__name__}"
            raise RuntimeError(message)  # noqa: TRY004 - as for what else it returns
        if X.layout != torch.strided:
            message = f"{name} must return a dense (strided) tensor, but returned {X.layout}"
            raise RuntimeError(message)
        fits = _columns(X).shape == (rows, *_columns(B).shape[1:])
        if not fits or X.dtype != B.dtype or X.device != B.device:
            message = (
                f"{name} must return shape {shape}, {B.dtype} on {B.device}, "
                f"but returned {tuple(X.shape)}, {X.dtype} on {X.device}"
            )
            raise RuntimeError(message)
        if X.shape != shape:
            return X.reshape(shape)
        return X.view_as(X) if X is B else X

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, B, ctx.problem, ctx.transposed = inputs
        ctx.save_for_backward(values, B, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (g,) = grads
        _refuse_others_than_finite("the incoming gradient", g)
        values, B, x = ctx.saved_tensors
        problem: _Problem = ctx.problem
        pattern = problem.pattern.T if ctx.transposed else problem.pattern
        conjugate = values.conj().resolve_conj()

        def solve(factors: Tensor, right: Tensor, *, transposed: bool) -> Tensor:
            solution: Tensor = _Solution.apply(factors, right, problem, transposed)
            return solution

        def sampled(left: Tensor, right: Tensor) -> Tensor:
            return pattern.sddmm(_columns(left), _columns(right).conj().resolve_conj())

        w = solve(conjugate, g, transposed=not ctx.transposed)
        if not ctx.needs_input_grad[0]:
            return None, w, None, None
        gradient = -sampled(w, x)
        if not problem.square:
            # A term that is 0 here has derivatives that are not.
            all_terms = torch.is_grad_enabled()
            r = B - pattern.mm(values, _columns(x)).view_as(B)
            if all_terms or not _is_zero(r, B):
                gradient = gradient + sampled(r, solve(values, w, transposed=ctx.transposed))
            q = g - pattern.mm_transposed(conjugate, _columns(w)).view_as(g)
            if all_terms or not _is_zero(q, g):
                y = solve(conjugate, x, transposed=not ctx.transposed)
                gradient = gradient + sampled(y, q)
        return gradient, w, None, None


def _function(
    given: object, name: str, default: Solve, options: Mapping[str, object] | None = None
) -> Solve:
    """Give the caller's function, with the options, or ours, which takes none."""
    if given is None:
        return default
    if not callable(given):
        message = f"{name} must be a function, but received {type(given).__name__}"
        raise ValueError(message)  # noqa: TRY004 - the documented type, which callers catch
    return partial(given, **options) if options else given


def _solution(  # noqa: PLR0913 - a problem, and how it is solved
    A: Tensor,
    B: Tensor,
    solve: Solve,
    transpose_solve: Solve,
    names: tuple[str, str],
    *,
    square: bool,
) -> Tensor:
    pattern = Pattern(A)
    values = _specified_values(A)
    _check_numbers(values, B)
    problem = _Problem(A.detach(), pattern, solve, transpose_solve, names, square)
    solution: Tensor = _Solution.apply(values, B, problem, False)  # noqa: FBT003
    return solution


def _transposed_lstsq(A: Tensor, B: Tensor) -> Tensor:
    x = Pattern(A).T.lstsq(_specified_values(A), B)
    assert isinstance(x, Tensor)  # noqa: S101 - without a report
    return x


def _solved(A: Tensor, B: Tensor) -> Tensor:
    x, report = sparse_lstsq(A, B, return_report=True)
    _refuse_unsolved(report, "A @ x = b")
    return x


def _solved_transposed(A: Tensor, B: Tensor) -> Tensor:
    x, report = Pattern(A).T.lstsq(_specified_values(A), B, return_report=True)
    _refuse_unsolved(report, "A.T @ x = g")
    return x


def _refuse_unsolved(report: LstsqReport, system: str) -> None:
    """Refuse what ended with ``A.mH @ r`` of 0, but not r: A is singular, to rounding."""
    if has_numbers(report.reason) and (report.reason == _LEAST_SQUARES).any():
        message = (
            f"A must be regular, but for {system} received one that is singular, or so nearly that "
            "its dtype cannot tell: the residual norm is "
            f"{float(report.residual_norm.max()):.1e} in the worst column; use float64, give solve "
            "and transpose_solve, or take sparse_lstsq, which solves that as well as can be"
        )
        raise RuntimeError(message)


def _check_operands(A: Tensor, B: Tensor) -> None:
    refuse_others_than_tensors(A=A, B=B)
    if A.dim() != 2 or B.dim() not in (1, 2) or B.shape[0] != A.shape[0]:  # noqa: PLR2004
        message = (
            "A must have shape (n, m) and B (n,) or (n, k), "
            f"but received {tuple(A.shape)} and {tuple(B.shape)}"
        )
        raise ValueError(message)


def _check_numbers(values: Tensor, B: Tensor) -> None:
    """Refuse what no solver of ours takes, before a function of the caller gets it."""
    if B.layout != torch.strided:
        message = f"B must be a dense (strided) tensor, but received layout {B.layout}"
        raise ValueError(message)
    if values.dtype != B.dtype or values.device != B.device:
        message = (
            "A and B must have the same dtype and device, but received "
            f"{values.dtype} on {values.device} and {B.dtype} on {B.device}"
        )
        raise RuntimeError(message)
    if B.dtype not in _DTYPES:
        message = (
            f"A and B must be float32, float64, complex64 or complex128, but received {B.dtype}"
        )
        raise RuntimeError(message)
    _refuse_others_than_finite("A", values)
    _refuse_others_than_finite("B", B)


def _refuse_others_than_finite(name: str, numbers: Tensor) -> None:
    if has_numbers(numbers) and not numbers.isfinite().all():
        message = f"{name} must have finite numbers only, but received NaN or Inf"
        raise RuntimeError(message)


def sparse_generic_lstsq(
    A: Tensor, B: Tensor, lstsq: Solve | None = None, transpose_lstsq: Solve | None = None
) -> Tensor:
    """Solve sparse least squares by a function of yours, with a sparse gradient of the matrix.

    The signature is that of torchsparsegradutils. Without functions it is :func:`sparse_lstsq`,
    which has more to set.

    >>> import torch, spgrad
    >>> A = torch.tensor([[3.0], [4.0]]).to_sparse_csr().requires_grad_()
    >>> dense = lambda A, B: torch.linalg.lstsq(A.to_dense(), B).solution
    >>> transposed = lambda A, B: torch.linalg.pinv(A.to_dense().T) @ B
    >>> spgrad.sparse_generic_lstsq(A, torch.tensor([[6.0], [8.0]]), dense, transposed)
    tensor([[2.]], grad_fn=<_SolutionBackward>)

    Args:
        A: As :func:`sparse_lstsq` takes it, of shape ``(n, m)``.
        B: Dense tensor of shape ``(n,)`` or ``(n, k)``, with A's dtype and device.
        lstsq: ``lstsq(A, B)`` gives the solution of least norm, ``(m,)`` or ``(m, k)``; of one
            column it may be a vector, and the other way round.
        transpose_lstsq: ``transpose_lstsq(A, G)`` gives that for the transposed matrix, ``(n,)`` or
            ``(n, k)``; it gets A as it is. Of complex matrices it gets the conjugate.

    Returns:
        The solution, differentiable to any order.

    Raises:
        ValueError: An argument is no tensor or no function, or shapes or layouts do not fit.
        RuntimeError: As :func:`sparse_lstsq`; or a function returned no tensor, or one of another
            shape, dtype or device than it should.

    """
    _check_operands(A, B)
    if lstsq is None and transpose_lstsq is None:
        return sparse_lstsq(A, B)
    return _solution(
        A,
        B,
        _function(lstsq, "lstsq", sparse_lstsq),
        _function(transpose_lstsq, "transpose_lstsq", _transposed_lstsq),
        ("lstsq", "transpose_lstsq"),
        square=False,
    )


def sparse_generic_solve(
    A: Tensor,
    B: Tensor,
    solve: Callable[..., Tensor] | None = None,
    transpose_solve: Callable[..., Tensor] | None = None,
    **options: object,
) -> Tensor:
    """Solve a regular square sparse system by a function of yours, with a sparse gradient.

    The signature is that of torchsparsegradutils.

    >>> import torch, spgrad
    >>> A = torch.tensor([[2.0, 1.0], [0.0, 4.0]]).to_sparse_csr().requires_grad_()
    >>> spgrad.sparse_generic_solve(A, torch.tensor([4.0, 8.0])).detach().round(decimals=4)
    tensor([1., 2.])

    Args:
        A: Sparse COO or CSR tensor of shape ``(n, n)``, of a dtype that :func:`sparse_lstsq` takes.
        B: Dense tensor of shape ``(n,)`` or ``(n, k)``, with A's dtype and device.
        solve: ``solve(A, B)`` gives the solution, of B's shape; of one column it may be a vector,
            and the other way round. By default that of :func:`sparse_lstsq`, to its tolerance,
            which must tell A from a singular matrix: in float32, A's condition number must be some
            way below 1e6.
        transpose_solve: ``transpose_solve(A, G)`` gives that for the transposed matrix; it gets A
            as it is. Of complex matrices it gets the conjugate.
        options: What ``solve`` and ``transpose_solve`` are called with by name.

    Returns:
        The solution, differentiable to any order.

    Raises:
        ValueError: An argument is no tensor or no function, A is not square, shapes or layouts do
            not fit, or there are options and no function for them.
        RuntimeError: As :func:`sparse_generic_lstsq`; or the default meets a matrix that is
            singular to rounding.

    """
    _check_operands(A, B)
    if A.shape[0] != A.shape[1]:
        message = f"A must be square, but received shape {tuple(A.shape)}"
        raise ValueError(message)
    if solve is None and transpose_solve is None:
        if options:
            message = (
                "options need a function that takes them, solve or transpose_solve, "
                f"but received {', '.join(options)} alone"
            )
            raise ValueError(message)
        return _solved(A, B)
    return _solution(
        A,
        B,
        _function(solve, "solve", _solved, options),
        _function(transpose_solve, "transpose_solve", _solved_transposed, options),
        ("solve", "transpose_solve"),
        square=True,
    )
