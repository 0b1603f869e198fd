"""A matrix that one rank has, in the order in which its rows are shared out, and its way there."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from spgrad._arguments import refuse_others_than_tensors
from spgrad.distributed._structure import Rows, check, checked_starts, chunk_starts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spgrad.distributed._ranks import Ranks

# Numbers that travel at a time: 8 MB of int64.
_PIECE = 1 << 20

_INTEGERS = {torch.int32, torch.int64}


class Whole(NamedTuple):
    """A CSR matrix on the rank that has it, and how its rows are shared out."""

    crow_indices: Tensor
    col_indices: Tensor
    shape: tuple[int, int]
    row_starts: tuple[int, ...]
    permutation: Tensor | None  # row i of the sharded matrix is row permutation[i]; None: i
    places: Tensor | None  # where the permutation puts a row

    @classmethod
    def of(
        cls,
        A: Tensor | None,
        permutation: Tensor | None,
        row_starts: Sequence[int] | None,
        ranks: int,
    ) -> Whole:
        """Check what a user has given.

        Raises:
            ValueError: It does not fit.
            RuntimeError: Indices are malformed.

        """
        if A is None and ranks == 1:
            message = (
                "A must be a torch.Tensor on rank src, which is the only rank here, "
                "but received None (without a mesh, each process is alone)"
            )
            raise ValueError(message)
        refuse_others_than_tensors(A=A)
        assert A is not None  # noqa: S101 - for mypy
        if A.layout != torch.sparse_csr or A.dim() != 2:  # noqa: PLR2004
            message = (
                "A must be a sparse CSR tensor of shape (n, m) on rank src, "
                f"but received {A.layout} of shape {tuple(A.shape)}"
            )
            raise ValueError(message)
        n, m = A.shape
        crow_indices, col_indices = A.crow_indices(), A.col_indices()
        check(Rows(crow_indices, col_indices, (n, m)), A.device)
        if row_starts is None:
            starts = chunk_starts(n, ranks)
        else:
            starts = checked_starts(row_starts, n, ranks)
        places = None
        if permutation is not None:
            permutation = _checked_permutation(permutation, A)
            places = permutation.argsort()
        return cls(crow_indices, col_indices, (n, m), starts, permutation, places)

    def counts(self, first_row: int, last_row: int) -> Tensor:
        """Give the numbers of entries of rows of the sharded matrix."""
        if self.permutation is None:
            return self.crow_indices[first_row : last_row + 1].diff().long()
        rows = self.permutation[first_row:last_row]
        return (self.crow_indices[rows + 1] - self.crow_indices[rows]).long()

    def entries(self, first_row: int, last_row: int) -> Tensor | slice:
        """Give the places of the entries of rows of the sharded matrix."""
        if self.permutation is None:
            return slice(int(self.crow_indices[first_row]), int(self.crow_indices[last_row]))
        counts = self.counts(first_row, last_row)
        begins = self.crow_indices[self.permutation[first_row:last_row]]
        shifts = torch.repeat_interleave(begins - (counts.cumsum(0) - counts), counts)
        return shifts + torch.arange(len(shifts), device=shifts.device)

    def columns(self, first_row: int, last_row: int) -> Tensor:
        """Give the columns of the entries of rows of the sharded matrix."""
        columns = self.col_indices[self.entries(first_row, last_row)].long()
        return columns if self.places is None else self.places[columns]

    def values(self, values: Tensor, first_row: int, last_row: int) -> Tensor:
        """Choose the values of rows of the sharded matrix, which may be on another device."""
        entries = self.entries(first_row, last_row)
        return values[entries if isinstance(entries, slice) else entries.to(values.device)]

    def nnz_of_ranks(self) -> list[int]:
        """Count the entries of each rank."""
        return [int(self.counts(*rows).sum()) for rows in itertools.pairwise(self.row_starts)]


def _checked_permutation(permutation: Tensor, A: Tensor) -> Tensor:
    """Check an order of rows and columns.

    Raises:
        ValueError: It is none of those of a square matrix.

    """
    refuse_others_than_tensors(permutation=permutation)
    n, m = A.shape
    accepted = f"permutation must be int32 or int64 and have each of [0, {n}) once, for a square A"
    if permutation.dtype not in _INTEGERS or permutation.shape != (n,) or n != m:
        message = (
            f"{accepted}, but received {permutation.dtype} of shape {tuple(permutation.shape)} "
            f"for A of shape {(n, m)}"
        )
        raise ValueError(message)
    permutation = permutation.to(A.device, torch.int64)
    missing = (~torch.isin(torch.arange(n, device=A.device), permutation)).nonzero()
    if len(missing) > 0:
        message = f"{accepted}, but received one that lacks {int(missing[0])}"
        raise ValueError(message)
    return permutation


def scatter(  # noqa: PLR0913, PLR0917 - what travels, and who waits for it
    ranks: Ranks,
    source: int,
    share_of: Callable[[int], Tensor] | None,
    dtype: torch.dtype,
    lengths: Sequence[int],
    step: str,
) -> Tensor:
    """Give each rank its share of what rank `source` has, one rank after the other, in pieces.

    Ranks that share out columns of B then hand it on to each other.

    Args:
        ranks: Who takes part.
        source: Who sends, of the ranks with the first columns.
        share_of: Gives the share of a rank, where this rank is the source.
        dtype: Of the shares.
        lengths: Length of the share of each rank.
        step: Who asks.

    """
    share = torch.empty(lengths[ranks.rank], dtype=dtype, device=ranks.device)
    for rank, length in enumerate(lengths if ranks.column == 0 else ()):
        whole = None if share_of is None else _as_in_memory(share_of(rank).to(ranks.device))
        received, sent = [0] * ranks.size, [0] * ranks.size
        for begin in range(0, length, _PIECE):
            end = min(begin + _PIECE, length)
            sent[rank] = 0 if whole is None else end - begin
            received[source] = end - begin if rank == ranks.rank else 0
            out = share[begin : begin + received[source]]
            piece = share[:0] if whole is None else whole[begin:end]
            ranks.send_rows(out, piece, received, sent, step).wait()
    for piece in share.split(_PIECE):
        ranks.from_first_column(piece, step)
    return share


def _as_in_memory(tensor: Tensor) -> Tensor:
    """Give a tensor whose memory has its numbers, one after the other."""
    return tensor.resolve_conj().resolve_neg().contiguous()
