"""The structure of a sharded matrix in a checkpoint of torch.distributed.checkpoint."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load

from spgrad.distributed._parts import mark, need_checkpoints
from spgrad.distributed._structure import Rows, checked_starts, chunk_starts, starts_of

if TYPE_CHECKING:
    from pathlib import Path

    from spgrad.distributed._plan import Plan
    from spgrad.distributed._ranks import Ranks
    from spgrad.distributed._structure import Layout


def saved(shape: tuple[int, int], layout: Layout, plan: Plan, rank: int) -> dict[str, Any]:
    """Give what a checkpoint has of a matrix: counts, not offsets, which would overlap."""
    need_checkpoints()
    counts, columns = plan.indices()
    return {
        "shape": shape,
        "row_starts": layout.row_starts,
        "column_starts": layout.column_starts,
        "row_counts": mark(counts, layout.row_starts, rank),
        "col_indices": mark(columns, layout.entry_starts, rank),
    }


def is_of(state: dict[str, Any], shape: tuple[int, int], plan: Plan) -> bool:
    """Tell whether what a checkpoint has is of a matrix."""
    counts, columns = plan.indices()
    are_same = counts.equal(state["row_counts"]) and columns.equal(state["col_indices"])
    return are_same and tuple(state["shape"]) == shape


class Reader(NamedTuple):
    """A checkpoint, and what a matrix is called in it."""

    ranks: Ranks
    path: str | Path
    name: str

    def rows(self, row_starts: tuple[int, ...] | None) -> Rows:
        """Read the rows of this rank; all ranks call it.

        Raises:
            ValueError: There is no such checkpoint, or `row_starts` do not fit.

        """
        need_checkpoints()
        names = ("shape", "row_starts", "column_starts")
        (n, m), saved_rows, saved_columns = self._read(dict.fromkeys(names)).values()
        size, rank = self.ranks.size, self.ranks.rank
        are_as_many = len(saved_rows) == size + 1
        if row_starts is not None:
            starts = checked_starts(row_starts, n, size)
        else:
            starts = tuple(saved_rows) if are_as_many else chunk_starts(n, size)
        own_columns = None
        if are_as_many and starts == tuple(saved_rows):
            own_columns = saved_columns[rank + 1] - saved_columns[rank]
        counts = self._read_part("row_counts", starts)
        nnz = self.ranks.all_gather(counts.sum().view(1), "RowSharded.from_checkpoint")
        columns = self._read_part("col_indices", starts_of(nnz.flatten().tolist()))
        return Rows(
            torch.cat([counts.new_zeros(1), counts.cumsum(0)]), columns, (n, m), own_columns
        )

    def _read_part(self, key: str, starts: tuple[int, ...]) -> Tensor:
        rank = self.ranks.rank
        length = starts[rank + 1] - starts[rank]
        part = torch.empty(length, dtype=torch.int64, device=self.ranks.device)
        self._read({key: mark(part, starts, rank)})
        return part

    def _read(self, wanted: dict[str, Any]) -> dict[str, Any]:
        state = {self.name: wanted}
        group = self.ranks.group
        try:
            with warnings.catch_warnings():
                # It warns where one process reads alone.
                warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
                load(state, checkpoint_id=self.path, process_group=group, no_dist=group is None)
        except CheckpointException as error:  # on all ranks, and no Exception
            reasons = ", ".join(f"{reason}" for reason, _ in error.failures.values())
            message = (
                f"path must be a checkpoint with a RowSharded called {self.name!r}, "
                f"but received {str(self.path)!r}: {reasons}"
            )
            raise ValueError(message) from error
        return state[self.name]
