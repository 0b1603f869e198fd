"""What ranks tell each other before a step that they take together, so that none waits in vain.

Collectives of ranks that disagree hang, end the process or give wrong numbers, as the backend has
it. So each rank first says in a few words of fixed size what it is about to do, and whether
something is wrong on its side. All ranks see the same words: all go on, or all raise the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from spgrad.distributed._ranks import Ranks

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
)

# Each step that ranks take together, by its number in the words.
STEPS = (
    "RowSharded.from_local",
    "RowSharded.from_rank",
    "RowSharded.from_file",
    "RowSharded.from_checkpoint",
    "RowSharded.load_state_dict",
    "SparseLinear.from_rank",
    "RowSharded.local",
    "RowSharded.report",
    "RowSharded.mm",
    "RowSharded.sddmm",
    "the backward pass of RowSharded.mm",
    "the backward pass of RowSharded.sddmm",
    "a second backward pass of RowSharded.mm",
    "the backward pass of a transposed product of RowSharded",
    "the forward derivative of RowSharded",
)

_TEXT_BYTES = 512
_NOTES = 4


class Words(NamedTuple):
    """What ranks must say alike. Numbers are -1 where a step has none."""

    step: str
    structure: int = -1  # the number of the RowSharded
    rows: int = -1
    columns: int = -1
    width: int = -1  # p
    dtype: torch.dtype | None = None
    gradients: tuple[bool, ...] = ()  # which of them are wanted
    max_halo_bytes: int = -1

    def numbers(self) -> list[int]:
        """Encode the words."""
        return [
            STEPS.index(self.step),
            self.structure,
            self.rows,
            self.columns,
            self.width,
            -1 if self.dtype is None else DTYPES.index(self.dtype),
            sum(1 << place for place, wanted in enumerate(self.gradients) if wanted),
            self.max_halo_bytes,
        ]


_WIDTH = Words._fields.index("width")


def _dtype(number: int) -> str:
    return "has no dtype" if number < 0 else f"has {DTYPES[number]}"


def _gradients(number: int) -> str:
    wanted = [place + 1 for place in range(4) if number >> place & 1]
    return f"wants gradients of operands {wanted}" if wanted else "wants no gradients"


# How to tell each number of Words.
_DESCRIPTIONS: tuple[Callable[[int], str], ...] = (
    lambda number: f"calls {STEPS[number]}",
    lambda number: f"uses RowSharded number {number}",
    lambda number: f"has n = {number}",
    lambda number: f"has m = {number}",
    lambda number: f"has p = {number}",
    _dtype,
    _gradients,
    lambda number: f"has max_halo_bytes = {number if number > 0 else None}",
)


def agree(
    ranks: Ranks, words: Words, wrong: Exception | None = None, notes: Sequence[int] = ()
) -> Tensor:
    """Let all ranks go on, or raise the same error on all of them.

    Args:
        ranks: Who takes part.
        words: What this rank is about to do.
        wrong: What this rank has to complain about.
        notes: Up to four numbers that may differ from rank to rank.

    Returns:
        The notes of all ranks, int64 of shape `(ranks, ranks along the columns of B, 4)`.

    Raises:
        ValueError: Something is wrong on a rank, which the text names.
        RuntimeError: So it is, and it was a RuntimeError there; or the words differ.

    """
    if ranks.is_alone:
        if wrong is not None:
            raise wrong
        return torch.tensor([[[*notes, *[0] * (_NOTES - len(notes))]]])
    return _compared(ranks, words, wrong, _start_to_gather(ranks, words, wrong, notes)())


class Agreement:
    """Ranks that agree while they work: `wait` lets all go on, or raises as `agree`.

    A rank waits before it sends rows, which others could take for those of another step, and at
    last before it returns what it has.
    """

    def __init__(self, ranks: Ranks, words: Words) -> None:
        """Start to tell the others what this rank is about to do."""
        self._ranks, self._words = ranks, words
        self._rows: Callable[[], Tensor] | None = _start_to_gather(ranks, words, None, ())

    def wait(self) -> None:
        """Let all ranks go on, or raise the same error on all of them: once."""
        rows, self._rows = self._rows, None
        if rows is not None:
            _compared(self._ranks, self._words, None, rows())


def _start_to_gather(
    ranks: Ranks, words: Words, wrong: Exception | None, notes: Sequence[int]
) -> Callable[[], Tensor]:
    kind = 0 if wrong is None else 1 if isinstance(wrong, ValueError) else 2
    row = torch.tensor([kind, *words.numbers(), *notes, *[0] * (_NOTES - len(notes))])
    return ranks.start_to_gather_of_all(row, words.step)


def _compared(ranks: Ranks, words: Words, wrong: Exception | None, rows: Tensor) -> Tensor:
    """Give the notes of all ranks, where they said the same otherwise."""
    kinds, numbers = rows[..., 0], rows[..., 1:-_NOTES]
    if kinds.any():
        _raise_what_is_wrong(ranks, words, wrong, kinds)
    like = numbers[:1, :1].repeat(1, ranks.columns, 1)
    like[..., _WIDTH] = numbers[:1, :, _WIDTH]  # ranks with other columns of B may have more
    for rank, column, place in (numbers != like).nonzero()[:1].tolist():
        describe, first = _DESCRIPTIONS[place], column if place == _WIDTH else 0
        message = (
            f"all ranks must call {words.step} alike, but received: "
            f"{ranks.name(rank, column)}: {describe(int(numbers[rank, column, place]))}; "
            f"{ranks.name(0, first)}: {describe(int(like[0, column, place]))}"
        )
        raise RuntimeError(message)
    return rows[..., -_NOTES:]


def _raise_what_is_wrong(
    ranks: Ranks, words: Words, wrong: Exception | None, kinds: Tensor
) -> None:
    text = torch.zeros(_TEXT_BYTES, dtype=torch.uint8)
    if wrong is not None:
        letters = str(wrong).encode()[:_TEXT_BYTES]
        text[: len(letters)] = torch.tensor(list(letters), dtype=torch.uint8)
    texts = ranks.all_gather_of_all(text, words.step)
    rank, column = kinds.nonzero()[0].tolist()
    letters = bytes(texts[rank, column].tolist()).rstrip(b"\0")
    kind = ValueError if kinds[rank, column] == 1 else RuntimeError
    message = f"{ranks.name(rank, column)}: {letters.decode(errors='ignore')}"
    raise kind(message) from wrong
