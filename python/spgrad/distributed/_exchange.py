"""Which rows of a dense operand go to which ranks: the halo of each rank, and its way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from spgrad.distributed._places import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spgrad.distributed._ranks import Ranks, Transfer


class Arrival(NamedTuple):
    """Rows that are under way: the tensor that they will be in, once waited for."""

    rows: Tensor
    transfer: Transfer

    def wait(self) -> Tensor:
        """Wait until the rows are there."""
        self.transfer.wait()
        return self.rows


class Neighbours(NamedTuple):
    """Who needs what of whom, as far as it concerns this rank."""

    ranks: Ranks
    received: tuple[int, ...]  # rows of the halo from each rank
    sent: tuple[int, ...]  # own rows to each rank
    own_rows: Tensor  # those that are sent, in the order of ranks

    @classmethod
    def of_halo(cls, ranks: Ranks, halo: Tensor, starts: Tensor, step: str) -> Neighbours:
        """Tell every rank which of its rows this one needs.

        Args:
            ranks: Who takes part.
            halo: Sorted numbers of the rows that this rank needs from others.
            starts: Where the rows of each rank begin, and the end of the last.
            step: Who asks.

        """
        received = torch.searchsorted(halo, starts).diff()
        sent = torch.empty_like(received)
        ones = [1] * ranks.size
        ranks.send_rows(sent, received, ones, ones, step).wait()
        own_rows = halo.new_empty(int(sent.sum()))
        received_counts, sent_counts = received.tolist(), sent.tolist()
        ranks.send_rows(own_rows, halo, sent_counts, received_counts, step).wait()
        own_rows -= starts[ranks.rank]
        return cls(ranks, tuple(received_counts), tuple(sent_counts), own_rows)

    def within(self, distances: Sequence[int], own_columns: int) -> Exchange:
        """Keep the rows from ranks at these distances, which count up from this rank, in a ring."""
        size, rank = self.ranks.size, self.ranks.rank
        near = set(distances)
        parts = [
            rows if (rank - other) % size in near else rows[:0]
            for other, rows in enumerate(self.own_rows.split(self.sent))
        ]
        return Exchange(
            self.ranks,
            tuple(
                count if (other - rank) % size in near else 0
                for other, count in enumerate(self.received)
            ),
            tuple(map(len, parts)),
            Places.of(torch.cat(parts), own_columns),
            tuple(Places.of(rows, own_columns) for rows in parts),
        )


class Exchange(NamedTuple):
    """The halo that travels at a time."""

    ranks: Ranks
    received: tuple[int, ...]  # rows of the halo from each rank
    sent: tuple[int, ...]  # own rows to each rank
    own_rows: Places  # those that are sent, in the order of ranks
    own_rows_of: tuple[Places, ...]  # those of each rank

    def pack(self, B: Tensor) -> Tensor:
        """Put those of this rank's rows B together that others need: where they lie so, a view."""
        return self.own_rows.take(B).contiguous()

    def start(self, rows: Tensor, out: Tensor, product: str) -> Arrival:
        """Start to send rows that were packed, and to fetch those of the halo into `out`."""
        transfer = self.ranks.send_rows(out, rows, self.received, self.sent, product)
        return Arrival(out, transfer)

    def start_back(self, halo: Tensor, product: str) -> Arrival:
        """Start to send rows of the halo back to their ranks."""
        out = halo.new_empty(sum(self.sent), *halo.shape[1:])
        transfer = self.ranks.send_rows(out, halo, self.sent, self.received, product)
        return Arrival(out, transfer)

    def add_back(self, B: Tensor, arrival: Arrival) -> None:
        """Add rows that came back to this rank's own rows B, in the order of ranks.

        A rank has each row once: the sums have the same bits in every run, on every device.
        """
        rows = arrival.wait().split(self.sent)
        for places, more in zip(self.own_rows_of, rows, strict=True):
            places.add(more, B)
