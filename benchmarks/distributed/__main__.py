"""Rows of B that ranks receive, beside those that it takes to gather B: exact, without ranks.

``python -m benchmarks.distributed``; ``torchrun --nproc-per-node=2 -m benchmarks.distributed.plan``
times the plan.
"""

import argparse
import itertools

import torch

import spgrad
from benchmarks.operator.problem import Problem
from benchmarks.operator.report import table
from benchmarks.operator.workloads import add_size_options, workloads

RANKS = (4, 16, 64)


def order_of_matrix(problem: Problem, parts: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Leave the rows where they are, in parts of equal size."""
    n = problem.size[0]
    return torch.arange(n), tuple(n * part // parts for part in range(parts + 1))


def order_of_metis(problem: Problem, parts: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Let METIS order the rows."""
    return spgrad.distributed.partition(problem.crow_indices, problem.col_indices, parts)


ORDERS = {"as it is": order_of_matrix, "METIS": order_of_metis}


def halo_rows(
    problem: Problem, permutation: torch.Tensor, row_starts: tuple[int, ...]
) -> list[int]:
    """Count the distinct columns outside of its own that each rank needs."""
    part = torch.empty_like(permutation)
    for number, (begin, end) in enumerate(itertools.pairwise(row_starts)):
        part[permutation[begin:end]] = number
    n = problem.size[0]
    rows = torch.repeat_interleave(torch.arange(n), problem.crow_indices.diff())
    needs, has = part[rows], part[problem.col_indices]
    outside = needs != has
    needed = torch.unique(needs[outside] * n + problem.col_indices[outside]) // n
    return torch.bincount(needed, minlength=len(row_starts) - 1).tolist()


def main() -> None:
    """Print a table of each matrix."""
    parser = argparse.ArgumentParser(description="Rows of B that ranks receive.")
    add_size_options(parser)
    options = parser.parse_args()
    for workload in workloads(options.size):
        if workload.name not in {"fem", "power_law"}:
            continue
        problem = workload.make()
        n = problem.size[0]
        rows = []
        for (name, order), ranks in itertools.product(ORDERS.items(), RANKS):
            halo = halo_rows(problem, *order(problem, ranks))
            gathered = (ranks - 1) * n
            rows.append(
                (
                    f"{name}, {ranks}",
                    f"{sum(halo) / n:.2f}",
                    f"{max(halo) * ranks / n:.2f}",
                    f"1/{gathered / max(sum(halo), 1):.1f}",
                )
            )
        head = ("rows, ranks", "halo over own rows: mean", "most", "beside gathering B")
        print(f"{workload.description}\n\n{table(head, rows)}", flush=True)


if __name__ == "__main__":
    main()
