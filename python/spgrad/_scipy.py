"""Sparse matrices of SciPy as sparse tensors and the other way round, sharing memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import refuse_others_than_tensors

if TYPE_CHECKING:
    from scipy.sparse import coo_array, csc_array, csr_array, sparray, spmatrix

_csr_sddmm = torch.ops.spgrad.csr_sddmm.default
_coo_sddmm = torch.ops.spgrad.coo_sddmm.default

_COMPRESSED = {"csr": torch.sparse_csr_tensor, "csc": torch.sparse_csc_tensor}
# Whatever PyTorch's default device and checks are.
_AS_GIVEN: dict[str, Any] = {"check_invariants": False, "device": "cpu"}
# What both have.
_DTYPES = (
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
)


def from_scipy(S: spmatrix | sparray) -> Tensor:
    """Make a sparse tensor of a SciPy matrix, without a copy where SciPy has CSR or CSC.

    >>> import scipy.sparse, torch, spgrad
    >>> S = scipy.sparse.csr_array([[0.0, 2.0], [3.0, 4.0]])
    >>> A = spgrad.from_scipy(S)
    >>> spgrad.sparse_mm(A, torch.ones(2, 1, dtype=torch.float64))
    tensor([[2.],
            [7.]], dtype=torch.float64)
    >>> S.data *= 10
    >>> A.values()
    tensor([20., 30., 40.], dtype=torch.float64)

    It needs SciPy, which the extra ``scipy`` of the package brings.

    Args:
        S: SciPy matrix or array of two dimensions, in any format, of float32, float64, complex64,
            complex128, bool, uint8, int8, int16, int32 or int64.

    Returns:
        A sparse tensor on the CPU with the dtype of ``S``.

        CSR and CSC keep their layout and index dtype, and share the memory of ``S``: a change of
        one is a change of the other. Columns that are not sorted, and duplicates, stay as they are.
        Arrays that cannot be shared are copied: read-only ones, those in another byte order than
        the machine's, and offsets of another dtype than the indices. COO keeps the order of its
        entries, shares the values and has new int64 indices, as PyTorch wants them. All other
        formats become CSR. Products take CSR and COO: of CSC there is ``A.to_sparse_csr()``.

    Raises:
        ImportError: SciPy is not there.
        ValueError: ``S`` is no SciPy matrix or array, or has another number of dimensions.
        RuntimeError: PyTorch has no such dtype. Indices are not checked here; products check them.

    """
    from scipy.sparse import issparse  # noqa: PLC0415 - no requirement of the package

    if not issparse(S):
        message = f"S must be a SciPy sparse matrix or array, but received {type(S).__name__}"
        raise ValueError(message)
    if len(S.shape) != 2:  # noqa: PLR2004 - rows and columns
        message = f"S must have shape (n, m), but received {S.shape}"
        raise ValueError(message)
    if S.format == "coo":
        indices = torch.stack([_tensor_of(S.row).long(), _tensor_of(S.col).long()])
        values = _tensor_of(S.data)
        return torch.sparse_coo_tensor(indices, values, S.shape, **_AS_GIVEN)
    if S.format not in _COMPRESSED:
        S = S.tocsr()
    offsets, indices, values = _tensor_of(S.indptr), _tensor_of(S.indices), _tensor_of(S.data)
    if offsets.dtype != indices.dtype:
        if indices.dtype == torch.int32:
            limits = torch.iinfo(torch.int32)
            offsets = offsets.clamp(limits.min, limits.max)  # so that none becomes a right one
        offsets = offsets.to(indices.dtype)
    nnz = max(int(offsets[-1]), 0)  # SciPy may keep longer arrays
    make = _COMPRESSED[S.format]
    return make(offsets, indices[:nnz], values[:nnz], S.shape, **_AS_GIVEN)


def to_scipy(A: Tensor) -> coo_array | csc_array | csr_array:
    """Make a SciPy array of a sparse tensor, without a copy.

    >>> import torch, spgrad
    >>> A = torch.tensor([[0.0, 2.0], [3.0, 4.0]]).to_sparse_csr()
    >>> S = spgrad.to_scipy(A)
    >>> S.sum()
    np.float32(9.0)
    >>> A.values().mul_(10)
    tensor([20., 30., 40.])
    >>> S.sum()
    np.float32(90.0)

    It needs SciPy, which the extra ``scipy`` of the package brings.

    Args:
        A: Sparse COO, CSR or CSC tensor of shape ``(n, m)`` on the CPU, of float32, float64,
            complex64, complex128, bool, uint8, int8, int16, int32 or int64. COO may be unsorted and
            have duplicates.

    Returns:
        A ``scipy.sparse.coo_array``, ``csr_array`` or ``csc_array`` with the dtype, index dtype and
        order of ``A``, that shares its memory: a change of one is a change of the other. What is
        not contiguous, or a lazy conjugate, is copied.

    Raises:
        ImportError: SciPy is not there.
        ValueError: ``A`` is no tensor, or has another layout or shape.
        RuntimeError: ``A`` has another dtype, is on another device or requires a gradient, or its
            indices are malformed or outside its shape: SciPy does not check them.

    """
    from scipy import sparse  # noqa: PLC0415 - no requirement of the package

    refuse_others_than_tensors(A=A)
    _check_for_scipy(A)
    n, m = A.shape[::-1] if A.layout == torch.sparse_csc else A.shape
    X, Y = torch.empty(n, 0, device="cpu"), torch.empty(m, 0, device="cpu")
    if A.layout == torch.sparse_coo:
        _coo_sddmm(A._indices(), A.shape, X, Y)  # noqa: SLF001
        S: Any = sparse.coo_array(A.shape)
        S.coords = tuple(map(_array_of, A._indices()))  # noqa: SLF001
        S.data = _array_of(A._values())  # noqa: SLF001
        S.has_canonical_format = False
        return S
    if A.layout == torch.sparse_csr:
        offsets, indices, S = A.crow_indices(), A.col_indices(), sparse.csr_array(A.shape)
    else:
        offsets, indices, S = A.ccol_indices(), A.row_indices(), sparse.csc_array(A.shape)
    _csr_sddmm(offsets, indices, X, Y)
    # Not by the constructor, which would make indices int32 where that suffices.
    S.indptr, S.indices, S.data = map(_array_of, (offsets, indices, A.values()))
    return S


def _tensor_of(array: Any) -> Tensor:
    """Return an array of SciPy as a tensor on its memory, or on that of a copy if need be."""
    import numpy as np  # noqa: PLC0415 - SciPy has it

    try:
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        tensor = torch.from_numpy(np.require(native, requirements=["C", "ALIGNED", "WRITEABLE"]))
    except TypeError:
        tensor = None
    if tensor is None or tensor.dtype not in _DTYPES:
        message = f"S must be {_names(_DTYPES)}, but received {array.dtype}"
        raise RuntimeError(message) from None
    return tensor


def _array_of(tensor: Tensor) -> Any:
    """Return a tensor as an array on its memory, or on that of a copy if need be."""
    return tensor.resolve_conj().resolve_neg().contiguous().numpy()


def _check_for_scipy(A: Tensor) -> None:
    if A.layout not in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        message = f"A must be a sparse COO, CSR or CSC tensor, but received {A.layout}"
        raise ValueError(message)
    if A.dim() != 2 or A.dense_dim() != 0:  # noqa: PLR2004 - rows and columns
        message = (
            f"A must have shape (n, m) and only sparse dimensions, but received {tuple(A.shape)} "
            f"with {A.dense_dim()} dense dimension(s)"
        )
        raise ValueError(message)
    if A.dtype not in _DTYPES:
        message = f"A must be {_names(_DTYPES)}, but received {A.dtype}"
        raise RuntimeError(message)
    if A.device.type != "cpu":
        message = f"A must be on the CPU, but received {A.device}; use A.cpu()"
        raise RuntimeError(message)
    if A.requires_grad:
        message = (
            "A must not require a gradient, which would be lost in SciPy, but received one that "
            "does; use A.detach()"
        )
        raise RuntimeError(message)


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    *first, last = (str(dtype).removeprefix("torch.") for dtype in dtypes)
    return f"{', '.join(first)} or {last}"
