"""Translation of spgrad's products for ``torch.onnx.export``, as operators that every runtime has.

The extra ``onnx`` of the package brings ``onnxscript``, which PyTorch needs for any export.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the exporter evaluates annotations
from typing import TYPE_CHECKING, Any

import torch

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._optional import needed

with needed(
    "onnxscript",
    "spgrad.contrib.onnx needs onnxscript, as torch.onnx.export does: pip install onnxscript",
):
    from onnxscript import opset18 as op

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["translation_table"]

# A value of the graph under construction.
_Value = Any


def translation_table(*, dense: bool = False) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Give what ``torch.onnx.export`` takes as ``custom_translation_table``.

    >>> import torch, spgrad.contrib.onnx
    >>> layer = spgrad.nn.SparseLinear(8, 4, sparsity=0.5)
    >>> program = torch.onnx.export(
    ...     layer.eval(),
    ...     (torch.randn(2, 8),),
    ...     custom_translation_table=spgrad.contrib.onnx.translation_table(),
    ...     verbose=False,
    ... )
    >>> program.save("layer.onnx")  # doctest: +SKIP

    It serves ``SparseLinear``, ``PatternBuffer``, ``Pattern.mm``, ``csr_mm`` and ``coo_mm``, with
    leading dimensions, for one matrix. Numbers may come out rounded in another way, as the runtime
    adds in another order. Indices are checked by the runtime, or not at all.

    Args:
        dense: Whether the runtime puts the sparse matrix into a dense one, ``n * m`` numbers, and
            multiplies that. By default it gathers rows of B and adds them up, which makes an array
            of ``nnz * p`` numbers, and is faster where few entries are there. The file has only
            the entries in both cases.

    Returns:
        A new dictionary from operators to functions that translate them.

    Raises:
        NotImplementedError: While exporting: the structure has a batch, or a size that varies.

    """
    multiply = _in_float32(_multiply_dense if dense else _gather_and_add)

    def pattern_mm(  # noqa: PLR0913, PLR0917 - those of the operator
        row_offsets: _Value,
        row_entries: _Value,
        column_offsets: _Value,  # noqa: ARG001
        column_entries: _Value,  # noqa: ARG001
        size: Sequence[int],
        values: _Value,
        B: _Value,
    ) -> _Value:
        _check(size)
        rows, columns = _rows_of(row_offsets, _length(row_entries)), _int64(row_entries)
        heads = len(values.shape) - 1
        if len(row_entries.shape) > 1:  # unsorted: each column with the place of its value
            values = op.Gather(values, op.Gather(columns, _constant(1), axis=1), axis=-1)
            columns = op.Gather(columns, _constant(0), axis=1)
        return multiply(rows, columns, values, B, size, heads)

    def csr_mm(crow_indices: _Value, col_indices: _Value, values: _Value, B: _Value) -> _Value:
        if len(crow_indices.shape) > 1:
            _check((0, 0, 0))
        size = (crow_indices.shape[0] - 1, B.shape[-2])
        _check(size)
        rows = _rows_of(crow_indices, _length(col_indices))
        return multiply(rows, _int64(col_indices), values, B, size, len(values.shape) - 1)

    def coo_mm(indices: _Value, values: _Value, size: Sequence[int], B: _Value) -> _Value:
        _check(size)
        rows, columns = (op.Gather(_int64(indices), _constant(i), axis=0) for i in range(2))
        return multiply(rows, columns, values, B, size, len(values.shape) - 1)

    operators = torch.ops.spgrad
    return {
        operators.pattern_mm.default: pattern_mm,
        operators.csr_mm.default: csr_mm,
        operators.coo_mm.default: coo_mm,
    }


def _check(size: Sequence[Any]) -> None:
    if len(size) != 2 or not all(isinstance(number, int) for number in size):  # noqa: PLR2004
        message = (
            "the export to ONNX takes one sparse matrix (n, m) of a size that does not vary, "
            f"but received {tuple(size)}"
        )
        raise NotImplementedError(message)


def _constant(*numbers: int) -> _Value:
    if len(numbers) == 1:
        return op.Constant(value_int=numbers[0])
    return op.Constant(value_ints=list(numbers))


def _int64(numbers: _Value) -> _Value:
    return op.Cast(numbers, to=7)  # TensorProto.INT64


def _length(numbers: _Value) -> _Value:
    return op.Shape(numbers, start=0, end=1)


def _axis(axis: int) -> _Value:
    return op.Constant(value_ints=[axis])


def _zeros(shape: _Value, like: _Value) -> _Value:
    zero: _Value = op.Constant(value_float=0.0)
    return op.Expand(op.CastLike(zero, like), shape)


def _rows_of(offsets: _Value, count: _Value) -> _Value:
    """Give the row of each entry: how many rows have ended before it."""
    ends = op.Slice(_int64(offsets), _axis(1), _axis(2**31 - 1), _axis(0))
    marks = op.Expand(_constant(0), op.Add(count, _axis(1)))
    ones = op.Expand(_constant(1), op.Shape(ends))
    marks = op.ScatterElements(marks, ends, ones, axis=0, reduction="add")
    return op.Slice(op.CumSum(marks, _constant(0)), _axis(0), count, _axis(0))


def _in_float32(multiply: Callable[..., _Value]) -> Callable[..., _Value]:
    """Sum products of 16-bit numbers in float32, as spgrad does: onnxruntime adds no float16."""

    def wide(operand: _Value) -> _Value:
        cast: _Value = op.Cast(operand, to=1)  # TensorProto.FLOAT
        cast.shape = operand.shape
        return cast

    def product(rows: _Value, columns: _Value, values: _Value, B: _Value, *others: Any) -> _Value:
        if B.dtype.itemsize != 2:  # noqa: PLR2004
            return multiply(rows, columns, values, B, *others)
        return op.CastLike(multiply(rows, columns, wide(values), wide(B), *others), B)

    return product


def _gather_and_add(  # noqa: PLR0913, PLR0917 - a sparse matrix and a dense one
    rows: _Value, columns: _Value, values: _Value, B: _Value, size: Sequence[int], heads: int
) -> _Value:
    products = op.Mul(op.Unsqueeze(values, _axis(-1)), op.Gather(B, columns, axis=-2))
    dims = max(heads + 2, len(B.shape))
    # The entries come first where they are added up.
    leading = range(dims - 2)
    products = op.Transpose(products, perm=[dims - 2, *leading, dims - 1])
    shape = op.Concat(_axis(size[0]), op.Shape(products, start=1), axis=0)
    sums = op.ScatterND(
        _zeros(shape, values), op.Unsqueeze(rows, _axis(-1)), products, reduction="add"
    )
    return op.Transpose(sums, perm=[*(i + 1 for i in leading), 0, dims - 1])


def _multiply_dense(  # noqa: PLR0913, PLR0917 - a sparse matrix and a dense one
    rows: _Value, columns: _Value, values: _Value, B: _Value, size: Sequence[int], heads: int
) -> _Value:
    places = op.Concat(op.Unsqueeze(rows, _axis(-1)), op.Unsqueeze(columns, _axis(-1)), axis=-1)
    leading = range(heads)
    numbers = op.Transpose(values, perm=[heads, *leading])
    shape = op.Concat(_constant(*size), op.Shape(numbers, start=1), axis=0)
    matrix = op.ScatterND(_zeros(shape, values), places, numbers, reduction="add")
    return op.MatMul(op.Transpose(matrix, perm=[*(i + 2 for i in leading), 0, 1]), B)
