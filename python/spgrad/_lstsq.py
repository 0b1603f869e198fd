"""Sparse least squares. The iteration and gradients are in C++."""

from __future__ import annotations

import math
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypedDict, overload

import torch
from torch import Tensor

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import LARGEST, integer, real, refuse_others_than_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Unpack

    Failure = Literal["warn", "raise", "ignore"]

    class Options(TypedDict, total=False):
        """What every form of least squares can be told."""

        damp: float | Tensor
        x0: Tensor | None
        tol: float | None
        maxiter: int | None
        scale: Literal["columns"] | None
        method: Literal["lsmr", "direct"]
        on_failure: Failure


_sparse_lstsq = torch.ops.spgrad.sparse_lstsq.default
_csr_lstsq = torch.ops.spgrad.csr_lstsq.default
_coo_lstsq = torch.ops.spgrad.coo_lstsq.default


_LIMIT = 2  # the reason of what has not converged
_WITHOUT_NUMBERS = tuple(map(torch._C._dispatch_key_parse, ("Python", "Batched")))  # noqa: SLF001
_FAILURES = ("warn", "raise", "ignore")


class ConvergenceWarning(UserWarning):
    """A solve ended before it reached its tolerance: results are the best so far.

    >>> import spgrad
    >>> issubclass(spgrad.ConvergenceWarning, UserWarning)
    True
    """


class ConvergenceError(RuntimeError):
    """A solve ended before it reached its tolerance, and the caller asked for an error.

    >>> import spgrad
    >>> issubclass(spgrad.ConvergenceError, RuntimeError)
    True
    """


class LstsqReport:
    """How a solve went, for each column: ``(k,)``, ``()`` for a vector, ``(b, k)`` for batches.

    >>> import torch, spgrad
    >>> A = torch.tensor([[2.0], [1.0]]).to_sparse_csr()
    >>> x, report = spgrad.sparse_lstsq(A, torch.tensor([4.0, 2.0]), return_report=True)
    >>> report.iterations, report.converged
    (tensor(1), tensor(True))
    """

    __slots__ = ("_dims", "_solves")

    _solves: Tensor
    _dims: int

    @classmethod
    def _of(cls, solves: Tensor, dims: int) -> LstsqReport:
        """Read the reports of an operator, first of this solve, for a solution of `dims`."""
        report = cls()
        report._solves, report._dims = solves, dims
        return report

    def _field(self, number: int) -> Tensor:
        field = self._solves[0, ..., number]  # (b, k)
        match self._dims:
            case 1:
                return field[0, 0]
            case 2:
                return field[0]
        return field

    @property
    def iterations(self) -> Tensor:
        """How many iterations were made, int64."""
        return self._field(0).long()

    @property
    def reason(self) -> Tensor:
        """Why they ended, int64.

        0: ``A @ x`` equals ``b``, to the tolerance. 1: ``A.mH @ r`` is zero, to the tolerance, with
        ``r = b - A @ x``. 2: ``maxiter`` was reached; x is the best so far.
        """
        return self._field(1).long()

    @property
    def converged(self) -> Tensor:
        """Whether they ended before the limit, bool."""
        return self._field(1) != _LIMIT

    @property
    def residual_norm(self) -> Tensor:
        """The norm of the residual, ``|b - A @ x|``, float64, computed from x.

        With ``damp``, that of the problem with the rows ``damp * 1`` below A.
        """
        return self._field(2)

    @property
    def optimality(self) -> Tensor:
        """How far from optimal x is, ``|A.mH @ r| / (|A| |r|)``, float64, computed from x.

        With the Frobenius norm of A, of its listed entries; 0 where there is no residual at all.
        """
        return self._field(3)

    @property
    def backward(self) -> tuple[LstsqReport, ...]:
        """The solves of the last backward pass, one to three, as they are now.

        There are none before it, nor after one under vmap, whose numbers cannot be read.

        The first is for the gradient of B, with the transposed matrix; the others are for that of
        A, and are made only where they can add something to it.
        """
        later = self._solves[1:].clone().split(1)  # the next pass overwrites them
        return tuple(
            LstsqReport._of(solve, self._dims) for solve in later if not solve[..., 0].isnan().any()
        )

    def __repr__(self) -> str:
        """Show the numbers."""
        return (
            f"LstsqReport(iterations={self.iterations}, converged={self.converged}, "
            f"residual_norm={self.residual_norm}, optimality={self.optimality})"
        )


