"""Malformed structures, and a program that multiplies them.

A missing check would crash the process that runs it, so that test_malformed.py starts this file as
a program of its own, with the name of a backend. It prints a line for each attempt: its name, and
the error that came.
"""

import json
import sys

import backends
import torch

import spgrad

ROWS, COLUMNS = 3, 4
HUGE = 2**40  # far outside anything that is mapped
BIG = 2**31 - 1

CROW = [0, 2, 3, 5]
COL = [0, 3, 1, 0, 2]
# Name: (crow_indices, col_indices, what the error says).
CSR = {
    "starts above 0": ([1, 2, 3, 5], COL, "must start with 0, but received 1"),
    "starts below 0": ([-1, 2, 3, 5], COL, "must start with 0, but received -1"),
    "starts far below 0": ([-BIG, 2, 3, 5], COL, "must start with 0"),
    "decreases": ([0, 3, 2, 5], COL, "must not decrease, but received 3 at position 1 and then 2"),
    "is negative inside": ([0, -2, 3, 5], COL, "must not decrease"),
    "exceeds the entries inside": ([0, BIG, 3, 5], COL, "must not decrease"),
    "ends too early": ([0, 2, 3, 4], COL, "must end with the number of entries, 5, but received 4"),
    "ends too late": ([0, 2, 3, 6], COL, "must end with the number of entries, 5, but received 6"),
    "ends far too late": ([0, 2, 3, BIG], COL, "must end with the number of entries, 5"),
    "column is negative": (CROW, [0, 3, -1, 0, 2], "must be in [0, 4), but received -1"),
    "column is one too large": (CROW, [0, 3, 1, 0, 4], "must be in [0, 4), but received 4"),
    "column is far too large": (CROW, [BIG, 3, 1, 0, 2], "must be in [0, 4)"),
    "column is far too small": (CROW, [-BIG, 3, 1, 0, 2], "must be in [0, 4)"),
}
CSR_64 = {
    "starts far away": ([HUGE, 2, 3, 5], COL, "must start with 0"),
    "ends far away": ([0, 2, 3, HUGE], COL, "must end with the number of entries"),
    "ends at the entries modulo 2^32": ([0, 2, 3, 5 + 2**32], COL, "must end with the number"),
    "goes far away inside": ([0, HUGE, 3, 5], COL, "must not decrease"),
    "column is far away": (CROW, [0, 3, HUGE, 0, 2], "must be in [0, 4)"),
    "column is right modulo 2^32": (CROW, [0, 3, 1 + 2**32, 0, 2], "must be in [0, 4)"),
}
# Name: (rows, columns, what the error says); sorted by row but for the "unsorted" ones.
COO = {
    "row is negative": ([-1, 0, 1, 2], [0, 1, 2, 3], "rows must be in [0, 3), but received -1"),
    "row is one too large": ([0, 1, 2, 3], [0, 1, 2, 3], "rows must be in [0, 3), but received 3"),
    "row is far away": ([0, 1, 2, HUGE], [0, 1, 2, 3], "rows must be in [0, 3)"),
    "row is far below": ([-HUGE, 1, 2, 2], [0, 1, 2, 3], "rows must be in [0, 3)"),
    "column is negative": ([0, 1, 2, 2], [0, -1, 2, 3], "columns must be in [0, 4)"),
    "column is one too large": ([0, 1, 2, 2], [0, 1, 2, 4], "columns must be in [0, 4)"),
    "column is far away": ([0, 1, 2, 2], [0, HUGE, 2, 3], "columns must be in [0, 4)"),
    "row, unsorted": ([2, 3, 0, 1], [0, 1, 2, 3], "rows must be in [0, 3), but received 3"),
    "negative row, unsorted": ([2, 0, -1, 1], [0, 1, 2, 3], "rows must be in [0, 3)"),
    "column, unsorted": ([2, 0, 1, 1], [0, 4, 2, 3], "columns must be in [0, 4), but received 4"),
    "far row, unsorted": ([2, 0, HUGE, 1], [0, 1, 2, 3], "rows must be in [0, 3)"),
    "far column, unsorted": ([2, 0, 1, 1], [0, 1, 2, -HUGE], "columns must be in [0, 4)"),
}
# The same for the item of a batch of two.
ITEMS = {
    "item is negative": ([-1, 0, 1, 1], "batch must be in [0, 2), but received -1"),
    "item is one too large": ([0, 0, 1, 2], "batch must be in [0, 2), but received 2"),
    "item is far away": ([0, 0, 1, HUGE], "batch must be in [0, 2)"),
    "item, unsorted": ([1, 2, 0, 0], "batch must be in [0, 2), but received 2"),
}


def structures():
    """Yield name, arguments that make up the structure, whether batched, and the message."""
    for dtype in (torch.int32, torch.int64):
        for name, (crow, col, message) in (CSR if dtype == torch.int32 else CSR | CSR_64).items():
            bad = (torch.tensor(crow, dtype=dtype), torch.tensor(col, dtype=dtype))
            good = (torch.tensor(CROW, dtype=dtype), torch.tensor(COL, dtype=dtype))
            yield f"{dtype} csr {name}", bad, False, message
            batch = tuple(torch.stack(pair) for pair in zip(good, bad, strict=True))
            yield f"{dtype} csr {name} in item 1", batch, True, message
    for name, (rows, columns, message) in COO.items():
        yield f"coo {name}", (torch.tensor([rows, columns]),), False, message
        items = [0] * 4 if "unsorted" in name else [0, 0, 1, 1]
        yield f"coo {name} in a batch", (torch.tensor([items, rows, columns]),), True, message
    for name, (items, message) in ITEMS.items():
        yield f"coo {name}", (torch.tensor([items, [0, 1, 1, 2], [0, 1, 2, 3]]),), True, message
    yield from large_structures()


