"""The largest numbers of a gradient that is never there as a whole."""

import torch
from torch import Tensor

from spgrad.nn._layer_pattern import BLOCK, rows_of


def largest_absent(
    samples: Tensor, of_output: Tensor, crow_indices: Tensor, col_indices: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Find the `k` largest of `of_output.T @ samples` outside a pattern, some rows at a time."""
    rows, columns = of_output.shape[1], samples.shape[1]
    entry_rows = rows_of(crow_indices, len(col_indices))
    places = torch.empty(0, dtype=torch.int64, device=samples.device)
    values = samples.new_empty(0)
    step = max(1, BLOCK // max(columns, 1))
    for first in range(0, rows, step):
        product = of_output[:, first : first + step].T @ samples
        start, end = crow_indices[[first, first + len(product)]].tolist()
        magnitudes = product.abs()
        # Below every magnitude: no present weight is among the largest.
        magnitudes[entry_rows[start:end] - first, col_indices[start:end]] = -1
        absent = product.numel() - (end - start)
        found = magnitudes.flatten().topk(min(k, absent), sorted=False).indices
        places = torch.cat([places, found + first * columns])
        values = torch.cat([values, product.flatten()[found]])
        kept = values.abs().topk(min(k, len(values))).indices
        places, values = places[kept], values[kept]
    return torch.stack([places // max(columns, 1), places % max(columns, 1)]), values