def _frames_of_spgrad() -> int:
    """Count those between the caller and whoever called spgrad."""
    frame = sys._getframe(1)  # noqa: SLF001
    count = 0
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("spgrad."):
        frame, count = frame.f_back, count + 1
    return count


def _judge(report: LstsqReport, on_failure: Failure, solve: str) -> None:
    failed = ~report.converged
    if on_failure == "ignore" or not failed.any():
        return
    message = (
        f"{solve} did not converge: {int(failed.sum())} of {failed.numel()} columns are not there "
        f"after {int(report.iterations.max())} iterations, and |A.mH @ r| / (|A| |r|) is "
        f"{float(report.optimality[failed].max()):.1e} in the worst. "
        "Allow more (maxiter), ask for less (tol), or try scale='columns' or damp"
    )
    if on_failure == "raise":
        raise ConvergenceError(message)
    warnings.warn(message, ConvergenceWarning, stacklevel=1 + _frames_of_spgrad())


def _watch(x: Tensor, report: LstsqReport, on_failure: Failure) -> None:
    """Judge the solves of the backward pass as soon as it has made them."""
    node = x.grad_fn
    while node is not None and node.name() != "PinvMmBackward":
        node = node.next_functions[0][0]

    def judge(_inputs: object, _outputs: object) -> None:
        for solve in report.backward:
            _judge(solve, on_failure, "a solve of the backward pass")

    if node is not None:
        node.register_hook(judge)


def has_numbers(tensor: Tensor) -> bool:
    """Whether it can be read: not while a graph is traced, without data, nor under vmap."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is None  # noqa: SLF001
        and not tensor.is_meta
        and not any(map(torch._C._dispatch_keys(tensor).has, _WITHOUT_NUMBERS))  # noqa: SLF001
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)  # noqa: SLF001
    )


def _refuse_types(
    tol: object, maxiter: object, scale: object, method: object, on_failure: object
) -> None:
    """Refuse what the operators' schema has no type for; their values are checked there."""
    for name, value, fits, accepted in (
        ("tol", tol, tol is None or real(tol) is not None, "None or a number in [0, 1)"),
        (
            "maxiter",
            maxiter,
            maxiter is None or integer(maxiter) is not None,
            f"None or an integer from 0 to {LARGEST}",
        ),
        ("scale", scale, scale is None or isinstance(scale, str), 'None or "columns"'),
        ("method", method, isinstance(method, str), '"lsmr" or "direct"'),
        (
            "on_failure",
            on_failure,
            isinstance(on_failure, str) and on_failure in _FAILURES,
            '"warn", "raise" or "ignore"',
        ),
    ):
        if not fits:
            message = f"{name} must be {accepted}, but received {value!r}"
            raise ValueError(message)


