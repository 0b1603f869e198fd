"""Orders of rows in which ranks need few rows of each other."""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from spgrad._arguments import integer_from
from spgrad._optional import optional
from spgrad.distributed._structure import Rows, check, starts_of

# A row of B and of C weighs as much as the entries of so many average rows. Of R-MAT of scale 17 in
# 16 parts, the largest has 1.23 of the mean of rows, 1.51 of the mean of entries, with a halo of
# 1.81 of the rows. With 1: 1.97, 1.27, 1.92. With rows of the weight of an entry: 5.0, 1.06, 2.07.
_ROW_WEIGHT = 4

# Where halving gives a part more than so many times the mean of rows or of entries, METIS also cuts
# all at once.
_MOST_IMBALANCE = 1.1

# By how much of the mean weight Mt-KaHyPar may let a part exceed it: 0.1 gives no less halo.
_IMBALANCE = 0.03


def partition(
    crow_indices: Tensor,
    col_indices: Tensor,
    parts: int,
    method: Literal["metis", "mtkahypar"] = "metis",
) -> tuple[Tensor, tuple[int, ...]]:
    """Find an order of the rows and columns of a square matrix in which ranks need little halo.

    >>> import torch, spgrad
    >>> ring = torch.tensor([1, 3, 0, 2, 1, 3, 0, 2])  # of 0, 1, 2, 3
    >>> permutation, row_starts = spgrad.distributed.partition(torch.arange(5) * 2, ring, 1)
    >>> permutation, row_starts
    (tensor([0, 1, 2, 3]), (0, 4))

    It runs on one process, which has the structure. Within a part, rows that need other parts come
    last, and before them those whose columns they need; otherwise rows keep their order.

    Args:
        crow_indices: Of the whole matrix, as :func:`spgrad.csr_mm` takes them.
        col_indices: Columns, each below the number of rows.
        parts: Number of ranks.
        method: Who cuts. Rows and entries are balanced together, where a row counts as four average
            rows' entries.

            - ``"metis"``: METIS by ``pymetis``, which the extra ``partition`` of the package
              brings. It cuts few edges of the symmetric graph of the matrix. It halves parts again
              and again; where hubs make these uneven, it cuts all at once.
            - ``"mtkahypar"``: Mt-KaHyPar by the package ``mtkahypar``, with as many threads as
              PyTorch has at the first call. It minimises the rows of B that all ranks receive, and
              takes longer.

    Returns:
        The permutation, int64 of shape ``(n,)``, by which row and column i become what
        ``permutation[i]`` was; and where the rows of each part begin, with n at the end.
        :meth:`spgrad.distributed.RowSharded.from_rank` takes both; rows of B are
        ``B[permutation]``.

    Raises:
        ValueError: An argument is no tensor, shapes do not fit, ``parts`` is no positive number,
            or there is no such method.
        RuntimeError: Indices are malformed.
        ImportError: The package of the method is not there.

    """
    n = len(crow_indices) - 1 if isinstance(crow_indices, Tensor) and crow_indices.dim() else 0
    check(Rows(crow_indices, col_indices, (n, n)), torch.device("cpu"))
    parts = integer_from(1, "parts", parts)
    if not isinstance(method, str) or method not in _METHODS:
        message = f"method must be one of {tuple(_METHODS)}, but received {method!r}"
        raise ValueError(message)
    if parts == 1 or n == 0:
        return torch.arange(n), (0, *[n] * parts)
    rows = torch.repeat_interleave(torch.arange(n), crow_indices.diff().long())
    columns = col_indices.long()
    weights = crow_indices.diff() + max(_ROW_WEIGHT * len(col_indices) // n, 1)
    part = _METHODS[method](rows, columns, weights, parts)
    counts = torch.bincount(part, minlength=parts)
    needs_others = torch.zeros(n, dtype=torch.int64)
    needs_others[rows[part[rows] != part[columns]]] = 1
    is_needed = torch.zeros(n, dtype=torch.int64)
    is_needed[columns[(needs_others[rows] == 1) & (part[rows] == part[columns])]] = 1
    # So rows with and without halo are one run each on a rank, with their entries, and so are the
    # own rows of B that the former need: to copy and add runs is several times as fast.
    place_in_part = torch.where(needs_others == 1, 3 - is_needed, is_needed)
    order = (4 * part + place_in_part).argsort(stable=True)
    return order, starts_of(counts.tolist())


def _by_metis(rows: Tensor, columns: Tensor, weights: Tensor, parts: int) -> Tensor:
    """Give the part of each row: few edges of the symmetric graph go from one to another."""
    pymetis = optional("pymetis", "partition needs", "'spgrad[partition]'")
    n = len(weights)
    numbers = torch.cat([rows * n + columns, columns * n + rows])
    offsets, neighbours = _lists(numbers[torch.cat([rows != columns] * 2)], n)
    graph = pymetis.CSRAdjacency(list(offsets), neighbours)
    chosen = torch.empty(0)
    least = math.inf
    for recursive in (True, False):
        _, membership = pymetis.part_graph(
            parts, graph, vweights=weights.tolist(), recursive=recursive
        )
        part = torch.tensor(membership)
        uneven = max(_imbalance(part, parts), _imbalance(part[rows], parts))
        if uneven < least:
            chosen, least = part, uneven
        # Halves of halves are even and have less halo, but not where some rows are hubs: these lie
        # together, with more entries than the rows of other parts.
        if least <= _MOST_IMBALANCE:
            break
    return chosen


def _imbalance(part: Tensor, parts: int) -> float:
    """Give the most that a part has, of rows or of entries, over the mean."""
    return int(torch.bincount(part, minlength=parts).max()) * parts / max(len(part), 1)


def _by_mtkahypar(rows: Tensor, columns: Tensor, weights: Tensor, parts: int) -> Tensor:
    """Give the part of each row: few parts need the same row of B.

    A net has the rows with entries in a column, and the row of B itself. The parts beyond one that
    it connects are those that receive this row.
    """
    mtkahypar, library = _mtkahypar()
    n = len(weights)
    own = torch.arange(n) * (n + 1)
    offsets, connected = _lists(torch.cat([columns * n + rows, own]), n)
    nets = [connected[first:last] for first, last in pairwise(offsets) if last - first > 1]
    mtkahypar.set_seed(1)
    context = library.context_from_preset(mtkahypar.PresetType.DETERMINISTIC)
    context.set_partitioning_parameters(parts, _IMBALANCE, mtkahypar.Objective.KM1)
    context.logging = False
    graph = library.create_hypergraph(
        context, n, len(nets), nets, weights.tolist(), [1] * len(nets)
    )
    return torch.tensor(graph.partition(context).get_partition())


@functools.cache
def _mtkahypar() -> tuple[Any, Any]:
    """Import Mt-KaHyPar, and start its threads: once for a process."""
    mtkahypar = optional("mtkahypar", "the method mtkahypar needs", "mtkahypar")
    return mtkahypar, mtkahypar.initialize(torch.get_num_threads())


_METHODS = {"metis": _by_metis, "mtkahypar": _by_mtkahypar}


def _lists(numbers: Tensor, n: int) -> tuple[tuple[int, ...], list[int]]:
    """Give where the list of each quotient by n begins, and the lists of remainders, once each."""
    numbers = torch.unique(numbers)
    counts = torch.bincount(numbers // n, minlength=n)
    return starts_of(counts.tolist()), (numbers % n).tolist()
