"""Which of a rank's entries a part of its matrix has, in memory that is little beside theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

# Up to so many runs, to copy each takes less time than to look up the entries one by one.
_MOST_RUNS = 64


class Entries(NamedTuple):
    """Places among a rank's entries, in ascending order.

    Where they are few runs, as rows in the order of a grid or of `partition` have it, these are
    enough. Otherwise places are int32, in which PyTorch looks up faster than in int64.
    """

    runs: tuple[tuple[int, int], ...]  # where each begins and ends
    places: Tensor | None  # where there are too many runs

    @classmethod
    def of(cls, places: Tensor, total: int) -> Self:
        """Take the places, int64, in a number of entries."""
        breaks = (places.diff() != 1).nonzero().flatten() + 1
        if len(breaks) < _MOST_RUNS:
            pieces = places.tensor_split(breaks.cpu())
            ends = [each[[0, -1]].tolist() for each in pieces if len(each) > 0]
            return cls(tuple((first, last + 1) for first, last in ends), None)
        return cls((), places.int() if total <= torch.iinfo(torch.int32).max else places)

    def take(self, values: Tensor) -> Tensor:
        """Give the values of these entries: where they are one run, a view."""
        if self.places is not None:
            return values.index_select(0, self.places)
        pieces = [values[begin:end] for begin, end in self.runs]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces) if pieces else values[:0]

    def put(self, values: Tensor, out: Tensor) -> None:
        """Put the values of these entries where they are among all."""
        if self.places is not None:
            out.scatter_(0, self.places.long(), values)  # half the time of index_copy_
            return
        taken = 0
        for begin, end in self.runs:
            out[begin:end] = values[taken : taken + end - begin]
            taken += end - begin
