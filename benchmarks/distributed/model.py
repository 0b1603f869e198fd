"""A model of the time of one step on ranks: forward and backward of ``RowSharded.mm``.

What a rank does follows the code (``_products.py``): ranks agree, rows are packed, the interior is
multiplied while the halo is under way, then the rows with halo; in the backward pass these come
first. Each term is a count of the structure times what was measured by itself. That up to 16 ranks
pack rows while they agree, or multiply those with halo, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Seconds that were measured, or are assumed, of a machine and its links."""

    forward: float
    """Of an entry and a column of B, in the product."""
    gradients: float
    """The same, in both gradients."""
    copied: float
    """Of a byte of a row that is gathered, or added to another, in any places."""
    moved: float
    """The same of rows that follow each other."""
    agreement: float
    """Of the words that ranks compare before a step, on as many ranks."""
    exchange: float
    """Of an exchange of few bytes, on as many ranks; what its own bytes take is subtracted."""
    byte: float
    """Of a byte more in an exchange, on its way out of the rank or into it."""


@dataclass(frozen=True)
class Rank:
    """What the structure has on one rank."""

    entries: int
    boundary_entries: int
    """Those of rows with halo."""
    boundary_rows: int
    """These rows."""
    own_rows: int
    """Own rows of B that rows with halo need."""
    in_runs: bool
    """Whether both are one run each, as `partition` has it, or few: rows of C are written there."""
    sent: int
    """Rows of B that go to other ranks, each counted for each of them."""
    received: int


def step_seconds(rank: Rank, p: int, costs: Costs) -> float:
    """Give the time of forward and backward on a rank, with p columns of float32."""
    row_bytes = 4 * p
    interior = rank.entries - rank.boundary_entries
    on_link = max(rank.sent, rank.received) * row_bytes
    under_way = costs.exchange + costs.byte * on_link
    copied, moved = costs.copied * row_bytes, costs.moved * row_bytes
    of_halo = moved if rank.in_runs else copied
    forward = (
        copied * rank.sent
        + of_halo * rank.own_rows
        + max(under_way, costs.forward * p * interior)
        + costs.forward * p * rank.boundary_entries
        + (0 if rank.in_runs else copied * rank.boundary_rows)
    )
    backward = (
        costs.gradients * p * rank.boundary_entries
        + max(under_way, costs.gradients * p * interior)
        + of_halo * rank.own_rows
        + copied * rank.sent
    )
    return 2 * costs.agreement + forward + backward


def alone_seconds(entries: float, p: int, costs: Costs) -> float:
    """Give the time of forward and backward of as many entries without other ranks."""
    return (costs.forward + costs.gradients) * p * entries
