"""Weak and strong scaling to 1,024 ranks, simulated: no rank runs.

``python -m benchmarks.distributed.scaling``. Counts of the structure are exact for graphs and for a
stencil in boxes or in the order of its rows; METIS on meshes is boxes, scaled by what its parts of
a small mesh have. Costs of the processor are measured here, those of the links are assumed.
``benchmarks.distributed.validate`` shows how far the model is from what it stands for.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

import spgrad
from benchmarks.distributed.__main__ import ORDERS, order_of_metis
from benchmarks.distributed.model import Costs, Rank, alone_seconds, step_seconds
from benchmarks.distributed.step import processor_calls, run_first
from benchmarks.operator.report import table
from benchmarks.operator.workloads import rmat, stencil
from spgrad.distributed._ranks import _MOST_IN_A_RING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.operator.problem import Problem

P = 128
WEAK_SIDE = 100  # of the box of each rank: 10^6 rows
STRONG_ROWS = 10**8
RANKS = (8, 64, 512, 1024)
LINK = 25e9 / 8  # bytes a second, each way
HOP = 20e-6  # from one rank to another
# Of the processor for each message, if only to say that there is nothing: between 4 to 16 processes
# of a machine with gloo, an exchange of 14 numbers takes 20 to 30 µs of a core for each pair.
MESSAGE = 25e-6
NEIGHBOURS = 27  # entries of a row of the stencil
_LIMIT_OF_METIS = 64  # ranks of growing graphs: METIS needs minutes for more


def processor_costs(rounds: int = 15) -> Costs:
    """Measure a product, both gradients and a copy, on one thread."""
    torch.set_num_threads(1)
    problem = stencil((25, 50, 49), P)
    pattern = spgrad.Pattern.from_csr(problem.crow_indices, problem.col_indices, problem.size)
    calls = processor_calls(pattern, P)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (call, count) in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - start) / count)
    least = {name: min(each) for name, each in seconds.items()}
    return Costs(**least, agreement=0, exchange=0, byte=1 / LINK)


def on_ranks(costs: Costs, ranks: int) -> Costs:
    """Add what grows with the number of ranks: steps of words, and gloo writes to all."""
    steps = ranks - 1 if ranks <= _MOST_IN_A_RING else math.ceil(math.log2(ranks))
    return replace(
        costs, agreement=(HOP + 2 * MESSAGE) * steps, exchange=HOP + MESSAGE * (ranks - 1)
    )


def boxes(ranks: int) -> tuple[int, int, int]:
    """Cut a cube into as many boxes, as close to cubes as they can be."""
    sides = [
        (a, b, ranks // a // b)
        for a in range(1, ranks + 1)
        if ranks % a == 0
        for b in range(a, ranks // a + 1)
        if ranks // a % b == 0 and ranks // a // b >= b
    ]
    return min(sides, key=lambda box: box[2] - box[0])


def of_box(rows: float, ranks: int) -> Rank:
    """Count for the rank with most neighbours, whose rows are a cube of the grid."""
    side = rows ** (1 / 3)
    around, inside, inner = 1.0, 1.0, 1.0
    for cut in boxes(ranks):
        neighbours = min(cut - 1, 2)
        around *= side + neighbours
        inside *= side - neighbours
        inner *= max(side - 2 * neighbours, 0)
    halo = round(around - rows)
    boundary = round(rows - inside)
    return Rank(
        entries=round(NEIGHBOURS * rows),
        boundary_entries=NEIGHBOURS * boundary,
        boundary_rows=boundary,
        own_rows=round(rows - inner),
        in_runs=True,
        sent=halo,
        received=halo,
    )


def of_metis(rows: float, ranks: int, factor: float) -> Rank:
    """Count for parts of METIS, which have `factor` times what boxes have."""
    box = of_box(rows, ranks)
    most = round(rows)
    return Rank(
        entries=box.entries,
        boundary_entries=min(round(factor * box.boundary_entries), box.entries),
        boundary_rows=min(round(factor * box.boundary_rows), most),
        own_rows=min(round(factor * box.own_rows), most),
        in_runs=True,
        sent=round(factor * box.sent),
        received=round(factor * box.received),
    )


def in_order(rows: float, ranks: int) -> Rank:
    """Count for consecutive rows of the grid, whose layers are those of all boxes together."""
    side = rows ** (1 / 3)
    _, b, c = boxes(ranks)
    row, layer, own = c * side, b * c * side * side, rows
    # What rows [0, own) need: three layers, of each three rows of nodes, of each three nodes.
    needed = sorted(
        (shift * layer + along * row - 1, own + shift * layer + along * row + 1)
        for shift in (-1, 0, 1)
        for along in (-1, 0, 1)
    )
    outside, reached = 0.0, -math.inf
    for begin, end in needed:
        for low, high in ((begin, min(end, 0)), (max(begin, own), end)):
            outside += max(high - max(low, reached), 0)
        reached = max(reached, end)
    inside = max(own - 2 * (layer + row + 1), 0)
    return Rank(
        entries=round(NEIGHBOURS * rows),
        boundary_entries=round(NEIGHBOURS * (own - inside)),
        boundary_rows=round(own - inside),
        own_rows=round(min(own, 2 * 2 * (layer + row + 1))),
        in_runs=True,
        sent=round(outside),
        received=round(outside),
    )


def counted(
    problem: Problem,
    permutation: torch.Tensor,
    row_starts: Sequence[int],
    *,
    in_runs: bool,
) -> list[Rank]:
    """Count for each rank of a matrix whose rows and columns are put in an order."""
    n, size = problem.size[0], len(row_starts) - 1
    part = torch.empty(n, dtype=torch.int64)
    part[permutation] = torch.repeat_interleave(torch.arange(size), torch.tensor(row_starts).diff())
    rows = torch.repeat_interleave(torch.arange(n), problem.crow_indices.diff())
    columns = problem.col_indices.long()
    is_boundary = torch.zeros(n, dtype=torch.bool)
    outside = part[rows] != part[columns]
    is_boundary[rows[outside]] = True

    def count(parts: torch.Tensor) -> list[int]:
        counts: list[int] = torch.bincount(parts, minlength=size).tolist()
        return counts

    pairs = torch.unique(part[rows[outside]] * n + columns[outside])
    of_boundary = is_boundary[rows]
    own = torch.unique(columns[of_boundary & ~outside])
    counts = {
        "entries": count(part[rows]),
        "boundary_entries": count(part[rows[of_boundary]]),
        "boundary_rows": count(part[is_boundary]),
        "own_rows": count(part[own]),
        "sent": count(part[pairs % n]),
        "received": count(pairs // n),
    }
    return [
        Rank(in_runs=in_runs, **dict(zip(counts, each, strict=True)))
        for each in zip(*counts.values(), strict=True)
    ]


def factor_of_metis() -> float:
    """Compare the most that a part of METIS receives with a box of as many rows."""
    ranks, side = 27, 60
    problem = stencil((side,) * 3, P)
    parts = counted(problem, *order_of_metis(problem, ranks), in_runs=True)
    return max(part.received for part in parts) / of_box(side**3 / ranks, ranks).received


def efficiency(parts: Sequence[Rank], entries: float, costs: Costs) -> float:
    """Compare the slowest rank with as many processors that have nothing to exchange."""
    slowest = max(step_seconds(part, P, costs) for part in parts)
    return alone_seconds(entries, P, costs) / slowest


def of_stencils(costs: Costs, factor: float) -> list[tuple[str, ...]]:
    """Give the efficiencies of meshes."""
    rows = []
    for name, rows_of in (
        ("stencil, 10^6 rows a rank", lambda _: WEAK_SIDE**3),
        ("stencil, 10^8 rows in all", lambda ranks: STRONG_ROWS / ranks),
    ):
        for order, count in (
            ("as it is", in_order),
            ("boxes", of_box),
            ("METIS", lambda rows, ranks: of_metis(rows, ranks, factor)),
        ):
            of_ranks = [
                efficiency(
                    [count(rows_of(ranks), ranks)],
                    NEIGHBOURS * rows_of(ranks),
                    on_ranks(costs, ranks),
                )
                for ranks in RANKS
            ]
            rows.append((f"{name}, {order}", *(f"{100 * each:.0f} %" for each in of_ranks)))
    return rows


def of_graphs(costs: Costs, ranks_of: Sequence[int]) -> list[tuple[str, ...]]:
    """Give the efficiencies of R-MAT graphs: of one scale, and of as many rows a rank."""
    rows = []
    for name, scale_of in (
        ("R-MAT, 4,096 rows a rank", lambda ranks: 12 + ranks.bit_length() - 1),
        ("R-MAT of scale 17", lambda _: 17),
    ):
        problems: dict[int, Problem] = {}
        cells: dict[str, list[str]] = {order: [] for order in ORDERS}
        for ranks, order in itertools.product(ranks_of, cells):
            scale = scale_of(ranks)
            if order == "METIS" and scale > 12 + math.log2(_LIMIT_OF_METIS):
                cells[order].append("-")
                continue
            if scale not in problems:
                problems = {scale: rmat(scale, 1_200_000 * 2**scale // 2**17, P)}
            problem = problems[scale]
            cut = ORDERS[order](problem, ranks)
            each = efficiency(
                counted(problem, *cut, in_runs=order == "METIS"),
                problem.entries / ranks,
                on_ranks(costs, ranks),
            )
            cells[order].append(f"{100 * each:.1f} %")
        rows += [(f"{name}, {order}", *of_ranks) for order, of_ranks in cells.items()]
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Scaling to 1,024 ranks, simulated.")
    parser.add_argument("--graphs", type=int, default=max(RANKS), help="most ranks for graphs")
    parser.add_argument(
        "--first", action="store_true", help="measure before what else the machine does (by root)"
    )
    options = parser.parse_args()
    if options.first:
        run_first()
    costs = processor_costs()
    if options.first:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    factor = factor_of_metis()
    head = ("simulated efficiency, ranks", *(f"{ranks:,}" for ranks in RANKS))
    rows = of_stencils(costs, factor)
    chosen = [ranks for ranks in RANKS if ranks <= options.graphs]
    for row in of_graphs(costs, chosen):
        rows.append((*row, *["-"] * (len(RANKS) - len(chosen))))
    print(
        f"Forward and backward, p = {P}, one thread a rank, 25 Gb/s, {1e6 * HOP:.0f} µs from rank "
        f"to rank; parts of METIS need {factor:.2f} times the halo of boxes\n\n{table(head, rows)}"
    )


if __name__ == "__main__":
    main()
