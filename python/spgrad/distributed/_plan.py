"""What a rank does of a product: rows without halo first, the others once the halo is there.

Whole rows, not the columns within and outside of the rank's own: the entries of a row keep their
order, and C has the bits that one process computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from spgrad._pattern import Pattern
from spgrad.distributed._exchange import Neighbours
from spgrad.distributed._places import Places

if TYPE_CHECKING:
    from spgrad.distributed._exchange import Exchange
    from spgrad.distributed._ranks import Ranks


class Interior(NamedTuple):
    """Rows whose entries are all in this rank's own columns; the other rows are empty here."""

    pattern: Pattern
    entries: Places | None  # which of this rank's they are; None: all
    first_column: int  # that of the whole matrix which is the first here
    column_numbers: None = None


class Round(NamedTuple):
    """Entries of the other rows, and the rows of B that they need, in one matrix.

    Its columns are `own_rows` of this rank's B, then what `exchange` receives.
    """

    pattern: Pattern
    entries: Places
    rows: Places
    own_rows: Places
    own: int  # how many `own_rows` are
    exchange: Exchange
    column_numbers: Tensor | None  # those of the whole matrix, int64; None: one of several rounds
    first_column: int = 0

    @property
    def halo_rows(self) -> int:
        """Rows of B that are received."""
        return self.pattern.shape[-1] - self.own