def _damp_tensor(damp: float | Tensor, B: Tensor) -> Tensor | None:
    if isinstance(damp, Tensor):
        if not has_numbers(damp) or damp.dim() > 0 or damp.is_complex():
            return damp  # the operator checks what it is
        number = float(damp.detach())
    else:
        given = real(damp)
        number = math.nan if given is None else given
    if not 0 <= number < math.inf:  # math.isfinite cannot be traced
        message = f"damp must be a finite number of 0 or more, but received {damp!r}"
        raise ValueError(message)
    if isinstance(damp, Tensor):
        return damp
    return torch.tensor(number, dtype=torch.float64, device=B.device) if number > 0 else None


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt where an operator was ended by a signal."""
    try:
        yield
    except RuntimeError as error:
        if str(error).startswith("interrupted"):
            raise KeyboardInterrupt from None
        raise


def least_squares(  # noqa: PLR0913 - the options
    operation: Callable[..., tuple[Tensor, Tensor]],
    problem: Sequence[object],
    B: Tensor,
    *,
    return_report: bool,
    damp: float | Tensor = 0.0,
    x0: Tensor | None = None,
    tol: float | None = None,
    maxiter: int | None = None,
    scale: Literal["columns"] | None = None,
    method: Literal["lsmr", "direct"] = "lsmr",
    on_failure: Failure = "warn",
) -> Tensor | tuple[Tensor, LstsqReport]:
    """Call an operator for least squares, and judge how it went."""
    _refuse_types(tol, maxiter, scale, method, on_failure)
    if x0 is not None:
        refuse_others_than_tensors(x0=x0)
    tolerance = None if tol is None else real(tol)
    most = None if maxiter is None else integer(maxiter)
    options = (_damp_tensor(damp, B), x0, tolerance, most, scale, method)
    with interruptible():
        x, solves = operation(*problem, *options)
    report = LstsqReport._of(solves, x.dim())  # noqa: SLF001
    if has_numbers(solves):
        _judge(report, on_failure, "least squares")
        if on_failure != "ignore" and x.grad_fn is not None:
            _watch(x, report, on_failure)
    return (x, report) if return_report else x


@overload
def sparse_lstsq(
    A: Tensor, B: Tensor, *, return_report: Literal[False] = ..., **options: Unpack[Options]
) -> Tensor: ...
@overload
def sparse_lstsq(
    A: Tensor, B: Tensor, *, return_report: Literal[True], **options: Unpack[Options]
) -> tuple[Tensor, LstsqReport]: ...
@overload
def sparse_lstsq(
    A: Tensor, B: Tensor, *, return_report: bool, **options: Unpack[Options]
) -> Tensor | tuple[Tensor, LstsqReport]: ...
def sparse_lstsq(
    A: Tensor, B: Tensor, *, return_report: bool = False, **options: Unpack[Options]
) -> Tensor | tuple[Tensor, LstsqReport]:
    """Solve sparse least squares, ``argmin |A @ x - b|``, with a sparse gradient of the matrix.

    >>> import torch, spgrad
    >>> A = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]).to_sparse_csr().requires_grad_()
    >>> x = spgrad.sparse_lstsq(A, torch.tensor([1.0, 3.0, 4.0]))
    >>> x.detach().round(decimals=4)
    tensor([1., 2.])
    >>> x.sum().backward()
    >>> A.grad.values().shape
    torch.Size([4])

    Of several solutions it gives the one of least norm, so that A may be tall, square or wide, and
    of any rank.

    Args:
        A: Sparse COO or CSR tensor of shape ``(n, m)`` or ``(b, n, m)``: float32, float64,
            complex64 or complex128. COO may be uncoalesced: duplicates add up.
        B: Dense tensor of shape ``(n,)``, ``(n, k)`` or ``(b, n, k)``, with A's dtype and device.
            All columns are solved in one iteration, each until it is done.
        return_report: Return ``(x, report)``: see :class:`LstsqReport`.
        options: As follows.

            - ``damp``: λ of ``argmin |A @ x - b|² + λ² |x|²``, a number or a real 0-dimensional
              tensor, which gets a gradient.
            - ``x0``: First guess, in the shape of ``x``, without a gradient. Of several solutions,
              the one next to it is found.
            - ``tol``: Where a column is done: at ``|r| <= tol (|A| |x| + |b|)`` or
              ``|A.mH @ r| <= tol |A| |r|``, with ``r = b - A @ x`` and a lower bound of ``|A|``.
              By default 10 times the rounding error of a number, 2.2e-15, or 1.2e-6 for float32
              and complex64; once with ``method="direct"``.
            - ``maxiter``: The most iterations; by default ``200 + 40 min(n, m)``.
            - ``scale``: ``"columns"`` scales the columns of A to equal norms inside, which helps
              where they differ by orders of magnitude. It changes which solution is found where
              there are several.
            - ``method``: ``"lsmr"``, or ``"direct"`` for A of full rank (any, with ``damp``): by a
              sparse Cholesky factor of ``A.mH @ A + damp² I``, or of ``A @ A.mH`` where A is wide,
              and a few iterations that take its rounding errors away. It is made once, for the
              backward pass as well. For condition numbers up to 1e7.
            - ``on_failure``: What to do where a column has not converged, forward or backward:
              ``"warn"`` (:class:`ConvergenceWarning`), ``"raise"`` (:class:`ConvergenceError`) or
              ``"ignore"``. Not under ``torch.compile`` and ``torch.func``, where the report alone
              tells.

    Returns:
        ``x`` of shape ``(m,)``, ``(m, k)`` or ``(b, m, k)``, differentiable to any order. The
        gradient of A is that of its specified entries only, as :func:`sparse_mm` has it. Where A
        lacks full rank, it is the derivative along changes that keep the rank.

    Raises:
        ValueError: An argument is no tensor, or shapes, layouts or options do not fit.
        RuntimeError: Dtypes or devices differ or are not supported, A's indices are malformed, or
            numbers are NaN or Inf: in the values, B, or the incoming gradient. With
            ``method="direct"``, A lacks full rank, or the factor would have more than 32 entries
            for each entry and unknown.
        ConvergenceError: A column has not converged, with ``on_failure="raise"``.
        KeyboardInterrupt: Ctrl-C, which ends the iteration at once.

    Source: D. C.-L. Fong and M. Saunders, LSMR, SIAM J. Sci. Comput. 33 (2011); the factor as in
    T. Davis, Direct Methods for Sparse Linear Systems, SIAM (2006); the gradient by G. Golub and
    V. Pereyra, SIAM J. Numer. Anal. 10 (1973).

    """
    refuse_others_than_tensors(A=A, B=B)
    return least_squares(_sparse_lstsq, (A, B), B, return_report=return_report, **options)


@overload
def csr_lstsq(
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    B: Tensor,
    m: int,
    *,
    return_report: Literal[False] = ...,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def csr_lstsq(
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    B: Tensor,
    m: int,
    *,
    return_report: Literal[True],
    **options: Unpack[Options],
) -> tuple[Tensor, LstsqReport]: ...
@overload
def csr_lstsq(
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    B: Tensor,
    m: int,
    *,
    return_report: bool,
    **options: Unpack[Options],
) -> Tensor | tuple[Tensor, LstsqReport]: ...
def csr_lstsq(  # noqa: PLR0913 - a CSR matrix is three tensors and a size
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    B: Tensor,
    m: int,
    *,
    return_report: bool = False,
    **options: Unpack[Options],
) -> Tensor | tuple[Tensor, LstsqReport]:
    """Solve least squares for a CSR matrix, given by plain tensors.

    >>> import torch, spgrad
    >>> crow_indices, col_indices = torch.tensor([0, 1, 2]), torch.tensor([0, 0])
    >>> values = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> spgrad.csr_lstsq(crow_indices, col_indices, values, torch.tensor([6.0, 8.0]), 1)
    tensor([2.], grad_fn=<SqueezeBackward1>)

    Args:
        crow_indices: As :func:`csr_mm` takes them.
        col_indices: As :func:`csr_mm` takes them.
        values: Shape of ``col_indices``; its gradient is dense.
        B: As :func:`sparse_lstsq` takes it.
        m: Number of columns of the matrix.
        return_report: As :func:`sparse_lstsq` has it.
        options: Those of :func:`sparse_lstsq`.

    Returns:
        As :func:`sparse_lstsq`.

    Raises:
        ValueError: As :func:`sparse_lstsq`.
        RuntimeError: As :func:`sparse_lstsq`.

    """
    refuse_others_than_tensors(
        crow_indices=crow_indices, col_indices=col_indices, values=values, B=B
    )
    problem = (crow_indices, col_indices, values, B, m)
    return least_squares(_csr_lstsq, problem, B, return_report=return_report, **options)


@overload
def coo_lstsq(
    indices: Tensor,
    values: Tensor,
    size: Sequence[int],
    B: Tensor,
    *,
    return_report: Literal[False] = ...,
    **options: Unpack[Options],
) -> Tensor: ...
@overload
def coo_lstsq(
    indices: Tensor,
    values: Tensor,
    size: Sequence[int],
    B: Tensor,
    *,
    return_report: Literal[True],
    **options: Unpack[Options],
) -> tuple[Tensor, LstsqReport]: ...
@overload
def coo_lstsq(
    indices: Tensor,
    values: Tensor,
    size: Sequence[int],
    B: Tensor,
    *,
    return_report: bool,
    **options: Unpack[Options],
) -> Tensor | tuple[Tensor, LstsqReport]: ...
def coo_lstsq(
    indices: Tensor,
    values: Tensor,
    size: Sequence[int],
    B: Tensor,
    *,
    return_report: bool = False,
    **options: Unpack[Options],
) -> Tensor | tuple[Tensor, LstsqReport]:
    """Solve least squares for a COO matrix, given by plain tensors.

    >>> import torch, spgrad
    >>> indices, values = torch.tensor([[0, 1], [0, 0]]), torch.tensor([3.0, 4.0])
    >>> spgrad.coo_lstsq(indices, values, (2, 1), torch.tensor([6.0, 8.0]))
    tensor([2.])

    Args:
        indices: As :func:`coo_mm` takes them.
        values: Shape ``(nnz,)``; its gradient is dense.
        size: ``(n, m)`` or ``(b, n, m)``.
        B: As :func:`sparse_lstsq` takes it.
        return_report: As :func:`sparse_lstsq` has it.
        options: Those of :func:`sparse_lstsq`.

    Returns:
        As :func:`sparse_lstsq`.

    Raises:
        ValueError: As :func:`sparse_lstsq`.
        RuntimeError: As :func:`sparse_lstsq`.

    """
    refuse_others_than_tensors(indices=indices, values=values, B=B)
    problem = (indices, values, size, B)
    return least_squares(_coo_lstsq, problem, B, return_report=return_report, **options)
