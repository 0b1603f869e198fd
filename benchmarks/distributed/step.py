"""One rank of the benchmark over a network: forward and backward, round by round."""

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import spgrad
from benchmarks.distributed.model import Rank
from benchmarks.distributed.namespaces import DEVICE
from benchmarks.operator.workloads import stencil
from spgrad.distributed import RowSharded

GRID = (25, 50, 49)  # of each rank

Product = Callable[[Tensor, Tensor], Tensor]


def run_first() -> None:
    """Let this thread, and those that it starts, run before what else the machine does."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def composed(crow_indices: Tensor, columns: Tensor, starts: Tensor, mesh: DeviceMesh) -> Product:
    """Multiply by PyTorch's differentiable exchange, `cat` and one pattern."""
    begin, end = starts[dist.get_rank() : dist.get_rank() + 2].tolist()
    outside = (columns < begin) | (columns >= end)
    halo, places = torch.unique(columns[outside], return_inverse=True)
    received = torch.searchsorted(halo, starts).diff()
    sent = torch.empty_like(received)
    dist.all_to_all_single(sent, received)
    counts = received.tolist(), sent.tolist()
    own_rows = halo.new_empty(sum(counts[1]))
    dist.all_to_all_single(own_rows, halo, counts[1], counts[0])
    own_rows -= begin
    local = columns - begin
    local[outside] = end - begin + places
    shape = (len(crow_indices) - 1, end - begin + len(halo))
    pattern = spgrad.Pattern.from_csr(crow_indices, local, shape)

    def mm(values: Tensor, B: Tensor) -> Tensor:
        halo = all_to_all_single_autograd(B.index_select(0, own_rows), *counts, mesh)
        return pattern.mm(values, torch.cat([B, halo]))

    return mm


def counts_of(A: RowSharded) -> Rank:
    """Give what the structure has on this rank."""
    plan = A._built.plan  # noqa: SLF001
    rounds = plan.rounds(1)
    return Rank(
        entries=plan.entries,
        boundary_entries=sum(each.pattern.nnz for each in rounds),
        boundary_rows=sum(each.pattern.shape[0] for each in rounds),
        own_rows=sum(each.own for each in rounds),
        in_runs=all(
            places.places is None for each in rounds for places in (each.rows, each.own_rows)
        ),
        sent=sum(sum(each.exchange.sent) for each in rounds),
        received=plan.halo_rows,
    )


def processor_calls(
    pattern: spgrad.Pattern, p: int
) -> dict[str, tuple[Callable[[], object], float]]:
    """List what the processor does in a step, each with what it counts: products, or bytes."""
    values, B = torch.rand(pattern.nnz), torch.rand(pattern.shape[1], p)
    G, places = torch.rand(pattern.shape[0], p), torch.arange(0, pattern.shape[1], 2)
    leaves = values.clone().requires_grad_(), B.clone().requires_grad_()
    C: Tensor = pattern.mm(*leaves)
    half, sums = torch.rand(len(places), p), torch.zeros_like(B)
    return {
        "forward": (lambda: pattern.mm(values, B), pattern.nnz * p),
        "gradients": (
            lambda: torch.autograd.grad((C,), leaves, (G,), retain_graph=True),
            pattern.nnz * p,
        ),
        "copied": (
            lambda: (B.index_select(0, places), sums.index_add_(0, places, half)),
            2 * half.nbytes,
        ),
        "moved": (
            lambda: (half.copy_(B[: len(half)]), sums[: len(half)].add_(half)),
            2 * half.nbytes,
        ),
    }


