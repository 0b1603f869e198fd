"""How a sharded matrix is made: of local rows, of one rank's matrix, of a file."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from spgrad._arguments import integer, integer_from
from spgrad.distributed import _checkpoint
from spgrad.distributed._agreement import DTYPES, Words, agree
from spgrad.distributed._checkpoint import Reader
from spgrad.distributed._files import Folder
from spgrad.distributed._operands import wrong_with
from spgrad.distributed._plan import Plan
from spgrad.distributed._scatter import Whole, scatter
from spgrad.distributed._structure import (
    Layout,
    Rows,
    check,
    checksum,
    chunk_starts,
    integers_of_starts,
    lay_out,
    sizes_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from spgrad.distributed._ranks import Ranks


class Built(NamedTuple):
    """A sharded matrix, as one rank has it."""

    ranks: Ranks
    shape: tuple[int, int]
    layout: Layout
    plan: Plan
    whole: Whole | None = None  # on the rank that has it
    source: int | None = None  # which rank that is
    folder: Folder | None = None  # where the values are


def from_local(
    ranks: Ranks, rows: Callable[[], Rows], max_halo_bytes: int | None, step: str
) -> Built:
    """Make the matrix of what `rows` gives on each rank; its errors reach all."""
    wrong: Exception | None = None
    try:
        own = rows()
        check(own, ranks.device)
        if max_halo_bytes is not None:
            max_halo_bytes = integer_from(1, "max_halo_bytes", max_halo_bytes)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks wait for this one
        own, wrong = Rows(torch.zeros(1), torch.zeros(0), (0, 0)), error
        max_halo_bytes = None
    layout = lay_out(ranks, own, max_halo_bytes, step, wrong)
    plan = Plan(
        ranks,
        own.crow_indices.long(),
        own.col_indices.long(),
        (*own.shape, layout.entry_starts[-1]),
        torch.tensor(layout.column_starts, device=ranks.device),
        max_halo_bytes,
        step,
    )
    return Built(ranks, own.shape, layout, plan)


def from_file(ranks: Ranks, path: str | Path, max_halo_bytes: int | None) -> Built:
    """Let each rank read its rows, which are those of torch.chunk."""
    opened: list[Folder] = []

    def rows() -> Rows:
        folder = Folder(path)
        opened.append(folder)
        starts = chunk_starts(folder.shape[0], ranks.size)
        indices = folder.rows(*starts[ranks.rank : ranks.rank + 2])
        crow_indices, col_indices = (tensor.to(ranks.device) for tensor in indices)
        return Rows(crow_indices, col_indices, folder.shape)

    built = from_local(ranks, rows, max_halo_bytes, "RowSharded.from_file")
    return built._replace(folder=opened[0])


def from_rank(
    ranks: Ranks,
    whole: Callable[[], Whole],
    src: int,
    max_halo_bytes: int | None,
) -> Built:
    """Share out the rows of what `whole` gives on rank `src`."""
    step = "RowSharded.from_rank"
    wrong: Exception | None = None
    matrix = None
    source = integer(src)
    if source is None or not 0 <= source < ranks.size:
        wrong = ValueError(f"src must be an integer in [0, {ranks.size}), but received {src!r}")
        source = -1
    try:
        if (ranks.rank, ranks.column) == (source, 0):
            matrix = whole()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks wait for this one
        wrong = error
    shape = (-1, -1) if matrix is None else matrix.shape
    notes = agree(ranks, Words(step), wrong, (source, *shape))
    sources = notes[..., 0].flatten()
    if sources.unique().numel() > 1:
        message = f"all ranks must name the same src, but received {sources.tolist()}"
        raise RuntimeError(message)
    n, m = notes[source, 0, 1:3].tolist()
    known = torch.zeros(2 * ranks.size + 1, dtype=torch.int64)
    if matrix is not None:
        known = torch.tensor([*matrix.row_starts, *matrix.nnz_of_ranks()])
    known = ranks.all_gather_of_all(known, step)[source, 0]
    starts, lengths = known[: ranks.size + 1], known[ranks.size + 1 :]

    def share_out(share_of: Callable[[int, int], Tensor] | None, lengths: Tensor) -> Tensor:
        share = None if share_of is None else _of_ranks(share_of, starts.tolist())
        return scatter(ranks, source, share, torch.int64, lengths.tolist(), step)

    counts = share_out(matrix and matrix.counts, starts.diff())
    columns = share_out(matrix and matrix.columns, lengths)
    crow_indices = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    built = from_local(ranks, lambda: Rows(crow_indices, columns, (n, m)), max_halo_bytes, step)
    return built._replace(whole=matrix, source=source)


def from_checkpoint(
    ranks: Ranks,
    path: str | Path,
    name: str,
    row_starts: Sequence[int] | None,
    max_halo_bytes: int | None,
) -> Built:
    """Let each rank read its rows of a checkpoint."""
    step = "RowSharded.from_checkpoint"
    wrong: Exception | None = None
    if not isinstance(path, (str, os.PathLike)) or not isinstance(name, str):
        wrong = ValueError(
            "path and name must be a path and a string, "
            f"but received {type(path).__name__} and {type(name).__name__}"
        )
    starts = None
    try:
        starts = None if row_starts is None else integers_of_starts(row_starts)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks wait for this one
        wrong = wrong or error
    # Reading is something that all do: they agree before it.
    length = -1 if starts is None else len(starts)
    notes = agree(ranks, Words(step), wrong, (checksum(torch.tensor(starts or ())), length))
    for rank, column in (notes != notes[0, 0]).any(-1).nonzero()[:1].tolist():
        message = (
            "all ranks must have the same row_starts, but received others on "
            f"{ranks.name(rank, column)} than on {ranks.name(0, 0)}"
        )
        raise RuntimeError(message)
    reader = Reader(ranks, path, name)
    return from_local(ranks, lambda: reader.rows(starts), max_halo_bytes, step)


def saved(built: Built) -> dict[str, Any]:
    """Give what a checkpoint has of a matrix."""
    return _checkpoint.saved(built.shape, built.layout, built.plan, built.ranks.rank)


def compare(built: Built, state: dict[str, Any]) -> None:
    """See that a checkpoint has the matrix, on all ranks."""
    wrong: Exception | None = None
    try:
        if not _checkpoint.is_of(state, built.shape, built.plan):
            wrong = ValueError(
                "the checkpoint must be of this matrix, but received another structure"
            )
    except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks wait for this one
        wrong = ValueError(f"state_dict must be what state_dict() gives, but received: {error!r}")
    agree(built.ranks, Words("RowSharded.load_state_dict", structure=built.layout.number), wrong)


def _of_ranks(
    share_of: Callable[[int, int], Tensor], row_starts: Sequence[int]
) -> Callable[[int], Tensor]:
    return lambda rank: share_of(row_starts[rank], row_starts[rank + 1])


def local_values(built: Built, values: Tensor | None) -> Tensor:
    """Give each rank its part of values that all ranks have, or one, or a file."""
    step = "RowSharded.local"
    ranks, layout = built.ranks, built.layout
    wrong = _wrong_with_values(built, values)
    dtype = -1 if wrong or values is None else DTYPES.index(values.dtype)
    notes = agree(ranks, Words(step, structure=layout.number), wrong, (dtype,))
    if built.source is not None:
        share_of = None
        if built.whole is not None and values is not None:
            share_of = _of_ranks(partial(built.whole.values, values.detach()), layout.row_starts)
        dtype = int(notes[built.source, 0, 0])
        lengths = sizes_of(layout.entry_starts)
        return scatter(ranks, built.source, share_of, DTYPES[dtype], lengths, step)
    begin, end = layout.entry_starts[ranks.rank : ranks.rank + 2]
    if values is None and built.folder is not None:
        return built.folder.values(begin, end).to(ranks.device)
    assert values is not None  # noqa: S101 - it was checked above
    return values.detach()[begin:end].to(ranks.device, copy=True)


def _wrong_with_values(built: Built, values: object) -> Exception | None:
    is_scattered, is_source = built.source is not None, built.whole is not None
    may_be_none = not is_source if is_scattered else built.folder is not None
    if may_be_none and values is None:
        return None
    if is_scattered and not is_source:
        received = type(values).__name__
        return ValueError(
            f"values must be None on the ranks that A was scattered to, but received {received}"
        )
    return wrong_with(values, "values", (built.layout.entry_starts[-1],), None)
