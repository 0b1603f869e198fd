"""What each rank has of a sharded matrix, and what its products move."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """What each rank has, and what a product with p columns moves.

    >>> import torch, spgrad
    >>> A = spgrad.distributed.RowSharded.from_local(
    ...     torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), (2, 3)
    ... )
    >>> print(A.report(4))
    rank        rows     entries        halo  bytes received
    0              2           3           0               0
    entries of the largest rank over the mean: 1.00

    Args:
        rows: Rows of A of each rank.
        entries: Entries of each rank.
        halo_rows: Rows of B that each rank receives in a product.
        row_bytes: Bytes of a row of B.

    Raises:
        Nothing.

    """

    rows: tuple[int, ...]
    entries: tuple[int, ...]
    halo_rows: tuple[int, ...]
    row_bytes: int

    @property
    def bytes_received(self) -> tuple[int, ...]:
        """Bytes that each rank receives in `mm`; its backward pass sends as many."""
        return tuple(rows * self.row_bytes for rows in self.halo_rows)

    @property
    def balance(self) -> float:
        """Entries of the largest rank over the mean, 1 where all have as many."""
        entries = sum(self.entries)
        return max(self.entries) * len(self.entries) / entries if entries > 0 else 1.0

    def __str__(self) -> str:
        """Write a line for each rank."""
        lines = [f"{'rank':4} {'rows':>11} {'entries':>11} {'halo':>11} {'bytes received':>15}"]
        columns = (self.rows, self.entries, self.halo_rows, self.bytes_received)
        lines += [
            f"{rank:<4} {rows:11,} {entries:11,} {halo:11,} {received:15,}"
            for rank, (rows, entries, halo, received) in enumerate(zip(*columns, strict=True))
        ]
        lines.append(f"entries of the largest rank over the mean: {self.balance:.2f}")
        return "\n".join(lines)