def large_structures():
    """Yield structures that several threads share, and rows long enough to be split."""
    entries = 200_000
    crow = torch.tensor([0, 100_000, 150_000, entries])
    col = torch.arange(entries) % COLUMNS
    for position in (0, 99_999, 100_000, entries - 1):
        for index in (-1, COLUMNS, HUGE):
            bad = col.clone()
            bad[position] = index
            name = f"column {index} at {position} of long rows"
            yield f"csr {name}", (crow, bad), False, f"received {index} at position {position}"
            rows = torch.arange(entries) * ROWS // entries
            yield f"coo {name}", (torch.stack([rows, bad]),), False, f"received {index} at"
            shuffled = torch.stack([rows.flip(0), bad])
            yield f"coo unsorted, {name}", (shuffled,), False, f"received {index} at"


def products(structure, batched, p):
    """Yield name and call of each product with the structure."""
    ops = torch.ops.spgrad
    batch = (2,) if batched else ()
    size = (*batch, ROWS, COLUMNS)
    values = torch.ones(structure[-1].shape if len(structure) == 2 else structure[0].shape[1])
    X, Y = torch.ones(*batch, ROWS, p), torch.ones(*batch, COLUMNS, p)
    if len(structure) == 2:
        yield "mm", lambda: ops.csr_mm(*structure, values, Y)
        yield "transposed", lambda: ops.csr_mm_transposed(*structure, values, COLUMNS, X)
        yield "sddmm", lambda: ops.csr_sddmm(*structure, X, Y)
        yield "backward", lambda: ops.csr_mm_backward(*structure, values, Y, X)
        A = torch.sparse_csr_tensor(*structure, values, size)
        yield "sparse_mm", lambda: spgrad.sparse_mm(A, Y)
        yield "sparse sddmm", lambda: spgrad.sddmm(A, X, Y)
        return
    yield "mm", lambda: ops.coo_mm(*structure, values, size, Y)
    yield "transposed", lambda: ops.coo_mm_transposed(*structure, values, size, X)
    yield "sddmm", lambda: ops.coo_sddmm(*structure, size, X, Y)
    yield "backward", lambda: ops.coo_mm_backward(*structure, values, size, Y, X)
    for flag in (None, True):
        A = torch.sparse_coo_tensor(*structure, values, size, is_coalesced=flag)
        yield f"sparse_mm, flag {flag}", lambda A=A: spgrad.sparse_mm(A, Y)
    yield "sparse sddmm", lambda: spgrad.sddmm(A, X, Y)


def spoiled_after_forward(structure, batched, wanted):
    """Compute a product with a good structure, spoil the structure, and go backward."""
    batch = (2,) if batched else ()
    size = (*batch, ROWS, COLUMNS)
    if len(structure) == 2:
        crow = torch.tensor(CROW, dtype=structure[0].dtype)
        col = torch.tensor(COL, dtype=structure[0].dtype)
        good = (crow, col) if not batched else (crow.repeat(2, 1), col.repeat(2, 1))
        A = torch.sparse_csr_tensor(*good, torch.ones(good[1].shape), size)
    else:
        good = (torch.zeros_like(structure[0]),)
        A = torch.sparse_coo_tensor(*good, torch.ones(good[0].shape[1]), size)
    A.requires_grad_("A" in wanted)
    B = torch.ones(*batch, COLUMNS, 3, requires_grad="B" in wanted)
    C = spgrad.sparse_mm(A, B)
    held = (A.crow_indices(), A.col_indices()) if len(structure) == 2 else (A._indices(),)
    for tensor, bad in zip(held, structure, strict=True):
        tensor.data.copy_(bad)  # .data: PyTorch's check of versions does not see this change
    C.sum().backward()


def attempts():
    """Yield name, message and call of everything that must fail."""
    for name, structure, batched, message in structures():
        for p in (1, 3, 40) if structure[-1].shape[-1] < 100 else (3,):
            for product, call in products(structure, batched, p):
                yield f"{product}, p = {p}: {name}", message, call
        if structure[-1].shape[-1] < 100:
            for wanted in ("A", "B", "AB"):
                yield (
                    f"backward to {wanted}, spoiled after forward: {name}",
                    message,
                    lambda s=structure, b=batched, w=wanted: spoiled_after_forward(s, b, w),
                )


def main():
    """Make all attempts on the backend that is named."""
    _keep = backends.use(sys.argv[1])
    torch.sparse.check_sparse_tensor_invariants.disable()
    torch.set_num_threads(2)
    for name, message, call in attempts():
        print(json.dumps([name, message]), flush=True)  # before the attempt, in case it crashes
        try:
            call()
        except RuntimeError as error:
            print(json.dumps(str(error)), flush=True)
        else:
            print(json.dumps(None), flush=True)


if __name__ == "__main__":
    main()
