"""A sparse structure that is prepared once and multiplied many times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import refuse_others_than_tensors
from spgrad._lstsq import has_numbers, interruptible, least_squares

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Unpack

    from spgrad._lstsq import LstsqReport, Options
    from spgrad._products import Reduce

_pattern = torch.ops.spgrad.pattern.default
_pattern_from_csr = torch.ops.spgrad.pattern_from_csr.default
_coo_pattern = torch.ops.spgrad.coo_pattern.default
_pattern_mm = torch.ops.spgrad.pattern_mm.default
_pattern_mm_reduce = torch.ops.spgrad.pattern_mm_reduce.default
_pattern_mm_transposed = torch.ops.spgrad.pattern_mm_transposed.default
_pattern_sddmm = torch.ops.spgrad.pattern_sddmm.default
_pattern_lstsq = torch.ops.spgrad.pattern_lstsq.default
_pattern_gram_analysis = torch.ops.spgrad.pattern_gram_analysis.default
_pattern_softmax = torch.ops.spgrad.pattern_softmax.default
_pattern_indices = torch.ops.spgrad.pattern_indices.default

_Tensors = tuple[Tensor, Tensor, Tensor, Tensor]


class Pattern:
    """The places of a sparse matrix's entries, checked, transposed and kept for many products.

    Use it where the entries stay at their places while their values change, as in training: a step
    with :meth:`mm` sorts nothing. :meth:`from_csr` and :meth:`from_coo` make one of plain tensors.

    >>> import torch, spgrad
    >>> A = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]).to_sparse_csr()
    >>> pattern = spgrad.Pattern(A)
    >>> pattern
    Pattern(shape=(2, 3), nnz=3)
    >>> values = torch.nn.Parameter(A.values())
    >>> pattern.mm(values, torch.eye(3)).sum().backward()
    >>> values.grad
    tensor([1., 1., 1.])

    A pattern never changes. It has copies of the indices, 4 bytes a number where int32 suffices (12
    bytes for each entry; 16 for unsorted COO), so that a change of A's own does not reach it. It
    may be used in several threads at once, pickled, and loaded by ``torch.load`` with
    ``weights_only=True``.

    Args:
        A: Sparse COO or CSR tensor of shape ``(n, m)`` or ``(b, n, m)``, of any dtype: only the
            positions matter. COO may be unsorted and have duplicates, which add up.

    Raises:
        ValueError: A is no sparse COO or CSR tensor, has another number of dimensions, or is a
            hybrid tensor.
        RuntimeError: A's indices are malformed or outside its shape.
        NotImplementedError: A is COO without data, on the meta device.

    Making one takes linear time: the transposition is a counting sort.

    """

    __slots__ = ("_analyses", "_shape", "_tensors", "_values_shape")

    _shape: torch.Size
    _tensors: _Tensors
    _values_shape: torch.Size
    _analyses: dict[int, list[Tensor]]  # of Cholesky factors, by what they are of

    def __init__(self, A: Tensor) -> None:
        """Check the structure of A and prepare it."""
        refuse_others_than_tensors(A=A)
        self._tensors = _made_by(_pattern, A.detach())
        self._analyses = {}
        self._shape = A.shape
        is_coo = A.layout == torch.sparse_coo
        self._values_shape = A._indices().shape[1:] if is_coo else A.col_indices().shape  # noqa: SLF001

    @classmethod
    def from_csr(cls, crow_indices: Tensor, col_indices: Tensor, shape: Sequence[int]) -> Pattern:
        """Make the pattern of a CSR matrix, given by plain tensors.

        >>> import torch, spgrad
        >>> spgrad.Pattern.from_csr(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), (2, 3))
        Pattern(shape=(2, 3), nnz=3)

        Args:
            crow_indices: As :func:`spgrad.csr_mm` takes them.
            col_indices: As :func:`spgrad.csr_mm` takes them. The values are in this order.
            shape: ``(n, m)`` or ``(b, n, m)``.

        Returns:
            The pattern, with copies of the indices.

        Raises:
            ValueError: An argument is no tensor, or shapes or layouts do not fit.
            RuntimeError: Dtypes or devices differ or are not supported, or the indices are
                malformed or outside the shape.

        """
        refuse_others_than_tensors(crow_indices=crow_indices, col_indices=col_indices)
        tensors = _made_by(_pattern_from_csr, crow_indices, col_indices, shape)
        return cls._of(tensors, torch.Size(shape), col_indices.shape)

    @classmethod
    def from_coo(cls, indices: Tensor, shape: Sequence[int]) -> Pattern:
        """Make the pattern of a COO matrix, given by plain tensors.

        >>> import torch, spgrad
        >>> spgrad.Pattern.from_coo(torch.tensor([[0, 1, 1], [1, 2, 0]]), (2, 3))
        Pattern(shape=(2, 3), nnz=3)

        Args:
            indices: As :func:`spgrad.coo_mm` takes them. The values are in this order.
            shape: ``(n, m)`` or ``(b, n, m)``.

        Returns:
            The pattern, with copies of the indices.

        Raises:
            ValueError: ``indices`` is no tensor, or shapes or layouts do not fit.
            RuntimeError: The dtype is not supported, or an index is outside ``shape``.
            NotImplementedError: ``indices`` is on the meta device, without data.

        """
        refuse_others_than_tensors(indices=indices)
        tensors = _made_by(_coo_pattern, indices, shape)
        return cls._of(tensors, torch.Size(shape), indices.shape[1:])

    @classmethod
    def _of(cls, tensors: _Tensors, shape: torch.Size, values_shape: torch.Size) -> Pattern:
        pattern = cls.__new__(cls)
        pattern._tensors, pattern._shape, pattern._values_shape = tensors, shape, values_shape  # noqa: SLF001
        pattern._analyses = {}  # noqa: SLF001
        return pattern

    @property
    def shape(self) -> torch.Size:
        """Shape of the sparse matrix, ``(n, m)`` or ``(b, n, m)``."""
        return self._shape

    @property
    def values_shape(self) -> torch.Size:
        """Shape of the values, ``(nnz,)``, or ``(b, nnz)`` for batched CSR."""
        return self._values_shape

    @property
    def nnz(self) -> int:
        """Number of entries, those of all items of a batch together."""
        return self._values_shape.numel()

    @property
    def device(self) -> torch.device:
        """Device of the pattern."""
        return self._tensors[0].device

    @property
    def T(self) -> Pattern:  # noqa: N802 - as torch.Tensor and SciPy have it
        """The pattern of the transposed matrix, or of each in a batch.

        It copies nothing, and its values are in the same order.

        >>> import torch, spgrad
        >>> pattern = spgrad.Pattern.from_coo(torch.tensor([[0, 1], [2, 0]]), (2, 3))
        >>> pattern.T.mm(torch.tensor([5.0, 7.0]), torch.eye(2))
        tensor([[0., 7.],
                [0., 0.],
                [5., 0.]])
        """
        row_offsets, row_entries, column_offsets, column_entries = self._tensors
        *batch, n, m = self._shape
        tensors = (column_offsets, column_entries, row_offsets, row_entries)
        return self._of(tensors, torch.Size((*batch, m, n)), self._values_shape)

    def indices(self) -> Tensor:
        """List the places of the entries, in the order of the values.

        >>> import torch, spgrad
        >>> spgrad.Pattern(torch.tensor([[0.0, 2.0], [3.0, 4.0]]).to_sparse()).indices()
        tensor([[0, 1, 1],
                [1, 0, 1]])

        Returns:
            A new int64 tensor of shape ``(2, nnz)`` with row and column of each entry, or
            ``(3, nnz)`` with the item of the batch first. This is what COO has, so that
            ``torch.sparse_coo_tensor(pattern.indices(), values.flatten(), pattern.shape)`` is the
            matrix.

        Raises:
            RuntimeError: The pattern was loaded from a file that holds none.

        """
        indices: Tensor = _pattern_indices(*self._tensors, self._shape)
        return indices

    def mm(self, values: Tensor, B: Tensor, *, reduce: Reduce = "sum") -> Tensor:
        """Multiply the sparse matrix with these values by a dense one.

        >>> import torch, spgrad
        >>> pattern = spgrad.Pattern(torch.eye(2).to_sparse())
        >>> pattern.mm(torch.tensor([2.0, 3.0]), torch.ones(2, 2))
        tensor([[2., 2.],
                [3., 3.]])

        Args:
            values: Dense tensor of shape :attr:`values_shape` behind any leading dimensions, of any
                dtype that :func:`spgrad.sparse_mm` takes, in the order of the entries of the matrix
                that the pattern was made from.
            B: Dense tensor of shape ``(m,)``, ``(*, m, p)`` or ``(*, b, m, p)``, with the dtype and
                device of ``values`` and any strides.
            reduce: As :func:`spgrad.sparse_mm` has it.

        Returns:
            The product, a new contiguous tensor of shape ``(*, n)``, ``(*, n, p)`` or
            ``(*, b, n, p)``, where leading dimensions broadcast as those of
            :func:`spgrad.csr_mm`. The gradient of ``values`` is dense, in their order, and that of
            ``B`` is dense.

        Raises:
            ValueError: An argument is no tensor, shapes or layouts do not fit, or there is no such
                ``reduce``.
            RuntimeError: Dtypes or devices differ or are not supported.

        """
        if reduce == "sum":
            return self._product(_pattern_mm, values, B)
        return self._product(_pattern_mm_reduce, values, B, reduce)

    def mm_transposed(self, values: Tensor, B: Tensor) -> Tensor:
        """Multiply the transpose of the sparse matrix with these values by a dense one.

        The same as ``pattern.T.mm(values, B)``, without conjugation. Nothing is sorted.

        >>> import torch, spgrad
        >>> pattern = spgrad.Pattern.from_coo(torch.tensor([[0, 1], [2, 0]]), (2, 3))
        >>> pattern.mm_transposed(torch.tensor([5.0, 7.0]), torch.eye(2))
        tensor([[0., 7.],
                [0., 0.],
                [5., 0.]])

        Args:
            values: As :meth:`mm` takes them.
            B: Dense tensor of shape ``(n,)``, ``(*, n, p)`` or ``(*, b, n, p)``, with the dtype and
                device of ``values`` and any strides.

        Returns:
            The product, a new contiguous tensor of shape ``(*, m)``, ``(*, m, p)`` or
            ``(*, b, m, p)``. The gradients are dense.

        Raises:
            ValueError: An argument is no tensor, or shapes or layouts do not fit.
            RuntimeError: Dtypes or devices differ or are not supported.

        """
        return self._product(_pattern_mm_transposed, values, B)

    def _product(
        self, operator: Callable[..., Tensor], values: Tensor, B: Tensor, *options: str
    ) -> Tensor:
        if not (isinstance(values, Tensor) and isinstance(B, Tensor)):
            message = (
                "Both values and B should be instances of torch.Tensor, "
                f"but received {type(values).__name__} and {type(B).__name__}"
            )
            raise ValueError(message)  # noqa: TRY004 - as sparse_mm does
        values = self._flat(values)
        if B.dim() == 1:
            B = B.unsqueeze(-1)
            return operator(*self._tensors, self._shape, values, B, *options).squeeze(-1)
        return operator(*self._tensors, self._shape, values, B, *options)

    def _flat(self, values: Tensor) -> Tensor:
        """Check the shape of values, and give them as the operators take them."""
        dims = len(self._values_shape)
        if values.shape[values.dim() - dims :] != self._values_shape:
            message = (
                f"values must have shape {tuple(self._values_shape)} behind any leading "
                f"dimensions, but received {tuple(values.shape)}"
            )
            raise ValueError(message)
        return values.flatten(-dims) if dims > 1 else values

    def _shaped(self, values: Tensor) -> Tensor:
        """Give values of the operators in the shape that users see."""
        return values.unflatten(-1, self._values_shape) if len(self._values_shape) > 1 else values

    def sddmm(self, X: Tensor, Y: Tensor) -> Tensor:
        """Multiply two dense matrices, ``X @ Y.mT``, at the entries of the pattern only.

        >>> import torch, spgrad
        >>> pattern = spgrad.Pattern.from_coo(torch.tensor([[0, 1], [2, 0]]), (2, 3))
        >>> pattern.sddmm(torch.tensor([[1.0], [10.0]]), torch.tensor([[1.0], [2.0], [3.0]]))
        tensor([ 3., 10.])

        Args:
            X: Dense tensor of shape ``(*, n, p)`` or ``(*, b, n, p)``, of any dtype that
                :func:`spgrad.sparse_mm` takes and with any strides.
            Y: Dense tensor of shape ``(*, m, p)`` or ``(*, b, m, p)``, with the dtype and device of
                ``X``.

        Returns:
            The values ``X[i] · Y[j]``, without conjugation, of shape :attr:`values_shape` behind
            the leading dimensions of ``X`` and ``Y``, which broadcast. The gradients
            of ``X`` and ``Y`` are dense.

        Raises:
            ValueError: An argument is no tensor, or shapes or layouts do not fit.
            RuntimeError: Dtypes or devices differ or are not supported.

        """
        refuse_others_than_tensors(X=X, Y=Y)
        products: Tensor = _pattern_sddmm(*self._tensors, self._shape, X, Y)
        return self._shaped(products)

    def softmax(self, values: Tensor, dim: int = -1) -> Tensor:
        """Compute the softmax over the entries of each row, or column.

        >>> import torch, spgrad
        >>> pattern = spgrad.Pattern.from_coo(torch.tensor([[0, 1, 1], [1, 2, 0]]), (2, 3))
        >>> pattern.softmax(torch.zeros(3))
        tensor([1.0000, 0.5000, 0.5000])

        Args:
            values: Dense tensor of shape :attr:`values_shape` behind any leading dimensions:
                float32, float64, float16 or bfloat16.
            dim: -1 for the entries of each row, -2 for those of each column.

        Returns:
            New values, in the shape, dtype and order of ``values``; those of 16 bits are computed
            in float32. Places without an entry count as minus infinity; each listed entry counts,
            repeated ones too. Differentiable to any order.

        Raises:
            ValueError: ``values`` is no tensor, its shape does not fit, or there is no such
                ``dim``.
            RuntimeError: The dtype or device does not fit.

        """
        refuse_others_than_tensors(values=values)
        softmax: Tensor = _pattern_softmax(*self._tensors, self._shape, self._flat(values), dim)
        return self._shaped(softmax)

    @overload
    def lstsq(
        self,
        values: Tensor,
        B: Tensor,
        *,
        return_report: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> Tensor: ...
    @overload
    def lstsq(
        self,
        values: Tensor,
        B: Tensor,
        *,
        return_report: Literal[True],
        **options: Unpack[Options],
    ) -> tuple[Tensor, LstsqReport]: ...
    @overload
    def lstsq(
        self,
        values: Tensor,
        B: Tensor,
        *,
        return_report: bool,
        **options: Unpack[Options],
    ) -> Tensor | tuple[Tensor, LstsqReport]: ...
    def lstsq(
        self,
        values: Tensor,
        B: Tensor,
        *,
        return_report: bool = False,
        **options: Unpack[Options],
    ) -> Tensor | tuple[Tensor, LstsqReport]:
        """Solve least squares for the matrix with these values. Nothing is sorted.

        The structure of the factor of ``method="direct"`` is looked for the first time only.

        >>> import torch, spgrad
        >>> pattern = spgrad.Pattern.from_coo(torch.tensor([[0, 1], [0, 0]]), (2, 1))
        >>> pattern.lstsq(torch.tensor([3.0, 4.0]), torch.tensor([6.0, 8.0]))
        tensor([2.])

        Args:
            values: As :meth:`mm` takes them, of a dtype that :func:`spgrad.sparse_lstsq` takes.
            B: As :func:`spgrad.sparse_lstsq` takes it.
            return_report: As :func:`spgrad.sparse_lstsq` has it.
            options: Those of :func:`spgrad.sparse_lstsq`.

        Returns:
            As :func:`spgrad.sparse_lstsq`. The gradients are dense.

        Raises:
            ValueError: As :func:`spgrad.sparse_lstsq`.
            RuntimeError: As :func:`spgrad.sparse_lstsq`.

        """
        refuse_others_than_tensors(values=values, B=B)
        analysis = self._analysis(options.get("damp", 0.0)) if self._is_direct(options) else []
        problem = (*self._tensors, self._shape, self._flat(values), B, analysis)
        return least_squares(_pattern_lstsq, problem, B, return_report=return_report, **options)

    def _is_direct(self, options: Options) -> bool:
        """Whether a factor's structure can be looked for: its indices can be read."""
        first = self._tensors[0]
        return (
            options.get("method") == "direct" and first.device.type == "cpu" and has_numbers(first)
        )

    def _analysis(self, damp: float | Tensor) -> list[Tensor]:
        """Give the structure of the factor for the smaller side, or for the columns if damped."""
        n, m = self._shape[-2:]
        gram = 1 if n >= m or isinstance(damp, Tensor) or damp else 2
        if gram not in self._analyses:
            # Kept for all calls: so it is no tensor of a transform, which ends before.
            outside = torch._C._DisableFuncTorch()  # noqa: SLF001
            with outside, torch.inference_mode(mode=False), interruptible():
                self._analyses[gram] = _pattern_gram_analysis(*self._tensors, self._shape, gram)
        return self._analyses[gram]

    def to(self, device: torch.device | str | int) -> Pattern:
        """Copy the pattern to a device, or return it if it is there already.

        >>> import torch, spgrad
        >>> pattern = spgrad.Pattern(torch.eye(2).to_sparse())
        >>> pattern.to("cpu") is pattern
        True

        Args:
            device: A device, its name or its number.

        Returns:
            A pattern whose products take operands on that device.

        Raises:
            RuntimeError: There is no such device.
            TypeError: The argument names no device.

        """
        device = torch.device(device)
        first, second, third, fourth = self._tensors
        moved = (first.to(device), second.to(device), third.to(device), fourth.to(device))
        if moved[0] is first:
            return self
        return self._of(moved, self._shape, self._values_shape)

    def __getstate__(self) -> tuple[_Tensors, tuple[int, ...], tuple[int, ...]]:
        """Give the structure as it is kept, so that loading sorts nothing."""
        return self._tensors, tuple(self._shape), tuple(self._values_shape)

    def __setstate__(self, state: object) -> None:
        """Take over a state, of which nothing is believed: products check all that it holds."""
        match state:
            case (
                (Tensor() as first, Tensor() as second, Tensor() as third, Tensor() as fourth),
                tuple() as shape,
                tuple() as values_shape,
            ) if all(isinstance(size, int) for size in (*shape, *values_shape)):
                self._tensors = first, second, third, fourth
                self._analyses = {}
                self._shape, self._values_shape = torch.Size(shape), torch.Size(values_shape)
            case _:
                message = (
                    "the state of a Pattern must be four tensors and two shapes, "
                    f"but received {type(state).__name__}"
                )
                raise ValueError(message)

    def __repr__(self) -> str:
        """Name the shape and the number of entries."""
        return f"Pattern(shape={tuple(self._shape)}, nnz={self.nnz})"


def _made_by(operator: Callable[..., _Tensors], *arguments: object) -> _Tensors:
    with torch.inference_mode(mode=False):  # whose tensors could not be trained with later
        return operator(*arguments)


# What torch.load may make with weights_only=True: tensors and two shapes.
torch.serialization.add_safe_globals([Pattern])