def costs_of(A: RowSharded, alone: spgrad.Pattern, p: int, rounds: int) -> dict[str, float]:
    """Measure each term of the model by itself, on all ranks at the same time."""
    # By itself, as in a step and with half of the columns.
    plan = A._built.plan  # noqa: SLF001
    over_link = plan.rounds(1)[0].exchange
    sent = sum(over_link.sent)
    rows = {width: torch.rand(sent, width) for width in (p // 2, p)}
    out = {width: torch.empty(plan.halo_rows, width) for width in rows}

    def exchange(width: int) -> None:
        counts = over_link.received, over_link.sent
        over_link.ranks.send_rows(out[width], rows[width], *counts, "the benchmark").wait()

    parts = processor_calls(alone, p) | {
        "agreement": (lambda: A.report(p), 1),
        "narrow": (lambda: exchange(p // 2), 1),
        "wide": (lambda: exchange(p), 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, (call, count) in parts.items():
            dist.barrier()
            start = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - start) / count)
    costs = {name: statistics.median(each) for name, each in seconds.items()}
    narrow, wide = (4 * width * max(sent, plan.halo_rows) for width in (p // 2, p))
    of_narrow = costs.pop("narrow")
    costs["byte"] = (costs.pop("wide") - of_narrow) / (wide - narrow)
    costs["exchange"] = of_narrow - costs["byte"] * narrow
    return costs


def received_bytes() -> int:
    """Read what came over the link of this namespace, with all that wraps it."""
    return int(Path(f"/sys/class/net/{DEVICE}/statistics/rx_bytes").read_text())


def main() -> None:
    """Time all products, and let rank 0 write the outcomes down."""
    parser = argparse.ArgumentParser(description="One rank of the benchmark over a network.")
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shrink", type=int, default=1, help="divides the first side of the grid")
    parser.add_argument(
        "--first", action="store_true", help="run before what else the machine does (by root)"
    )
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    problem = stencil((GRID[0] // options.shrink * size, *GRID[1:]), 1)
    if options.first:
        run_first()  # and the threads of gloo with this one
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    mesh = init_device_mesh("cpu", (size,))
    n = problem.size[0]
    starts = torch.arange(size + 1) * (n // size)
    crow_indices = problem.crow_indices[starts[rank] : starts[rank + 1] + 1]
    first, last = crow_indices[[0, -1]].tolist()
    rows = (crow_indices - first, problem.col_indices[first:last].clone())
    A = RowSharded.from_local(*rows, problem.size, mesh)
    # The rows of this rank without those entries that need others.
    begin, end = starts[rank : rank + 2].tolist()
    alone = spgrad.Pattern.from_csr(
        rows[0], rows[1].clamp(begin, end - 1) - begin, (end - begin, end - begin)
    )
    products: dict[str, Product] = {
        "RowSharded": A.mm,
        "composed": composed(*rows, starts, mesh),
        "without exchange": alone.mm,
    }
    generator = torch.Generator().manual_seed(rank)
    values = torch.rand(A.nnz, generator=generator).requires_grad_()
    B = torch.rand(end - begin, options.columns, generator=generator).requires_grad_()
    assert torch.equal(products["composed"](values, B), A.mm(values, B))  # noqa: S101
    G = torch.ones(end - begin, options.columns)
    seconds: dict[str, list[float]] = {name: [] for name in products}
    over_link = []
    for _ in range(options.rounds):
        for name, mm in products.items():
            values.grad = B.grad = None
            dist.barrier()
            before, start = received_bytes(), time.perf_counter()
            mm(values, B).backward(G)
            seconds[name].append(time.perf_counter() - start)
            dist.barrier()
            if name == "RowSharded":
                over_link.append(received_bytes() - before)
    told: dict[str, Any] = {
        "seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "over_link": statistics.median(over_link),
        "halo": A.report(options.columns).bytes_received[rank],
        "rows": end - begin,
        "counts": dataclasses.asdict(counts_of(A)),
        "costs": costs_of(A, alone, options.columns, options.rounds),
    }
    all_told: list[Any] = [None] * size
    dist.all_gather_object(all_told, told)
    if rank == 0:
        options.output.write_text(json.dumps(all_told))
    dist.destroy_process_group()
    os._exit(0)


if __name__ == "__main__":
    main()
