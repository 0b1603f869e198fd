"""The products, as PyTorch users call them. Checks and gradients are in the C++ operators."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import refuse_others_than_tensors

_sparse_mm = torch.ops.spgrad.sparse_mm.default
_csr_mm = torch.ops.spgrad.csr_mm.default
_coo_mm = torch.ops.spgrad.coo_mm.default


def sparse_mm(A: Tensor, B: Tensor) -> Tensor:
    """Multiply a sparse matrix by a dense one; the gradient of the sparse matrix stays sparse.

    >>> import torch, spgrad
    >>> A = torch.eye(3).to_sparse_csr().requires_grad_()
    >>> B = torch.arange(6.0).reshape(3, 2)
    >>> spgrad.sparse_mm(A, B).sum().backward()
    >>> A.grad.values()
    tensor([1., 5., 9.])

    Args:
        A: Sparse COO or CSR tensor of shape ``(n, m)`` or ``(b, n, m)``: float32, float64,
            float16, bfloat16, complex64 or complex128. COO may be uncoalesced: duplicates add up.
            CSR indices are int32 or int64.
        B: Dense tensor of shape ``(m, p)`` or ``(b, m, p)``, with A's dtype and device and any
            strides.

    Returns:
        The product, a new contiguous dense tensor of shape ``(n, p)`` or ``(b, n, p)``. Products of
        16-bit numbers are summed in float32 and rounded once.

        Its gradient with respect to ``B`` is dense, ``A.mH @ G``. That with respect to ``A`` is
        ``dA[i, j] = G[i] · B[j].conj()`` at A's specified entries only, in A's layout, index dtype,
        order and with its coalesced flag. Only what requires a gradient is computed.

    Raises:
        ValueError: An argument is no tensor, or ranks, layouts, batch sizes or inner sizes do not
            fit, or A is a hybrid tensor.
        RuntimeError: Dtypes or devices differ or are not supported, or A's indices are malformed
            or outside its shape.

    The gradient is the derivative of the product restricted to the specified entries ("masked
    semantics" in PyTorch's terms); docs/mathematics.md derives it.

    """
    if not (isinstance(A, Tensor) and isinstance(B, Tensor)):
        message = "Both A and B should be instances of torch.Tensor"
        raise ValueError(message)  # noqa: TRY004 - the documented type, which callers catch
    product: Tensor = _sparse_mm(A, B)
    return product


def csr_mm(crow_indices: Tensor, col_indices: Tensor, values: Tensor, B: Tensor) -> Tensor:
    """Multiply a CSR matrix, given by plain tensors, by a dense one.

    ``values`` is an ordinary dense tensor and so is its gradient: it can be a parameter of any
    optimiser.

    >>> import torch, spgrad
    >>> crow_indices, col_indices = torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2])
    >>> values = torch.tensor([2.0, 3.0, 4.0], requires_grad=True)
    >>> spgrad.csr_mm(crow_indices, col_indices, values, torch.eye(3))
    tensor([[0., 2., 0.],
            [3., 0., 4.]], grad_fn=<CsrMmBackward>)

    Args:
        crow_indices: Shape ``(n + 1)`` or ``(b, n + 1)``, int32 or int64: where each row starts.
        col_indices: Shape ``(nnz)`` or ``(b, nnz)``, dtype of ``crow_indices``, each in ``[0, m)``.
            The columns of a row may come in any order; repeated ones add up.
        values: Shape of ``col_indices``, any dtype that :func:`sparse_mm` takes.
        B: Dense tensor of shape ``(m, p)`` or ``(b, m, p)``, with the dtype of ``values`` and any
            strides.

    Returns:
        The product, a new contiguous tensor of shape ``(n, p)`` or ``(b, n, p)``.

    Raises:
        ValueError: An argument is no tensor, or shapes or layouts do not fit.
        RuntimeError: Dtypes or devices differ or are not supported, or the indices are malformed or
            outside the shape.

    """
    # Written out: a call takes a tenth of the time of a small product.
    if not (
        isinstance(crow_indices, Tensor)
        and isinstance(col_indices, Tensor)
        and isinstance(values, Tensor)
        and isinstance(B, Tensor)
    ):
        refuse_others_than_tensors(
            crow_indices=crow_indices, col_indices=col_indices, values=values, B=B
        )
    product: Tensor = _csr_mm(crow_indices, col_indices, values, B)
    return product


def coo_mm(indices: Tensor, values: Tensor, size: Sequence[int], B: Tensor) -> Tensor:
    """Multiply a COO matrix, given by plain tensors, by a dense one.

    >>> import torch, spgrad
    >>> indices = torch.tensor([[0, 1, 1], [1, 0, 2]])
    >>> spgrad.coo_mm(indices, torch.tensor([2.0, 3.0, 4.0]), (2, 3), torch.eye(3))
    tensor([[0., 2., 0.],
            [3., 0., 4.]])

    Args:
        indices: Shape ``(2, nnz)``, or ``(3, nnz)`` with the item of the batch first, int64.
            Entries may come in any order, and repeated ones add up; those sorted by row are
            multiplied without a sort.
        values: Shape ``(nnz)``, any dtype that :func:`sparse_mm` takes.
        size: ``(n, m)`` or ``(b, n, m)``.
        B: Dense tensor of shape ``(m, p)`` or ``(b, m, p)``, with the dtype of ``values`` and any
            strides.

    Returns:
        The product, a new contiguous tensor of shape ``(n, p)`` or ``(b, n, p)``. The gradient of
        ``values`` is dense.

    Raises:
        ValueError: An argument is no tensor, or shapes or layouts do not fit.
        RuntimeError: Dtypes or devices differ or are not supported, or an index is outside
            ``size``.

    """
    if not (isinstance(indices, Tensor) and isinstance(values, Tensor) and isinstance(B, Tensor)):
        refuse_others_than_tensors(indices=indices, values=values, B=B)
    product: Tensor = _coo_mm(indices, values, size, B)
    return product
