"""What the tests are parametrised with: kinds, sizes, dtypes, widths, strides, operators."""

import pytest
import torch
from oracle import BATCHED, DTYPES, KINDS, PLAIN, is_csr

COO_KINDS = tuple(kind for kind in KINDS if not is_csr(kind))
# Without entries at the same place, so that PyTorch can compare and add gradients entry by entry.
DISTINCT_KINDS = tuple(kind for kind in KINDS if kind != "uncoalesced")
# One of each code path: entries as they are, and entries that are sorted by row first.
FORMS = ("csr32", "uncoalesced")
# The same with the index dtype and the order that COO has.
LAYOUTS = ("coalesced", "uncoalesced", "csr32")

BOTH_SIZES = {"plain": PLAIN, "batched": BATCHED}
SIZES = pytest.mark.parametrize("size", BOTH_SIZES.values(), ids=BOTH_SIZES)
ALL_KINDS = pytest.mark.parametrize("kind", KINDS)
ALL_LAYOUTS = pytest.mark.parametrize("kind", LAYOUTS)
ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
BOTH_FORMS = pytest.mark.parametrize("kind", FORMS)

# Round the widths of vectors and tiles of all dtypes and instruction sets.
WIDTHS = (1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100, 257)

# Size, entries and p.
EMPTY = {
    "no rows": ((0, 5), 0, 3),
    "no inner size": ((4, 0), 0, 3),
    "no columns": ((4, 5), 8, 0),
    "no entries": ((4, 5), 0, 3),
    "nothing": ((0, 0), 0, 0),
    "no items": ((0, 4, 5), 0, 3),
    "items without rows": ((2, 0, 5), 0, 3),
    "items without inner size": ((2, 4, 0), 0, 3),
    "items without columns": ((2, 4, 5), 16, 0),
    "items without entries": ((2, 4, 5), 0, 3),
}

# Size and entries of matrices that several threads share with B of 20 columns.
LARGE = {
    "many rows": ((3000, 2000), 60_000),
    "long rows": ((3, 20_000), 40_000),
    "long columns": ((20_000, 3), 40_000),
}


def transposed(dense):
    """Lay the last two dimensions out the other way round."""
    return dense.mT.contiguous().mT


def with_batch_last(dense):
    """Lay the first dimension out as the innermost one."""
    return dense.movedim(0, -1).contiguous().movedim(-1, 0)


def every_second_column(dense):
    """Take the columns out of a tensor with twice as many."""
    return dense.repeat_interleave(2, dim=-1)[..., ::2]


def every_second_row(dense):
    """Take the rows out of a tensor with twice as many."""
    return dense.repeat_interleave(2, dim=-2)[..., ::2, :]


def off_the_start(dense):
    """Take a block out of the middle of a larger tensor."""
    return torch.nn.functional.pad(dense, (1, 2, 3, 4), value=77.0)[..., 3:-4, 1:-2]


def equal_columns(dense):
    """Expand the first column."""
    return dense[..., :1].expand(dense.shape)


def equal_rows(dense):
    """Expand the first row."""
    return dense[..., :1, :].expand(dense.shape)


def equal_items(dense):
    """Expand the first item, or the first number of a plain matrix."""
    return dense[tuple(slice(1) for _ in range(dense.dim() - 1))].expand(dense.shape)


def one_number(dense):
    """Expand one number."""
    return dense.flatten()[:1].expand(dense.numel()).view(dense.shape)


RESTRIDES = (
    transposed,
    with_batch_last,
    every_second_column,
    every_second_row,
    off_the_start,
    equal_columns,
    equal_rows,
    equal_items,
    one_number,
)
