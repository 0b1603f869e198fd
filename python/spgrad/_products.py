"""Products of sparse and dense matrices.

Checks and gradients are in the C++ operators.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import refuse_others_than_tensors

_sparse_mm = torch.ops.spgrad.sparse_mm.default
_matmul = torch.ops.spgrad.matmul.default
_csr_mm = torch.ops.spgrad.csr_mm.default
_coo_mm = torch.ops.spgrad.coo_mm.default
_sddmm = torch.ops.spgrad.sddmm.default
_csr_sddmm = torch.ops.spgrad.csr_sddmm.default
_csr_softmax = torch.ops.spgrad.csr_softmax.default
_coo_sddmm = torch.ops.spgrad.coo_sddmm.default
_sparse_mm_reduce = torch.ops.spgrad.sparse_mm_reduce.default
_csr_mm_reduce = torch.ops.spgrad.csr_mm_reduce.default
_coo_mm_reduce = torch.ops.spgrad.coo_mm_reduce.default

Reduce: TypeAlias = Literal["sum", "mean", "amax", "amin"]


def sparse_mm(A: Tensor, B: Tensor, *, reduce: Reduce = "sum") -> Tensor:
    """Multiply a sparse matrix by a dense one; the gradient of the sparse matrix stays sparse.

    >>> import torch, spgrad
    >>> A = torch.eye(3).to_sparse_csr().requires_grad_()
    >>> B = torch.arange(6.0).reshape(3, 2)
    >>> spgrad.sparse_mm(A, B).sum().backward()
    >>> A.grad.values()
    tensor([1., 5., 9.])
    >>> graph = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]).to_sparse_csr()
    >>> spgrad.sparse_mm(graph, B, reduce="amax")
    tensor([[2., 3.],
            [0., 0.],
            [4., 5.]])

    Args:
        A: Sparse COO or CSR tensor of shape ``(n, m)`` or ``(b, n, m)``: float32, float64,
            float16, bfloat16, complex64 or complex128. COO may be uncoalesced: duplicates add up.
            CSR indices are int32 or int64.
        B: Dense tensor of shape ``(m, p)`` or ``(b, m, p)``, with A's dtype and device and any
            strides.
        reduce: What becomes of the messages ``A[i, j] * B[j]`` of a row, as ``torch.sparse.mm`` has
            it: ``"sum"``, ``"mean"``, ``"amax"`` or ``"amin"``; no complex numbers for the last
            two. Each listed entry is one message: duplicates are not summed first, and explicit
            zeros count. Of equal messages the first listed wins and gets the gradient; NaN wins
            over all. Rows without entries are 0.

    Returns:
        The product, a new contiguous dense tensor of shape ``(n, p)`` or ``(b, n, p)``. Products of
        16-bit numbers are summed in float32 and rounded once.

        Its gradient with respect to ``B`` is dense, ``A.mH @ G``. That with respect to ``A`` is
        ``dA[i, j] = G[i] · B[j].conj()`` at A's specified entries only, in A's layout, index dtype,
        order and with its coalesced flag. Only what requires a gradient is computed.

    Raises:
        ValueError: An argument is no tensor, or ranks, layouts, batch sizes or inner sizes do not
            fit, or A is a hybrid tensor, or there is no such ``reduce``.
        RuntimeError: Dtypes or devices differ or are not supported, or A's indices are malformed
            or outside its shape.

    The gradient of ``A`` is the derivative with respect to its specified entries, which are the
    only variables ("masked semantics" in PyTorch's terms).

    """
    if not (isinstance(A, Tensor) and isinstance(B, Tensor)):
        message = (
            "Both A and B should be instances of torch.Tensor, "
            f"but received {type(A).__name__} and {type(B).__name__}"
        )
        raise ValueError(message)  # noqa: TRY004 - the documented type, which callers catch
    product: Tensor = _sparse_mm(A, B) if reduce == "sum" else _sparse_mm_reduce(A, B, reduce)
    return product


def matmul(A: Tensor, B: Tensor) -> Tensor:
    """Multiply as ``torch.matmul`` where one operand is sparse; its gradient stays sparse.

    >>> import torch, spgrad
    >>> A = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]).to_sparse_csr().requires_grad_()
    >>> c = spgrad.matmul(A, torch.tensor([1.0, 10.0, 100.0]))
    >>> c.tolist()
    [20.0, 403.0]
    >>> c.sum().backward()
    >>> A.grad.values()
    tensor([ 10.,   1., 100.])
    >>> spgrad.matmul(torch.ones(5, 4, 2), A.detach()).shape
    torch.Size([5, 4, 3])

    Args:
        A: Dense tensor with one or more dimensions, or sparse COO, CSR or CSC tensor (also what
            ``.t()`` and ``.mT`` of CSR are) of shape ``(n, m)`` or ``(*, n, m)``, of any dtype that
            :func:`sparse_mm` takes. COO may be uncoalesced: duplicates add up.
        B: The same, with the dtype and device of ``A``. One of the two must be dense; two dense
            ones go to ``torch.matmul``.

    Returns:
        The product, a dense tensor of the shape that ``torch.matmul`` gives for vectors on either
        side and batches that broadcast. For all dense matrices that are broadcast over a sparse
        one, its structure is checked once, and nothing of it is copied.

        The gradient of the sparse operand is sparse: at its specified entries only, in its layout,
        index dtype and order. That of the dense one is dense, summed over what was broadcast.

    Raises:
        ValueError: An argument is no tensor, both are sparse, or shapes or layouts do not fit.
        RuntimeError: Dtypes or devices differ or are not supported, or indices are malformed or
            outside the shape.

    """
    refuse_others_than_tensors(A=A, B=B)
    product: Tensor = _matmul(A, B)
    return product


def csr_mm(
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    B: Tensor,
    *,
    reduce: Reduce = "sum",
) -> Tensor:
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
        col_indices: Shape ``(nnz)`` or ``(b, nnz)``, int32 or int64, each in ``[0, m)``. The
            columns of a row may come in any order; repeated ones add up. They are not copied,
            whatever the dtype of ``crow_indices``.
        values: Shape ``(*, nnz)`` or ``(*, b, nnz)``, any dtype that :func:`sparse_mm` takes.
        B: Dense tensor of shape ``(m,)``, ``(*, m, p)`` or ``(*, b, m, p)``, with the dtype of
            ``values`` and any strides.
        reduce: As :func:`sparse_mm` has it.

    Returns:
        The product, a new contiguous tensor of shape ``(*, n)``, ``(*, n, p)`` or
        ``(*, b, n, p)``. Leading dimensions ``*`` of ``values`` and ``B`` broadcast: each of them,
        an attention head or a sample, is a product over the one structure, which is checked, and
        sorted for a gradient, once. A gradient has the shape of its operand.

    Raises:
        ValueError: An argument is no tensor, shapes or layouts do not fit, or there is no such
            ``reduce``.
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
    if B.dim() == 1:
        column = B.unsqueeze(-1)
        return csr_mm(crow_indices, col_indices, values, column, reduce=reduce).squeeze(-1)
    product: Tensor = (
        _csr_mm(crow_indices, col_indices, values, B)
        if reduce == "sum"
        else _csr_mm_reduce(crow_indices, col_indices, values, B, reduce)
    )
    return product


def coo_mm(
    indices: Tensor,
    values: Tensor,
    size: Sequence[int],
    B: Tensor,
    *,
    reduce: Reduce = "sum",
) -> Tensor:
    """Multiply a COO matrix, given by plain tensors, by a dense one.

    >>> import torch, spgrad
    >>> indices = torch.tensor([[0, 1, 1], [1, 0, 2]])
    >>> spgrad.coo_mm(indices, torch.tensor([2.0, 3.0, 4.0]), (2, 3), torch.eye(3))
    tensor([[0., 2., 0.],
            [3., 0., 4.]])

    Args:
        indices: Shape ``(2, nnz)``, or ``(3, nnz)`` with the item of the batch first, int32 or
            int64. Entries may come in any order, and repeated ones add up; those sorted by row are
            multiplied without a sort.
        values: Shape ``(*, nnz)``, any dtype that :func:`sparse_mm` takes.
        size: ``(n, m)`` or ``(b, n, m)``.
        B: Dense tensor of shape ``(m,)``, ``(*, m, p)`` or ``(*, b, m, p)``, with the dtype of
            ``values`` and any strides.
        reduce: As :func:`sparse_mm` has it.

    Returns:
        The product, a new contiguous tensor of shape ``(*, n)``, ``(*, n, p)`` or
        ``(*, b, n, p)``, where leading dimensions broadcast as those of :func:`csr_mm`. The
        gradient of ``values`` is dense.

    Raises:
        ValueError: An argument is no tensor, shapes or layouts do not fit, or there is no such
            ``reduce``.
        RuntimeError: Dtypes or devices differ or are not supported, or an index is outside
            ``size``.

    """
    if not (isinstance(indices, Tensor) and isinstance(values, Tensor) and isinstance(B, Tensor)):
        refuse_others_than_tensors(indices=indices, values=values, B=B)
    if B.dim() == 1:
        return coo_mm(indices, values, size, B.unsqueeze(-1), reduce=reduce).squeeze(-1)
    product: Tensor = (
        _coo_mm(indices, values, size, B)
        if reduce == "sum"
        else _coo_mm_reduce(indices, values, size, B, reduce)
    )
    return product


def sddmm(A: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """Multiply two dense matrices, ``X @ Y.mT``, at the entries of a sparse one only.

    >>> import torch, spgrad
    >>> A = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]).to_sparse_csr()
    >>> X = torch.tensor([[1.0], [10.0]], requires_grad=True)
    >>> scores = spgrad.sddmm(A, X, torch.tensor([[1.0], [2.0], [3.0]]))
    >>> scores.values()
    tensor([ 2., 10., 30.], grad_fn=<ValuesBackward0>)
    >>> spgrad.sparse_mm(scores, torch.ones(3, 1)).sum().backward()
    >>> X.grad
    tensor([[2.],
            [4.]])

    Args:
        A: Sparse COO or CSR tensor of shape ``(n, m)`` or ``(b, n, m)``, of any dtype: its values
            are not used, and get no gradient. COO may be unsorted and have duplicates.
        X: Dense tensor of shape ``(n, p)`` or ``(b, n, p)``, on A's device, of any dtype that
            :func:`sparse_mm` takes and with any strides.
        Y: Dense tensor of shape ``(m, p)`` or ``(b, m, p)``, with the dtype and device of ``X``.

    Returns:
        A new sparse tensor with ``X[i] · Y[j]``, without conjugation, at each of A's specified
        entries: in A's layout, index dtype, order and with its coalesced flag, and in the dtype of
        ``X``. It shares the indices of COO with ``A``. Duplicates have the product each, so that as
        a sparse tensor, where they add up, it has a multiple there. The gradients of ``X`` and
        ``Y`` are dense, to any order.

    Raises:
        ValueError: An argument is no tensor, or ranks, layouts, batch sizes or inner sizes do not
            fit, or A is a hybrid tensor.
        RuntimeError: Dtypes or devices differ or are not supported, or A's indices are malformed
            or outside its shape.

    """
    refuse_others_than_tensors(A=A, X=X, Y=Y)
    products: Tensor = _sddmm(A, X, Y)
    return products


def csr_sddmm(crow_indices: Tensor, col_indices: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """Multiply two dense matrices, ``X @ Y.mT``, at the entries of a CSR matrix only.

    >>> import torch, spgrad
    >>> crow_indices, col_indices = torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2])
    >>> X, Y = torch.tensor([[1.0], [10.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    >>> spgrad.csr_sddmm(crow_indices, col_indices, X, Y)
    tensor([ 2., 10., 30.])

    Args:
        crow_indices: As :func:`csr_mm` takes them.
        col_indices: As :func:`csr_mm` takes them.
        X: Dense tensor of shape ``(*, n, p)`` or ``(*, b, n, p)``, of any dtype that
            :func:`sparse_mm` takes and with any strides.
        Y: Dense tensor of shape ``(*, m, p)`` or ``(*, b, m, p)``, with the dtype of ``X``.

    Returns:
        The values ``X[i] · Y[j]``, without conjugation, in the shape and order of ``col_indices``,
        behind the leading dimensions of ``X`` and ``Y``, which broadcast. The gradients
        of ``X`` and ``Y`` are dense, to any order.

    Raises:
        ValueError: An argument is no tensor, or shapes or layouts do not fit.
        RuntimeError: Dtypes or devices differ or are not supported, or the indices are malformed or
            outside the shape.

    """
    refuse_others_than_tensors(crow_indices=crow_indices, col_indices=col_indices, X=X, Y=Y)
    products: Tensor = _csr_sddmm(crow_indices, col_indices, X, Y)
    return products


def csr_softmax(
    crow_indices: Tensor, col_indices: Tensor, values: Tensor, shape: Sequence[int], dim: int = -1
) -> Tensor:
    """Compute the softmax over the entries of each row, or column, of a CSR matrix.

    >>> import torch, spgrad
    >>> crow_indices, col_indices = torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2])
    >>> spgrad.csr_softmax(crow_indices, col_indices, torch.zeros(3), (2, 3))
    tensor([1.0000, 0.5000, 0.5000])

    Args:
        crow_indices: As :func:`csr_mm` takes them.
        col_indices: As :func:`csr_mm` takes them. Each listed entry counts, repeated ones too.
        values: Shape ``(*, nnz)`` or ``(*, b, nnz)``, float32, float64, float16 or bfloat16.
        shape: ``(n, m)`` or ``(b, n, m)``.
        dim: -1 for the entries of each row, -2 for those of each column.

    Returns:
        New values, in the shape, dtype and order of ``values``; those of 16 bits are computed in
        float32. Places without an entry count as minus infinity. Differentiable to any order.

    Raises:
        ValueError: An argument is no tensor, shapes or layouts do not fit, or there is no such
            ``dim``.
        RuntimeError: Dtypes or devices differ or are not supported, or the indices are malformed or
            outside the shape.

    """
    refuse_others_than_tensors(crow_indices=crow_indices, col_indices=col_indices, values=values)
    softmax: Tensor = _csr_softmax(crow_indices, col_indices, values, shape, dim)
    return softmax


def coo_sddmm(indices: Tensor, size: Sequence[int], X: Tensor, Y: Tensor) -> Tensor:
    """Multiply two dense matrices, ``X @ Y.mT``, at the entries of a COO matrix only.

    >>> import torch, spgrad
    >>> X, Y = torch.tensor([[1.0], [10.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    >>> spgrad.coo_sddmm(torch.tensor([[0, 1, 1], [1, 2, 0]]), (2, 3), X, Y)
    tensor([ 2., 30., 10.])

    Args:
        indices: As :func:`coo_mm` takes them.
        size: ``(n, m)`` or ``(b, n, m)``.
        X: Dense tensor of shape ``(*, n, p)`` or ``(*, b, n, p)``, of any dtype that
            :func:`sparse_mm` takes and with any strides.
        Y: Dense tensor of shape ``(*, m, p)`` or ``(*, b, m, p)``, with the dtype of ``X``.

    Returns:
        The values ``X[i] · Y[j]``, without conjugation, of shape ``(*, nnz)`` in the order of
        ``indices``, where leading dimensions of ``X`` and ``Y`` broadcast. The gradients
        of ``X`` and ``Y`` are dense, to any order.

    Raises:
        ValueError: An argument is no tensor, or shapes or layouts do not fit.
        RuntimeError: Dtypes or devices differ or are not supported, or an index is outside
            ``size``.

    """
    refuse_others_than_tensors(indices=indices, X=X, Y=Y)
    products: Tensor = _coo_sddmm(indices, size, X, Y)
    return products
