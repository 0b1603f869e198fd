"""The pattern of a layer: drawn at random, given by a mask, or one that takes over from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spgrad import _library  # noqa: F401 - registers the operators
from spgrad._arguments import real

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

csr_pattern = torch.ops.spgrad.csr_pattern.default

_DEFAULT_SPARSITY = 0.9
# Numbers that are made at a time for a pattern or a gradient: 16 MB of float32.
BLOCK = 1 << 22


def count_present(sparsity: float | None, possible: int) -> int:
    sparsity = _DEFAULT_SPARSITY if sparsity is None else sparsity
    number = real(sparsity)
    if number is None or not 0 <= number <= 1:
        message = f"sparsity must be a number from 0 to 1, but received {sparsity!r}"
        raise ValueError(message)
    return possible - round(number * possible)


def checked_mask(mask: Tensor, sparsity: float | None, shape: tuple[int, int]) -> Tensor:
    if sparsity is not None:
        message = f"either sparsity or mask must be given, but received both (sparsity={sparsity})"
        raise ValueError(message)
    if not isinstance(mask, Tensor) or mask.layout != torch.strided or mask.shape != shape:
        received = (
            f"shape {tuple(mask.shape)} and layout {mask.layout}"
            if isinstance(mask, Tensor)
            else type(mask).__name__
        )
        message = f"mask must be a dense tensor of shape {shape}, but received {received}"
        raise ValueError(message)
    mask = mask.detach().cpu()
    others = mask[(mask != 0) & (mask != 1)]
    if len(others):
        message = f"mask must be bool or have zeros and ones only, but received {others[0].item()}"
        raise ValueError(message)
    return mask.bool()


def _offsets(counts: Tensor) -> Tensor:
    return nn.functional.pad(counts.cumsum(0), (1, 0))


def _deal(
    rows: int, columns: int, present: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw a CSR pattern with equally many entries in each row, or one more."""
    share, rest = divmod(present, max(rows, 1))
    counts = torch.full((rows,), share, device="cpu")
    counts[torch.randperm(rows, generator=generator, device="cpu")[:rest]] += 1
    most = share + (rest > 0)
    parts = []
    for part in counts.split(max(1, BLOCK // max(columns, 1))):
        # The places of the largest of some random numbers are a draw without replacement.
        numbers = torch.rand(len(part), columns, generator=generator, device="cpu")
        drawn = numbers.topk(most).indices
        surplus = torch.arange(most, device="cpu") >= part.unsqueeze(1)
        drawn = drawn.masked_fill(surplus, columns).sort(dim=1).values
        parts.append(drawn[drawn < columns])
    return _offsets(counts), torch.cat(parts)


def without_data(rows: int, columns: int, present: int) -> Iterable[Tensor]:
    """Give the tensors of a pattern without numbers: nothing is drawn."""
    dtype = torch.int32 if max(rows, columns, present) < 2**31 else torch.int64
    shapes = ((rows + 1,), (present,), (columns + 1,), (present, 2))
    return [torch.empty(shape, dtype=dtype, device="meta") for shape in shapes]


def drawn(
    rows: int, columns: int, present: int, generator: torch.Generator | None
) -> Iterable[Tensor]:
    """Make a pattern with equally many entries in each row, or one more."""
    crow_indices, col_indices = _deal(rows, columns, present, generator)
    pattern: Iterable[Tensor] = csr_pattern(crow_indices, col_indices, columns)
    return pattern


def of_mask(mask: Tensor) -> Iterable[Tensor]:
    """Make the pattern of a checked mask."""
    rows, col_indices = mask.nonzero(as_tuple=True)
    crow_indices = _offsets(torch.bincount(rows, minlength=mask.shape[0]))
    pattern: Iterable[Tensor] = csr_pattern(crow_indices, col_indices, mask.shape[1])
    return pattern


def rows_of(crow_indices: Tensor, nnz: int) -> Tensor:
    """Give the row of each entry."""
    rows = torch.arange(len(crow_indices) - 1, device=crow_indices.device)
    return rows.repeat_interleave(crow_indices.diff(), output_size=nnz)


def uniform_bounds(fan_in: Tensor, nnz: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Give 1/√(fan-in), or 0 where there is none: of the row of each entry, and of each row."""
    bound = torch.where(fan_in > 0, fan_in.double().rsqrt(), 0).to(dtype)
    return bound.repeat_interleave(fan_in, output_size=nnz), bound


@dataclass(frozen=True)
class Successor:
    """What becomes of tensors with a number for each entry where the pattern changes."""

    stays: Tensor
    """Of each entry of the new pattern: whether it was there before."""
    sources: Tensor
    """The old places of those that were."""

    @classmethod
    def of(cls, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], columns: int) -> Self:
        """Find the entries of a pattern, given by its offsets and columns, in another one."""
        old, new = (
            rows_of(crow_indices, len(col_indices)) * columns + col_indices
            for crow_indices, col_indices in (before, after)
        )
        # A pattern that was loaded need not be sorted within its rows.
        old, order = old.sort()
        places = torch.searchsorted(old, new)
        found = places < len(old)
        stays = found.clone()
        stays[found] = old[places[found]] == new[found]
        return cls(stays, order[places[stays]])

    def carried(self, numbers: Tensor, new: Tensor | float = 0) -> Tensor:
        """Take over the numbers of the entries that stay; the others are new."""
        result = numbers.new_empty(len(self.stays))
        result[self.stays] = numbers[self.sources]
        result[~self.stays] = torch.as_tensor(new, dtype=numbers.dtype, device=numbers.device)
        return result
