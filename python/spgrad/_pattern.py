"""A sparse structure that is prepared once and multiplied many times."""

from __future__ import annotations

import torch
from torch import Tensor

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import refuse_others_than_tensors

_pattern = torch.ops.spgrad.pattern.default
_pattern_mm = torch.ops.spgrad.pattern_mm.default

_Tensors = tuple[Tensor, Tensor, Tensor, Tensor]


class Pattern:
    """The places of a sparse matrix's entries, checked, transposed and kept for many products.

    Use it where the entries stay at their places while their values change, as in training: a step
    with :meth:`mm` sorts nothing.

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
        A: Sparse COO or CSR tensor of shape ``(n, m)`` or ``(b, n, m)``, of any dtype: its values
            are not looked at. COO may be unsorted and have duplicates, which add up.

    Raises:
        ValueError: A is no sparse COO or CSR tensor, has another number of dimensions, or is a
            hybrid tensor.
        RuntimeError: A's indices are malformed or outside its shape.
        NotImplementedError: A is COO without data, on the meta device.

    The transposition is a counting sort; docs/design.md tells what is kept.

    """

    __slots__ = ("_shape", "_tensors", "_values_shape")

    _shape: torch.Size
    _tensors: _Tensors
    _values_shape: torch.Size

    def __init__(self, A: Tensor) -> None:
        """Check the structure of A and prepare it."""
        refuse_others_than_tensors(A=A)
        with torch.inference_mode(mode=False):  # whose tensors could not be trained with later
            self._tensors = _pattern(A.detach())
        self._shape = A.shape
        is_coo = A.layout == torch.sparse_coo
        self._values_shape = A._indices().shape[1:] if is_coo else A.col_indices().shape  # noqa: SLF001

    @classmethod
    def _of(cls, tensors: _Tensors, shape: torch.Size, values_shape: torch.Size) -> Pattern:
        pattern = cls.__new__(cls)
        pattern._tensors, pattern._shape, pattern._values_shape = tensors, shape, values_shape  # noqa: SLF001
        return pattern

    @property
    def shape(self) -> torch.Size:
        """Shape of the sparse matrix, ``(n, m)`` or ``(b, n, m)``."""
        return self._shape

    @property
    def values_shape(self) -> torch.Size:
        """Shape of the values: ``(nnz,)``, or ``(b, nnz)`` for batched CSR."""
        return self._values_shape

    @property
    def nnz(self) -> int:
        """Number of entries, those of all items of a batch together."""
        return self._values_shape.numel()

    @property
    def device(self) -> torch.device:
        """Device of the pattern."""
        return self._tensors[0].device

    def mm(self, values: Tensor, B: Tensor) -> Tensor:
        """Multiply the sparse matrix with these values by a dense one.

        >>> import torch, spgrad
        >>> pattern = spgrad.Pattern(torch.eye(2).to_sparse())
        >>> pattern.mm(torch.tensor([2.0, 3.0]), torch.ones(2, 2))
        tensor([[2., 2.],
                [3., 3.]])

        Args:
            values: Dense tensor of shape :attr:`values_shape`, of any dtype that
                :func:`spgrad.sparse_mm` takes, in the order of the entries of the matrix that the
                pattern was made from.
            B: Dense tensor of shape ``(m, p)`` or ``(b, m, p)``, with the dtype and device of
                ``values`` and any strides.

        Returns:
            The product, a new contiguous tensor of shape ``(n, p)`` or ``(b, n, p)``. The gradient
            of ``values`` is dense, in their order, and that of ``B`` is dense.

        Raises:
            ValueError: An argument is no tensor, or shapes or layouts do not fit.
            RuntimeError: Dtypes or devices differ or are not supported.

        """
        if not (isinstance(values, Tensor) and isinstance(B, Tensor)):
            message = (
                "Both values and B should be instances of torch.Tensor, "
                f"but received {type(values).__name__} and {type(B).__name__}"
            )
            raise ValueError(message)  # noqa: TRY004 - as sparse_mm does
        if values.shape != self._values_shape:
            message = (
                f"values must have shape {tuple(self._values_shape)}, "
                f"but received {tuple(values.shape)}"
            )
            raise ValueError(message)
        if values.dim() > 1:
            values = values.flatten()
        product: Tensor = _pattern_mm(*self._tensors, self._shape, values, B)
        return product

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


# What torch.load may make with weights_only=True: tensors and two shapes.
torch.serialization.add_safe_globals([Pattern])
