"""Forward and backward on one rank, beside the plain ``Pattern``.

``python -m benchmarks.distributed.one_rank``
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh

import spgrad
from benchmarks.operator.modes import Outcome
from benchmarks.operator.report import table
from benchmarks.operator.timing import Pace, time_rounds
from benchmarks.operator.workloads import stencil
from spgrad.distributed import RowSharded

if TYPE_CHECKING:
    from benchmarks.distributed.step import Product
    from benchmarks.operator.modes import Call

# Grid of the stencil, columns of B: the work of milliseconds, and one in which calls show.
PROBLEMS = (((25, 50, 49), 128), ((12, 12, 12), 8))
PACE = Pace(seconds=15, least_rounds=5, most_rounds=300)


def _gradients(mm: Product, values: Tensor, B: Tensor, G: Tensor) -> Outcome:
    of_values, of_B = torch.autograd.grad(mm(values, B), (values, B), G)
    return Outcome(dA=(of_values,), dB=of_B)


def main() -> None:
    """Print the ratio of the medians of both, which take turns."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    rows = []
    for grid, p in PROBLEMS:
        problem = stencil(grid, p)
        structure = (problem.crow_indices, problem.col_indices)
        products = {
            "RowSharded": RowSharded.from_local(*structure, problem.size, mesh).mm,
            "Pattern": spgrad.Pattern.from_csr(*structure, problem.size).mm,
        }
        values = torch.rand(problem.entries, requires_grad=True)
        B = torch.rand(problem.size[1], p, requires_grad=True)
        G = torch.ones(problem.size[0], p)
        calls: dict[str, Call] = {
            name: partial(_gradients, mm, values, B, G) for name, mm in products.items()
        }
        for call in calls.values():
            call()
        times = {name: time.median for name, time in time_rounds(calls, PACE).items()}
        rows.append(
            (
                f"{problem.size[0]:,} rows, p = {p}",
                f"{1e3 * times['Pattern']:.3f}",
                f"{times['RowSharded'] / times['Pattern']:.3f}",
            )
        )
    print(table(("one rank, forward and backward", "Pattern, ms", "RowSharded over it"), rows))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
