"""Resident memory of each rank, of 1 to 8 ranks that share out one matrix, beside their shares.

``python -m benchmarks.distributed.memory``, on Linux: ranks are processes of this machine, forked
from one that has imported everything, and what is told of is above that.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import queue
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore
from torch.distributed.device_mesh import init_device_mesh

from benchmarks.operator.report import table
from benchmarks.operator.workloads import stencil
from spgrad.distributed import RowSharded

if TYPE_CHECKING:
    from collections.abc import Sequence

RANKS = (1, 2, 4, 8)
GRID = (128, 50, 49)
COLUMNS = 64
SECONDS = 120  # that all ranks of one run may take


@dataclass(frozen=True)
class Measured:
    """Bytes of one rank."""

    ranks: int
    share: int
    """What its entries and rows need by themselves: A with 12 bytes an entry, values and their
    gradient; B, C and the gradients of both. All float32."""
    halo: int
    """Rows of B that it receives."""
    held: int
    """Resident with A, values and B."""
    peak: int
    """Most in construction, forward and backward."""


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def _held() -> int:
    """Give what is resident once freed memory has gone back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _resident("VmRSS")


def _rows(rank: int, size: int, grid: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Make the rows of a rank, some layers of the grid, without the others."""
    layer = grid[1] * grid[2]
    first, last = grid[0] * rank // size, grid[0] * (rank + 1) // size
    before, behind = min(first, 1), min(grid[0] - last, 1)
    around = stencil((before + last - first + behind, *grid[1:]), 1)
    offsets = around.crow_indices[before * layer : (before + last - first) * layer + 1]
    begin, end = offsets[[0, -1]].tolist()
    columns = around.col_indices[begin:end] + (first - before) * layer
    return offsets - begin, columns


def _measure(rank: int, size: int, grid: tuple[int, int, int], p: int, store: str) -> Measured:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=FileStore(store, size), rank=rank, world_size=size)
    mesh = init_device_mesh("cpu", (size,))
    # What the first product brings along, once in a process.
    small = (4 * size, 2, 2)
    A = RowSharded.from_local(*_rows(rank, size, small), (16 * size, 16 * size), mesh)
    B = torch.ones(16, 2, requires_grad=True)
    A.mm(torch.ones(A.nnz, requires_grad=True), B).sum().backward()
    offsets, columns = _rows(rank, size, grid)
    n = grid[0] * grid[1] * grid[2]
    before = _held()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    A = RowSharded.from_local(offsets, columns, (n, n), mesh)
    values = torch.ones(A.nnz, requires_grad=True)
    B = torch.ones(len(offsets) - 1, p, requires_grad=True)
    dist.barrier()
    held = _held() - before
    C = A.mm(values, B)
    C.backward(torch.ones_like(C))
    peak = _resident("VmHWM") - before
    rows = len(offsets) - 1
    share = A.nnz * (12 + 2 * 4) + 4 * rows * p * 4
    dist.barrier()
    return Measured(size, share, A.halo_rows * p * 4, held, peak)


def _tell(told: multiprocessing.Queue[Measured], rank: int, *options: Any) -> None:
    told.put(_measure(rank, *options))
    told.close()
    told.join_thread()
    os._exit(0)


def measure(size: int, grid: tuple[int, int, int] = GRID, p: int = COLUMNS) -> list[Measured]:
    """Run so many ranks, and give what each tells.

    Raises:
        RuntimeError: They do not answer in time.

    """
    context = multiprocessing.get_context("fork")
    told: multiprocessing.Queue[Measured] = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        processes = [
            context.Process(target=_tell, args=(told, rank, size, grid, p, store))
            for rank in range(size)
        ]
        try:
            for process in processes:
                process.start()
            return [told.get(timeout=SECONDS) for _ in processes]
        except queue.Empty as error:
            message = f"{size} ranks did not answer within {SECONDS} s"
            raise RuntimeError(message) from error
        finally:
            for process in processes:
                process.kill()
                process.join()


def fit(measured: Sequence[Measured]) -> tuple[tuple[float, float], float]:
    """Fit peaks to shares and halos.

    Returns:
        The factors of both, and the largest deviation from a measured peak, relative to it.

    """
    terms = np.array([(each.share, each.halo) for each in measured], dtype=float)
    peaks = np.array([each.peak for each in measured], dtype=float)
    factors = np.linalg.lstsq(terms / peaks[:, None], np.ones(len(peaks)), rcond=None)[0]
    of_share, of_halo = factors.tolist()
    return (of_share, of_halo), float(np.abs(terms @ factors / peaks - 1).max())


def report(runs: Sequence[Sequence[Measured]]) -> str:
    """Lay out the largest of each run, beside the run of one rank, and the fit of all."""
    alone = runs[0][0]
    megabyte = 1e6
    rows = []
    for run in runs:
        held, peak, halo = (
            max(getattr(each, name) for each in run) for name in ("held", "peak", "halo")
        )
        rows.append(
            (
                f"{len(run)}",
                f"{held / megabyte:.1f}",
                f"{max(each.held / each.share for each in run) / (alone.held / alone.share):.3f}",
                f"{halo / megabyte:.1f}",
                f"{peak / megabyte:.1f}",
            )
        )
    head = ("ranks", "A, values and B, MB", "over their share", "halo, MB", "peak, MB")
    (of_share, of_halo), deviation = fit([each for run in runs for each in run])
    return (
        f"{table(head, rows)}\nShares are those of the run of one rank. Peaks are {of_share:.2f} "
        f"times what a rank's own rows take in forward and backward, and {of_halo:.1f} times the "
        f"halo, to {100 * deviation:.0f} % of each.\n"
    )


def main() -> None:
    """Print the table."""
    n = GRID[0] * GRID[1] * GRID[2]
    print(f"stencil of {n:,} rows, p = {COLUMNS}, the largest rank of each run\n")
    print(report([measure(size) for size in RANKS]))


if __name__ == "__main__":
    main()
