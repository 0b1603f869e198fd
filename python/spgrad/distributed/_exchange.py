"""Which rows of a dense operand go to which ranks: the halo of each rank, and its way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

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


class Exchange(NamedTuple):
    """The halo of each rank, as far as it concerns this one."""

    ranks: Ranks
    received: tuple[int, ...]  # rows of the halo from each rank
    sent: tuple[int, ...]  # own rows to each rank
    own_rows: Tensor  # those that are sent, in the order of ranks

    @classmethod
    def of_halo(cls, ranks: Ranks, halo: Tensor, starts: Tensor, step: str) -> Exchange:
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

    def within(self, distances: Sequence[int]) -> Exchange:
        """Keep the rows from ranks at these distances, which count up from this rank, in a ring."""
        size, rank = self.ranks.size, self.ranks.rank
        near = set(distances)
        sends = [(rank - other) % size in near for other in range(size)]
        parts = [
            rows for rows, kept in zip(self.own_rows.split(self.sent), sends, strict=True) if kept
        ]
        return Exchange(
            self.ranks,
            tuple(
                count if (other - rank) % size in near else 0
                for other, count in enumerate(self.received)
            ),
            tuple(count if kept else 0 for count, kept in zip(self.sent, sends, strict=True)),
            torch.cat(parts) if parts else self.own_rows[:0],
        )

    def pack(self, B: Tensor) -> Tensor:
        """Copy those of this rank's rows B that others need."""
        return B.index_select(0, self.own_rows)

    def start(self, rows: Tensor, out: Tensor, product: str) -> Arrival:
        """Start to send rows that were packed, and to fetch those of the halo into `out`."""
        transfer = self.ranks.send_rows(out, rows, self.received, self.sent, product)
        return Arrival(out, transfer)

    def start_back(self, halo: Tensor, product: str) -> Arrival:
        """Start to send rows of the halo back to their ranks."""
        out = halo.new_empty(len(self.own_rows), *halo.shape[1:])
        transfer = self.ranks.send_rows(out, halo, self.sent, self.received, product)
        return Arrival(out, transfer)

    def add_back(self, B: Tensor, arrival: Arrival) -> None:
        """Add rows that came back to this rank's own rows B, in the order of ranks.

        A rank has each row once: the sums have the same bits in every run, on every device.
        """
        rows = arrival.wait().split(self.sent)
        for places, more in zip(self.own_rows.split(self.sent), rows, strict=True):
            if len(places) > 0:
                B.index_add_(0, places, more)
