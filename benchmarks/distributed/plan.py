"""Times the construction of a sharded matrix: what ``torchrun`` starts.

``torchrun --nproc-per-node=2 -m benchmarks.distributed.plan``
"""

import statistics
import time

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from benchmarks.operator.workloads import stencil
from spgrad.distributed import RowSharded

ROUNDS = 9
GRID = (25, 50, 49)  # of each rank: 1.6 million entries


def main() -> None:
    """Print the median time, of the clock and of this process, over that of a ``Pattern``."""
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rank, size = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    problem = stencil((GRID[0] * size, *GRID[1:]), 1)
    n = problem.size[0]
    crow_indices = problem.crow_indices[n * rank // size : n * (rank + 1) // size + 1]
    first, last = crow_indices[[0, -1]].tolist()
    rows = (crow_indices - first, problem.col_indices[first:last].clone(), problem.size)
    times = []
    for _ in range(ROUNDS):
        dist.barrier()
        start, used = time.perf_counter(), time.process_time()
        RowSharded.from_local(*rows, mesh)
        times.append((time.perf_counter() - start, time.process_time() - used))
    clock, process = (statistics.median(each) for each in zip(*times, strict=True))
    print(
        f"rank {rank}: {last - first:,} entries, {clock:.3f} s, of which {process:.3f} s on a core"
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