class Plan:
    """The structure of one rank, cut up: made once, for all products."""

    def __init__(  # noqa: PLR0913, PLR0917 - what one rank knows of the matrix
        self,
        ranks: Ranks,
        crow_indices: Tensor,
        col_indices: Tensor,
        whole: tuple[int, int, int],
        starts: Tensor,
        max_halo_bytes: int | None,
        step: str,
    ) -> None:
        """Find the halo, tell the other ranks, and cut up the entries.

        Args:
            ranks: Who takes part.
            crow_indices: Of this rank's rows, int64, checked.
            col_indices: Columns in the whole matrix, int64, checked.
            whole: Rows, columns and entries of the whole matrix.
            starts: Where the columns of each rank begin, and the end of the last.
            max_halo_bytes: Of the halo of a round, or None: the halo in one round.
            step: Who asks.

        """
        begin, end = starts[ranks.rank : ranks.rank + 2].tolist()
        outside = (col_indices < begin) | (col_indices >= end)
        halo, halo_places = torch.unique(col_indices[outside], return_inverse=True)
        self.whole = whole
        self.rows = len(crow_indices) - 1
        self.entries = len(col_indices)
        self.halo = halo
        self.own_columns = end - begin
        self._first_column = begin
        self._size = ranks.size
        self._max_halo_bytes = max_halo_bytes
        self._neighbours = Neighbours.of_halo(ranks, halo, starts, step)
        counts = crow_indices.diff()
        row_of = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        is_boundary = torch.zeros(len(counts), dtype=torch.bool, device=counts.device)
        is_boundary[row_of[outside]] = True
        of_boundary = is_boundary[row_of]
        columns = col_indices - begin
        self.interior = _interior(
            counts.masked_fill(is_boundary, 0), columns, of_boundary, begin, self.own_columns
        )
        columns[outside] = self.own_columns + halo_places
        entries = of_boundary.nonzero().flatten()
        self._boundary = _Boundary(entries, row_of[entries], columns[entries])
        self._rounds: dict[tuple[int, ...], tuple[Round, ...]] = {}
        self._most_received: list[int] = []
        if max_halo_bytes is None:
            self._rounds_of_ends((ranks.size,))
            del self._boundary, self._neighbours  # all that can be asked for is made
        else:
            received = torch.tensor(self._neighbours.received).roll(-ranks.rank)
            self._most_received = ranks.largest(received, step).tolist()

    @property
    def halo_rows(self) -> int:
        """Rows of B that this rank receives."""
        return len(self.halo)

    def indices(self) -> tuple[Tensor, Tensor]:
        """Put the entries together again: how many each row has, and their columns, int64."""
        own = torch.arange(self.own_columns, device=self.halo.device) + self._first_column
        interior_rows, interior_columns = self.interior.pattern.indices()
        counts = torch.bincount(interior_rows, minlength=self.rows)
        if self.interior.entries is None:
            return counts, own[interior_columns]
        whole = self._rounds.get((self._size,))  # where the halo is bounded, there may be none
        boundary = whole[0] if whole else self._round(range(1, self._size))
        boundary_rows, boundary_columns = boundary.pattern.indices()
        columns = torch.empty(self.entries, dtype=torch.int64, device=self.halo.device)
        self.interior.entries.put(own[interior_columns], columns)
        needed = torch.cat([boundary.own_rows.take(own), self.halo])
        boundary.entries.put(needed[boundary_columns], columns)
        boundary.rows.add(
            torch.bincount(boundary_rows, minlength=boundary.pattern.shape[0]), counts
        )
        return counts, columns

    def rounds(self, row_bytes: int) -> tuple[Round, ...]:
        """Give the rounds in which rows of so many bytes are fetched: the same on all ranks.

        Ranks are taken by their distance in the ring, so that each sends about as much as it
        receives in a round.
        """
        if self._max_halo_bytes is None:
            return self._rounds_of_ends((self._size,))
        most = self._max_halo_bytes // max(row_bytes, 1)
        ends = []
        total = 0
        for distance, rows in enumerate(self._most_received[1:], start=1):
            if total > 0 and total + rows > most:
                ends.append(distance)
                total = 0
            total += rows
        return self._rounds_of_ends((*ends, self._size))

    def _rounds_of_ends(self, ends: tuple[int, ...]) -> tuple[Round, ...]:
        """Make the rounds that end before these distances, or look them up."""
        if self._size == 1:
            return ()
        if ends not in self._rounds:
            self._rounds[ends] = tuple(
                self._round(range(first, end))
                for first, end in zip((1, *ends[:-1]), ends, strict=True)
            )
        return self._rounds[ends]

    def _round(self, distances: range) -> Round:
        """Make the matrix of what ranks at these distances send; own columns are in the first."""
        exchange = self._neighbours.within(distances, self.own_columns)
        rank = exchange.ranks.rank
        device = self._boundary.columns.device
        received = torch.tensor(self._neighbours.received, device=device)
        owner = torch.repeat_interleave(torch.arange(self._size, device=device), received)
        distance = (owner - rank) % self._size
        is_needed = torch.zeros(self.own_columns + self.halo_rows, dtype=torch.bool, device=device)
        is_needed[self.own_columns :] = (distance >= distances.start) & (distance < distances.stop)
        if distances.start == 1:
            own = self._boundary.columns[self._boundary.columns < self.own_columns]
            is_needed[own] = True
        chosen = is_needed[self._boundary.columns]
        rows, counts = torch.unique_consecutive(self._boundary.rows[chosen], return_counts=True)
        places = is_needed.cumsum(0) - 1
        needed = int(is_needed.sum())
        pattern = Pattern.from_csr(
            _offsets(counts), places[self._boundary.columns[chosen]], (len(rows), needed)
        )
        own_rows = is_needed[: self.own_columns].nonzero().flatten()
        numbers = None
        if len(distances) == self._size - 1:
            numbers = torch.cat([own_rows + self._first_column, self.halo])
            self.halo = numbers[len(own_rows) :]  # the same memory
        entries = Places.of(self._boundary.entries[chosen], self.entries)
        # unique_consecutive gives a view of memory for all entries: no part of it is kept.
        of_rows, of_own = Places.of(rows, self.rows), Places.of(own_rows, self.own_columns)
        return Round(pattern, entries, of_rows, of_own, len(own_rows), exchange, numbers)


class _Boundary(NamedTuple):
    """Entries of rows that need halo, in order: which, their rows, their columns.

    Columns below the number of own columns are own ones, the others count the halo.
    """

    entries: Tensor
    rows: Tensor
    columns: Tensor


def _interior(
    counts: Tensor, columns: Tensor, of_boundary: Tensor, first_column: int, own_columns: int
) -> Interior:
    shape = (len(counts), own_columns)
    if not of_boundary.any():
        return Interior(Pattern.from_csr(_offsets(counts), columns, shape), None, first_column)
    entries = (~of_boundary).nonzero().flatten()
    pattern = Pattern.from_csr(_offsets(counts), columns[entries], shape)
    return Interior(pattern, Places.of(entries, len(columns)), first_column)


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
