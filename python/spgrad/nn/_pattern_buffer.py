"""A pattern as a part of a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spgrad._pattern import Pattern

# The tensors of a pattern, in the order in which it has them.
_STRUCTURE = ("row_offsets", "row_entries", "column_offsets", "column_entries")


class PatternBuffer(nn.Module):
    """A :class:`spgrad.Pattern` that goes where its module goes.

    Plain attributes of a module stay behind when it moves; this one has the pattern in buffers.

    >>> import torch, spgrad
    >>> class Graph(torch.nn.Module):
    ...     def __init__(self, pattern):
    ...         super().__init__()
    ...         self.edges = spgrad.nn.PatternBuffer(pattern)
    ...         self.weight = torch.nn.Parameter(torch.ones(pattern.values_shape))
    ...
    ...     def forward(self, x):
    ...         return self.edges(self.weight, x)
    >>> graph = Graph(spgrad.Pattern(torch.eye(3).to_sparse()))
    >>> graph.edges
    PatternBuffer(shape=(3, 3), nnz=3)
    >>> graph(torch.ones(3, 1)).shape
    torch.Size([3, 1])
    >>> graph.to("cpu").edges.pattern
    Pattern(shape=(3, 3), nnz=3)

    The buffers are copies, 4 bytes a number where int32 suffices. They are in the ``state_dict``,
    move with ``Module.to``, and ``DistributedDataParallel`` sends those of the first process to the
    others. ``load_state_dict`` takes a pattern of the same shape with as many entries, in the same
    order of rows (sorted or not). Nothing that is loaded is believed: products check it.

    Attributes:
        row_offsets: Buffer of shape ``(b * n + 1,)``.
        row_entries: Buffer of shape ``(nnz,)`` or ``(nnz, 2)``.
        column_offsets: Buffer of shape ``(b * m + 1,)``.
        column_entries: Buffer of shape ``(nnz,)`` or ``(nnz, 2)``.

    Args:
        pattern: The pattern, which stays as it is.

    Shapes:
        Input ``values`` of the pattern's ``values_shape`` and ``B`` of ``(m, p)`` or ``(b, m, p)``,
        output ``(n, p)`` or ``(b, n, p)``: the module is ``pattern.mm``.

    Raises:
        ValueError: ``pattern`` is no :class:`spgrad.Pattern`. In the forward pass: as
            :meth:`spgrad.Pattern.mm`.
        RuntimeError: In the forward pass, as :meth:`spgrad.Pattern.mm`; or the pattern that was
            loaded is none.

    """

    row_offsets: Tensor
    row_entries: Tensor
    column_offsets: Tensor
    column_entries: Tensor

    def __init__(self, pattern: Pattern) -> None:
        """Copy the pattern."""
        super().__init__()
        if not isinstance(pattern, Pattern):
            message = f"pattern must be a spgrad.Pattern, but received {type(pattern).__name__}"
            raise ValueError(message)  # noqa: TRY004 - as the products do
        self._shape, self._values_shape = pattern.shape, pattern.values_shape
        with torch.inference_mode(mode=False):  # whose tensors could not be trained with later
            for name, tensor in zip(_STRUCTURE, pattern._tensors, strict=True):  # noqa: SLF001
                self.register_buffer(name, tensor.clone())

    @property
    def pattern(self) -> Pattern:
        """The pattern, on the device of the module and on the memory of the buffers.

        Ask for it anew after the module moved or loaded something.
        """
        tensors = (self.row_offsets, self.row_entries, self.column_offsets, self.column_entries)
        return Pattern._of(tensors, self._shape, self._values_shape)  # noqa: SLF001

    def forward(self, values: Tensor, B: Tensor) -> Tensor:
        """Multiply the sparse matrix with these values by a dense one."""
        return self.pattern.mm(values, B)

    def extra_repr(self) -> str:
        """Name the shape and the number of entries."""
        return f"shape={tuple(self._shape)}, nnz={self._values_shape.numel()}"
