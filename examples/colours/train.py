"""Trains the network on as many ranks as there are: what ``torchrun`` starts.

``torchrun --nproc-per-node=4 -m examples.colours.train --output FOLDER``, or, for one process,
``python -m examples.colours.train --output FOLDER``.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import spgrad
from examples.colours.photograph import Photograph, edges, features, load
from spgrad.distributed import RowSharded, ShardedValues

SIZES = (4, 16, 16, 16, 2)  # features of a pixel, behind each layer
REACH = 2  # pixels to the furthest neighbour, in either direction
SEEN = 0.7  # share of the known colours


class Network(nn.Module):
    """Layers that mix the features of a pixel, then those of its neighbours."""

    def __init__(self, A: RowSharded, values: Tensor) -> None:
        """Begin with the same values of the edges in each layer."""
        super().__init__()
        self.linears = nn.ModuleList(map(nn.Linear, SIZES[:-1], SIZES[1:]))
        self.edges = nn.ModuleList(ShardedValues(A, values) for _ in self.linears)

    def forward(self, x: Tensor) -> Tensor:
        """Tell the colours of this rank's pixels."""
        for number, (linear, product) in enumerate(zip(self.linears, self.edges, strict=True)):
            x = product(linear(x if number == 0 else torch.relu(x)))
        return x


class Outcome(NamedTuple):
    """What one rank has to tell."""

    losses: list[float]  # of all ranks together
    colours: Tensor  # of this rank's pixels
    report: dict[str, float]  # what it had, moved and needed


def train(photograph: Photograph, mesh: DeviceMesh | None, steps: int) -> Outcome:
    """Train on the ranks of a mesh, or on this process alone."""
    before = peak_memory()
    n = photograph.pixels
    rank, size = (0, 1) if mesh is None else (mesh.get_local_rank(), mesh.size())
    first, last = n * rank // size, n * (rank + 1) // size
    crow_indices, col_indices, values = edges(photograph, first, last, REACH)
    A = RowSharded.from_local(crow_indices, col_indices, (n, n), mesh)
    del crow_indices, col_indices

    torch.manual_seed(0)  # for the parameters that all ranks share
    network = Network(A, values)
    model = network if mesh is None else spgrad.distributed.data_parallel(network)
    optimizer = torch.optim.Adam(
        [
            {"params": network.linears.parameters(), "lr": 0.01},
            {"params": network.edges.parameters(), "lr": 0.0003},
        ]
    )
    own, known = slice(first, last), photograph.known
    generator = torch.Generator().manual_seed(1)  # the same numbers on all ranks
    losses: list[float] = []
    start = time.perf_counter()
    for _ in range(steps):
        # Each time it sees other known colours, and is to tell the rest of them.
        given = known & (torch.rand(n, generator=generator) < SEEN)
        wanted = (known & ~given)[own]
        told = model(features(photograph, given)[own])
        errors = (told - photograph.colours[own])[wanted].square().sum()
        loss = errors / (known & ~given).sum()  # this rank's part of the mean over all pixels
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(sum_of_ranks(loss.detach(), mesh)))
    seconds = time.perf_counter() - start
    with torch.no_grad():
        told = model(features(photograph, known)[own])
    received = sum(A.report(width).bytes_received[rank] for width in SIZES[1:])
    report = {
        "rows": last - first,
        "edges": A.nnz,
        "halo": A.halo_rows,
        "bytes": 2 * received,  # forwards, and back again
        "memory": peak_memory() - before,
        "seconds": seconds / steps,
    }
    return Outcome(losses, told, report)


def sum_of_ranks(number: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """Add up a number of each rank."""
    if mesh is not None:
        dist.all_reduce(number, group=mesh.get_group())
    return number


def peak_memory() -> int:
    """Tell the most bytes that this process has had in memory, as Linux counts them."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return 1024 * int(line.split()[1])


def main() -> None:
    """Train, and write down the outcome of each rank."""
    parser = argparse.ArgumentParser(description="Trains on as many ranks as there are.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the outcomes")
    parser.add_argument("--stride", type=int, default=2, help="pixels to the next one in use")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)  # for each rank, so that times can be compared
    mesh, rank = None, 0
    if "RANK" in os.environ:  # by torchrun
        dist.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        rank = dist.get_rank()
    train(load(30), mesh, 1)  # what PyTorch loads when it is first used is no part of the figures
    outcome = train(load(options.stride), mesh, options.steps)
    torch.save(outcome.colours, options.output / f"colours{rank}.pt")
    told = {"losses": outcome.losses, "report": outcome.report}
    (options.output / f"rank{rank}.json").write_text(json.dumps(told))
    if mesh is not None:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
