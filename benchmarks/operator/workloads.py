"""The matrices that the benchmark runs on, each in the sizes full, quick and tiny."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.operator import matrix_market
from benchmarks.operator.problem import Problem, make_problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Integers = npt.NDArray[np.int64]
SIZES = ("full", "quick", "tiny")


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """Let a command choose the size of the matrices."""
    parser.add_argument("--size", choices=SIZES, default="full", help="of the matrices")
    parser.add_argument(
        "--quick",
        action="store_const",
        const="quick",
        dest="size",
        default=argparse.SUPPRESS,
        help="the same as --size quick",
    )


@dataclass(frozen=True)
class Workload:
    """A named problem that is made when it is its turn."""

    name: str
    group: str
    description: str
    make: Callable[[], Problem]
    trained: bool = False
    """Whether the matrix is a layer: whole training steps are timed too."""


def from_coordinates(size: tuple[int, int], rows: Integers, cols: Integers, p: int) -> Problem:
    """Make a problem with the pattern of these coordinates, duplicates merged."""
    n, m = size
    keys = np.unique(rows * m + cols)
    crow_indices = np.concatenate([[0], np.bincount(keys // m, minlength=n).cumsum()])
    return make_problem(size, torch.from_numpy(crow_indices), torch.from_numpy(keys % m), p)


def stencil(grid: tuple[int, int, int], p: int) -> Problem:
    """Make the matrix of trilinear finite elements: each node and its 26 neighbours."""
    node = np.arange(np.prod(grid)).reshape(grid)
    rows, cols = [], []
    for shift in np.ndindex(3, 3, 3):
        here = tuple(slice(max(1 - s, 0), g - max(s - 1, 0)) for s, g in zip(shift, grid))  # noqa: B905
        there = tuple(slice(max(s - 1, 0), g - max(1 - s, 0)) for s, g in zip(shift, grid))  # noqa: B905
        rows.append(node[here].ravel())
        cols.append(node[there].ravel())
    return from_coordinates((node.size, node.size), np.concatenate(rows), np.concatenate(cols), p)


def rmat(scale: int, draws: int, p: int) -> Problem:
    """Make a graph with a power law: R-MAT with probabilities 0.57, 0.19, 0.19, 0.05."""
    random = np.random.default_rng(0)
    rows = np.zeros(draws, np.int64)
    cols = np.zeros(draws, np.int64)
    for _ in range(scale):
        quadrant = random.choice(4, size=draws, p=(0.57, 0.19, 0.19, 0.05))
        rows = 2 * rows + quadrant // 2
        cols = 2 * cols + quadrant % 2
    return from_coordinates((2**scale, 2**scale), rows, cols, p)


def uniform(size: tuple[int, int], entries: int, p: int) -> Problem:
    """Make a matrix with exactly this many entries at random places."""
    n, m = size
    keys = np.random.default_rng(0).choice(n * m, size=entries, replace=False)
    return from_coordinates(size, keys // m, keys % m, p)


def uniform_batch(items: int, size: tuple[int, int], entries: int, p: int) -> Problem:
    """Make a batch of matrices with exactly this many entries each at random places."""
    random = np.random.default_rng(0)
    crow_indices = np.zeros((items, size[0] + 1), np.int64)
    keys = np.empty((items, entries), np.int64)
    for item in range(items):
        keys[item] = np.sort(random.choice(size[0] * size[1], size=entries, replace=False))
        np.bincount(keys[item] // size[1], minlength=size[0]).cumsum(out=crow_indices[item, 1:])
    cols = torch.from_numpy(keys % size[1])
    return make_problem(size, torch.from_numpy(crow_indices), cols, p)


def hub(n: int, p: int) -> Problem:
    """Make a matrix with a diagonal, one full row and one full column."""
    every = np.arange(n)
    middle = np.full(n, n // 2)
    rows, cols = np.concatenate([every, every, middle]), np.concatenate([every, middle, every])
    return from_coordinates((n, n), rows, cols, p)


def workloads(size: str, matrix: Path | None = None) -> list[Workload]:
    """List the workloads in a size: full, quick or tiny.

    ``matrix`` is a Matrix Market file that takes the place of the finite-element matrix.
    """
    chosen = SIZES.index(size)

    def pick(*choices: int) -> int:
        return choices[chosen]

    if matrix is None:
        grid = ((50, 50, 49), (24, 24, 23), (5, 4, 3))[chosen]
        fem: Callable[[int], Problem] = partial(stencil, grid)
        shape = " × ".join(map(str, grid))
        fem_description = f"3-D 27-point stencil on {shape} nodes"
    else:
        named = matrix_market.read(matrix)
        fem = named.problem
        fem_description = named.description

    scale, draws = pick(17, 13, 6), pick(1_200_000, 75_000, 300)
    layer = pick(4096, 1024, 64)
    wide = pick(128, 64, 16)
    return [
        Workload("fem", "fem", fem_description, partial(fem, wide)),
        Workload(
            "power_law", "power_law", f"R-MAT of scale {scale}", partial(rmat, scale, draws, wide)
        ),
        *(
            Workload(
                f"random_{name}",
                f"random_{name}",
                "entries at random places",
                partial(uniform, (2**n, 2**m), 2**entries, 64),
            )
            for name, n, m, entries in (
                ("small", pick(10, 10, 5), pick(6, 6, 4), pick(12, 12, 6)),
                ("medium", pick(14, 12, 6), pick(8, 8, 5), pick(14, 13, 7)),
                ("large", pick(18, 15, 7), pick(9, 9, 6), pick(16, 15, 8)),
            )
        ),
        Workload(
            "batched_many",
            "batched_many",
            "many small matrices with entries at random places",
            partial(
                uniform_batch, pick(64, 16, 3), (2 ** pick(10, 9, 4),) * 2, 2 ** pick(13, 12, 5), 32
            ),
        ),
        Workload(
            "batched_large",
            "batched_large",
            "few large matrices with entries at random places",
            partial(
                uniform_batch, pick(4, 2, 2), (2 ** pick(14, 12, 5),) * 2, 2 ** pick(17, 15, 6), 64
            ),
        ),
        *(
            Workload(
                f"narrow_{p}", "narrow", f"{fem_description}, few columns in B", partial(fem, p)
            )
            for p in ((1, 3, 16, 33), (1, 16), (3,))[chosen]
        ),
        Workload(
            "hub",
            "hub",
            "one row and one column are full",
            partial(hub, pick(100_000, 20_000, 100), 64),
        ),
        Workload(
            "sparse_layer",
            "sparse_layer",
            "layer with 5 % of its weights",
            partial(uniform, (layer, layer), layer * layer // 20, pick(256, 128, 8)),
            trained=True,
        ),
    ]
