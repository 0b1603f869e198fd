"""The rows of each rank: checked on each, agreed on by all, and where they begin."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import integer, integer_from, refuse_others_than_tensors
from spgrad.distributed._agreement import Words, agree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spgrad.distributed._ranks import Ranks

_csr_sddmm = torch.ops.spgrad.csr_sddmm.default

# Numbers of structures, which ranks compare: each proposes one, and all take the largest.
_numbers = itertools.count()


class Rows(NamedTuple):
    """The rows of one rank, with columns of the whole matrix."""

    crow_indices: Tensor
    col_indices: Tensor
    shape: tuple[int, int]  # of the whole matrix
    own_columns: int | None = None  # rows of B; None: as many as rows of A, or torch.chunk's

    @classmethod
    def of(
        cls,
        crow_indices: Tensor,
        col_indices: Tensor,
        shape: Sequence[int],
        own_columns: int | None,
    ) -> Rows:
        """Take what a user gave.

        Raises:
            ValueError: The shape is none of a matrix.

        """
        if own_columns is not None:
            own_columns = integer_from(0, "own_columns", own_columns)
        return cls(crow_indices, col_indices, checked_shape(shape), own_columns)


class Layout(NamedTuple):
    """What all ranks know of each other."""

    number: int
    row_starts: tuple[int, ...]
    column_starts: tuple[int, ...]
    entry_starts: tuple[int, ...]


def starts_of(counts: Sequence[int]) -> tuple[int, ...]:
    """Give where each of consecutive pieces begins, and the end of the last."""
    return (0, *itertools.accumulate(counts))


def sizes_of(starts: Sequence[int]) -> tuple[int, ...]:
    """Give the sizes of consecutive pieces."""
    return tuple(end - begin for begin, end in itertools.pairwise(starts))


def chunk_starts(count: int, ranks: int) -> tuple[int, ...]:
    """Give where each rank begins as `torch.chunk`, and so a DTensor, has it."""
    size = -(-count // ranks)
    return tuple(min(rank * size, count) for rank in range(ranks + 1))


def checked_shape(shape: Iterable[int]) -> tuple[int, int]:
    """Check the shape of a matrix.

    Raises:
        ValueError: It is none.

    """
    sizes = _integers(shape)
    if sizes is None or len(sizes) != 2 or min(sizes) < 0:  # noqa: PLR2004
        message = f"shape must be (n, m), two integers of at least 0, but received {shape!r}"
        raise ValueError(message)
    return sizes[0], sizes[1]


def checked_starts(row_starts: Iterable[int], n: int, ranks: int) -> tuple[int, ...]:
    """Check where the rows of each rank begin.

    Raises:
        ValueError: They do not ascend from 0 to n, or are not of so many ranks.

    """
    starts = integers_of_starts(row_starts)
    ascends = all(begin <= end for begin, end in itertools.pairwise(starts))
    if len(starts) != ranks + 1 or not ascends or starts[0] != 0 or starts[-1] != n:
        message = (
            f"row_starts must be {ranks + 1} integers that ascend from 0 to {n}, "
            f"but received {starts}"
        )
        raise ValueError(message)
    return starts


def integers_of_starts(row_starts: Iterable[int]) -> tuple[int, ...]:
    """Give where the rows of each rank begin, where the matrix is not known yet.

    Raises:
        ValueError: They are no integers.

    """
    starts = _integers(row_starts)
    if starts is None:
        message = f"row_starts must be integers, of each rank and n, but received {row_starts!r}"
        raise ValueError(message)
    return starts


def _integers(values: object) -> tuple[int, ...] | None:
    """Give what integers of 64 bits are, or nothing where one is none."""
    if not isinstance(values, Iterable) or (isinstance(values, Tensor) and values.dim() != 1):
        return None
    try:
        numbers = tuple(map(integer, values))
    except TypeError:  # an array without dimensions
        return None
    return None if None in numbers else numbers  # type: ignore[return-value]


def check(rows: Rows, device: torch.device) -> None:
    """Refuse what is no CSR structure, by the library's own check, in memory of this rank's share.

    Raises:
        ValueError: An argument is no tensor, or shapes do not fit.
        RuntimeError: Dtypes are not supported, or offsets or indices are malformed.

    """
    crow_indices, col_indices, (_, m), _ = rows
    refuse_others_than_tensors(crow_indices=crow_indices, col_indices=col_indices)
    if crow_indices.dim() != 1 or col_indices.dim() != 1 or len(crow_indices) == 0:
        message = (
            "crow_indices and col_indices must have one dimension, the former at least one number, "
            f"but received shapes {tuple(crow_indices.shape)} and {tuple(col_indices.shape)}"
        )
        raise ValueError(message)
    if crow_indices.device != device or col_indices.device != device:
        message = (
            f"crow_indices and col_indices must be on {device}, "
            f"but received {crow_indices.device} and {col_indices.device}"
        )
        raise RuntimeError(message)
    # Without columns of X and Y, it looks at the indices alone.
    X = torch.empty(len(crow_indices) - 1, 0, device=device)
    _csr_sddmm(crow_indices, col_indices, X, torch.empty(m, 0, device=device))


def lay_out(
    ranks: Ranks, rows: Rows, max_halo_bytes: int | None, step: str, wrong: Exception | None
) -> Layout:
    """Compare the rows of all ranks, and find where each begins.

    Raises:
        ValueError: Rows or columns of all ranks are not those of the shape, or a rank has `wrong`.
        RuntimeError: Ranks disagree, or `wrong` is one.

    """
    words = Words(
        step,
        rows=rows.shape[0],
        columns=rows.shape[1],
        max_halo_bytes=-1 if max_halo_bytes is None else max_halo_bytes,
    )
    own_columns = -1 if rows.own_columns is None else rows.own_columns
    counts = (0, 0) if wrong else (len(rows.crow_indices) - 1, len(rows.col_indices))
    notes = agree(ranks, words, wrong, (next(_numbers), counts[0], own_columns, counts[1]))
    _refuse_other_rows(ranks, rows, step)
    number = int(notes[..., 0].max())
    row_counts, column_counts, entry_counts = notes[:, ranks.column, 1:].T.tolist()
    n, m = rows.shape
    _refuse_other_sum("rows", row_counts, n)
    if n == m:
        by_default: Sequence[int] = row_counts
    else:
        by_default = sizes_of(chunk_starts(m, ranks.size))
    column_counts = [
        default if count < 0 else count
        for count, default in zip(column_counts, by_default, strict=True)
    ]
    _refuse_other_sum("own_columns", column_counts, m)
    return Layout(number, starts_of(row_counts), starts_of(column_counts), starts_of(entry_counts))


def _refuse_other_rows(ranks: Ranks, rows: Rows, step: str) -> None:
    """See that the ranks that share out columns of B have the same rows of A."""
    if ranks.columns == 1:
        return
    own_columns = -1 if rows.own_columns is None else rows.own_columns
    sums = checksum(rows.crow_indices), checksum(rows.col_indices)
    said = torch.tensor([len(rows.crow_indices), len(rows.col_indices), own_columns, *sums])
    wrong = None
    if not (ranks.all_gather_of_columns(said, step) == said).all():
        wrong = RuntimeError(
            "ranks along the second dimension of the mesh must have the same rows of A, "
            "but received others"
        )
    agree(ranks, Words(step), wrong)


def checksum(indices: Tensor) -> int:
    """Give a number that other indices, or the same in another order, hardly have."""
    mixed = indices.long() + torch.arange(len(indices), device=indices.device) * 0x9E3779B97F4A7C1
    mixed *= 0x2545F4914F6CDD1D
    mixed ^= mixed >> 29
    mixed *= 0x369DEA0F31A53F85
    return int(mixed.sum())


def _refuse_other_sum(name: str, counts: Sequence[int], total: int) -> None:
    if sum(counts) != total:
        shown = " + ".join(map(str, counts))
        message = f"{name} of all ranks must add up to {total}, but received {shown}"
        raise ValueError(message)
