"""Structures that are symmetric, and nearly so: CUDA needs no sort for gradients of the former.

Large enough that it looks whether they are.
"""

import pytest
import torch

import spgrad

csr_mm_transposed = torch.ops.spgrad.csr_mm_transposed.default
DISTANCES = (-130, -33, -1, 0, 1, 33, 130)
P = 3
TILE = 2048
"""Entries of a tile of the sort; one for each multiprocessor is enough."""


@pytest.fixture
def tiles(backend):
    """Count the multiprocessors; the emulation has 4."""
    return torch.cuda.get_device_properties(0).multi_processor_count if backend == "cuda" else 4


@pytest.fixture
def rows(tiles):
    """Give a number of rows that is large enough."""
    return 2 * TILE * tiles // len(DISTANCES)


def band(n, index):
    """Make offsets and column indices of a band, without some of its entries."""
    row = torch.arange(n).repeat_interleave(len(DISTANCES))
    col = row + torch.tensor(DISTANCES).repeat(n)
    # Whether an entry is left out depends on row + column, so that its image is, too.
    kept = (col >= 0) & (col < n) & ((row + col) % 11 != 0)
    crow = torch.zeros(n + 1, dtype=torch.int64)
    crow[1:] = torch.bincount(row[kept], minlength=n).cumsum(0)
    return crow.to(index), col[kept].to(index)


def swapped(col, k):
    """Swap the entries k and k + 1."""
    changed = col.clone()
    changed[k], changed[k + 1] = col[k + 1], col[k]
    return changed


def moved(col, k):
    """Move entry k to the column beside it."""
    changed = col.clone()
    changed[k] += 1
    return changed


CHANGES = {
    "symmetric": lambda col: col,
    "two entries swapped": lambda col: swapped(col, 1000),
    "first entry moved": lambda col: moved(col, 1),
    "last entries moved": lambda col: moved(col, len(col) - 2),
}


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("change", CHANGES)
def test_gradients_and_patterns(tiles, rows, index, change):
    crow, col = band(rows, index)
    col = CHANGES[change](col)
    row = torch.arange(rows).repeat_interleave(crow.diff().long())
    assert len(col) >= TILE * tiles
    values = torch.randn(len(col), dtype=torch.float64, requires_grad=True)
    B = torch.randn(rows, P, dtype=torch.float64, requires_grad=True)
    G = torch.randn(rows, P, dtype=torch.float64)
    dA, dB = torch.autograd.grad(spgrad.csr_mm(crow, col, values, B), (values, B), G)
    with torch.no_grad():
        right = torch.zeros_like(B).index_add(0, col.long(), values[:, None] * G[row])
        torch.testing.assert_close(dB, right)
        torch.testing.assert_close(dA, (G[row] * B[col.long()]).sum(1))
        assert torch.equal(csr_mm_transposed(crow, col, values, rows, G), dB)

    pattern = spgrad.Pattern.from_csr(crow, col, (rows, rows))
    order = torch.argsort(col, stable=True)
    _, _, column_offsets, column_entries = pattern._tensors
    assert torch.equal(column_entries, torch.stack([row[order], order], 1).int())
    assert torch.equal(column_offsets[1:].long(), torch.bincount(col, minlength=rows).cumsum(0))


@pytest.mark.parametrize("place", [0, 5000, -1])
def test_bad_entries_of_a_symmetric_structure_are_told(rows, place):
    crow, col = band(rows, torch.int32)
    k = place % len(col)
    col[k] = rows
    B = torch.ones(rows, P)
    received = rf"but received {rows} at position {k}"
    with pytest.raises(RuntimeError, match=received):
        csr_mm_transposed(crow, col, torch.ones(len(col)), rows, B)
    with pytest.raises(RuntimeError, match=received):
        spgrad.Pattern.from_csr(crow, col, (rows, rows))


@pytest.mark.parametrize("place", [0, 700, -1])
def test_bad_offsets_of_a_symmetric_structure_are_told(rows, place):
    crow, col = band(rows, torch.int64)
    crow[place] += 3000
    with pytest.raises(RuntimeError, match="crow_indices must"):
        csr_mm_transposed(crow, col, torch.ones(len(col)), rows, torch.ones(rows, P))
