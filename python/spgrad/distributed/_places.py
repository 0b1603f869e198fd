"""Which of a rank's entries or rows a part of its matrix has, in little memory beside theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

# Up to so many runs, of so many rows on average, to copy each takes less time than to look up
# places one by one.
_MOST_RUNS = 64
_ROWS_OF_RUN = 256


class Places(NamedTuple):
    """Places among a rank's entries or rows, in ascending order (to take them, in any).

    Where they are few long runs, as rows in the order of a grid or of `partition` have it, these
    are enough. Otherwise they are int32, in which PyTorch looks up faster than in int64.
    """

    runs: tuple[tuple[int, int], ...]  # where each begins and ends
    places: Tensor | None  # where there are too many runs

    @classmethod
    def of(cls, places: Tensor, total: int) -> Self:
        """Take the places, int64, and the number of all entries or rows."""
        breaks = (places.diff() != 1).nonzero().flatten() + 1
        if len(breaks) < min(_MOST_RUNS, 1 + len(places) // _ROWS_OF_RUN):
            pieces = places.tensor_split(breaks.cpu())
            ends = [each[[0, -1]].tolist() for each in pieces if len(each) > 0]
            return cls(tuple((first, last + 1) for first, last in ends), None)
        return cls((), places.int() if total <= torch.iinfo(torch.int32).max else places)

    def take(self, values: Tensor) -> Tensor:
        """Give what is at these places: where they are one run, a view."""
        if self.places is not None:
            return values.index_select(0, self.places)
        pieces = [values[begin:end] for begin, end in self.runs]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces) if pieces else values[:0]

    def view(self, values: Tensor) -> Tensor | None:
        """Give what is at these places as a view, where they are one run."""
        return self.take(values) if self.places is None and len(self.runs) <= 1 else None

    def copy(self, rows: Tensor, out: Tensor) -> None:
        """Copy the rows at these places to `out`."""
        if self.places is not None:
            torch.index_select(rows, 0, self.places, out=out)
            return
        for run, part in self._cut(out):
            part.copy_(rows[run])

    def put(self, values: Tensor, out: Tensor) -> None:
        """Put values of entries where they are among all."""
        if self.places is not None:
            out.scatter_(0, self.places.long(), values)  # half the time of index_copy_
            return
        for run, part in self._cut(values):
            out[run] = part

    def put_rows(self, rows: Tensor, out: Tensor) -> None:
        """Put rows where they are among all."""
        if self.places is not None:
            out.index_copy_(0, self.places.long(), rows)
            return
        for run, part in self._cut(rows):
            out[run] = part

    def add(self, rows: Tensor, out: Tensor) -> None:
        """Add rows to those at these places."""
        if self.places is not None:
            out.index_add_(0, self.places.long(), rows)  # int32 takes 1.7 times as long
            return
        for run, part in self._cut(rows):
            out[run] += part

    def _cut(self, values: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Give each run, and what of the values belongs there."""
        parts = values.split([end - begin for begin, end in self.runs])
        for (begin, end), part in zip(self.runs, parts, strict=True):
            yield slice(begin, end), part
