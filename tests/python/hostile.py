"""Structures that hypothesis spoils, and a program that multiplies them.

A missing check may crash the process that runs it, so that test_hostile.py starts this file as a
program of its own, with the names of a property and of a backend, and a number of examples. The
last line of its output is the last case that was tried.
"""

import sys
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

import backends
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import integers

import spgrad  # noqa: F401 - registers the operators

PROFILE = settings(deadline=None, derandomize=True, database=None)
OPERATORS = torch.ops.spgrad
INDEX_DTYPES = st.sampled_from([torch.int32, torch.int64])


@dataclass
class Case:
    """A structure, its shape, and what is wrong with it, in the words of the error."""

    tensors: list[torch.Tensor]
    size: tuple[int, ...]
    p: int
    fault: str | None
    positions: list[tuple[int, ...]] = field(default_factory=list)
    """Item, if batched, row and column of each entry of a sound structure."""

    def __repr__(self):
        lists = [tensor.tolist() for tensor in self.tensors]
        dtypes = [tensor.dtype for tensor in self.tensors]
        return f"{lists} {dtypes} {self.size} p={self.p}: {self.fault}"


@st.composite
def sizes(draw):
    """Draw (n, m) or (b, n, m), and p round the widths of the kernels' tiles."""
    batch = draw(st.one_of(st.just(()), st.tuples(st.integers(0, 3))))
    n, m = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    return (*batch, n, m), draw(st.sampled_from([0, 1, 2, 3, 8, 17, 40]))


def spoil(draw, numbers, bounds, dtype):
    """Replace a few numbers by others of interest."""
    info = torch.iinfo(dtype)
    far = [info.min, info.min + 1, info.max, info.max - 1, 2**31 - 1, -(2**31), 2**30]
    if dtype == torch.int64:
        far += [2**31, 2**32, 2**32 + 1, 2**40, -(2**40), 2**61, 2**62, 2**63 - 8]
    near = [x + d for x in (0, *bounds) for d in (-1, 0, 1)]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 5]))):
        if numbers:
            place = draw(st.integers(0, len(numbers) - 1))
            numbers[place] = draw(st.sampled_from(near + far))
    return numbers


def restride(draw, tensor):
    """Lay the same numbers out in another way."""
    way = draw(st.sampled_from(["contiguous", "gaps", "transposed", "offset"]))
    if way == "gaps":
        return tensor.repeat_interleave(2, -1)[..., ::2]
    if way == "transposed":
        return tensor.mT.contiguous().mT if tensor.dim() == 2 else tensor
    if way == "offset":
        return torch.nn.functional.pad(tensor, (2, 1), value=-7)[..., 2:-1]
    return tensor


def fault_of_csr(crow, col, m, item):
    """Say what is wrong with one CSR matrix."""
    if crow[0] != 0:
        return f"crow_indices{item} must start with 0, but received {crow[0]}"
    for row, (begin, end) in enumerate(pairwise(crow)):
        if end < begin:
            return (
                f"crow_indices{item} must not decrease, but received {begin} at position {row} "
                f"and then {end}"
            )
    if crow[-1] != len(col):
        return (
            f"crow_indices{item} must end with the number of entries, {len(col)}, "
            f"but received {crow[-1]}"
        )
    return fault_of_indices(col, m, f"col_indices{item}")


def fault_of_indices(indices, bound, name):
    """Name the first index that is out of bounds."""
    for position, index in enumerate(indices):
        if not 0 <= index < bound:
            return f"{name} must be in [0, {bound}), but received {index} at position {position}"
    return None


@st.composite
def csr_cases(draw):
    """Draw a sound or spoiled structure in CSR."""
    size, p = draw(sizes())
    *batch, n, m = size
    dtypes = [draw(INDEX_DTYPES) for _ in range(2)]
    # Kernels for CUDA read offsets in the dtype of the columns, and tell what they have read.
    narrow = min(dtypes, key=lambda dtype: dtype.itemsize)
    nnz = draw(st.integers(0, 12)) if n and m else draw(st.sampled_from([0, 0, 0, 2]))
    crows, cols, positions, faults = [], [], [], []
    for item in range(prod(batch)):
        cuts = sorted(draw(st.lists(st.integers(0, nnz), min_size=n, max_size=n)))
        crow = [0, *cuts[1:], nnz] if n else [0]
        col = draw(st.lists(st.integers(0, max(m - 1, 0)), min_size=nnz, max_size=nnz))
        crow, col = spoil(draw, crow, (n, nnz), narrow), spoil(draw, col, (m,), dtypes[1])
        crows.append(crow)
        cols.append(col)
        fault = fault_of_csr(crow, col, m, f" of item {item}" if batch else "")
        faults.append(fault)
        if fault is None:
            rows = [row for row in range(n) for _ in range(crow[row], crow[row + 1])]
            positions += [(item, *place)[-len(size) :] for place in zip(rows, col, strict=True)]
    tensors = [
        restride(draw, torch.tensor(lists, dtype=dtype).reshape(*batch, length))
        for lists, length, dtype in ((crows, n + 1, dtypes[0]), (cols, nnz, dtypes[1]))
    ]
    return Case(tensors, size, p, next(filter(None, faults), None), positions)


@st.composite
def coo_cases(draw):
    """Draw a sound or spoiled structure in COO, sorted or not."""
    size, p = draw(sizes())
    count = draw(st.integers(0, 12)) if prod(size) else draw(st.sampled_from([0, 0, 0, 2]))
    entries = [
        tuple(draw(st.integers(0, max(extent - 1, 0))) for extent in size) for _ in range(count)
    ]
    if draw(st.booleans()):
        entries.sort()
    dtype = draw(INDEX_DTYPES)
    indices = [
        spoil(draw, [entry[dim] for entry in entries], (extent,), dtype)
        for dim, extent in enumerate(size)
    ]
    names = ("indices of the batch", "indices of rows", "indices of columns")[-len(size) :]
    faults = (
        f"{name} must be in [0, {extent}), but received {index[k]} at position {k}"
        for k in range(count)
        for name, extent, index in zip(names, size, indices, strict=True)
        if not 0 <= index[k] < extent
    )
    tensor = torch.tensor(indices, dtype=dtype).reshape(len(size), count)
    positions = list(zip(*indices, strict=True))
    return Case([restride(draw, tensor)], size, p, next(faults, None), positions)


def outcome(operator, *arguments):
    """Call an operator, and give its result or what it says."""
    try:
        return operator(*arguments)
    except RuntimeError as error:
        return str(error).splitlines()[0]


def check(case, form):
    """Multiply, and compare with the dense matrix, or with the fault."""
    print(case, flush=True)
    *batch, n, m = case.size
    # CSR tells its shape but for the number of columns, which the products know from B.
    shape, columns = ((case.size,), (case.size,)) if form == "coo" else ((), (m,))
    values = integers(*case.tensors[-1].shape[form == "coo" :], seed=1)
    X, Y = integers(*batch, n, case.p, seed=2), integers(*batch, m, case.p, seed=3)
    calls = {
        "mm": (values, *shape, Y),
        "mm_transposed": (values, *columns, X),
        "sddmm": (*shape, X, Y),
        "mm_backward": (values, *shape, Y, X),
        "pattern": columns,
    }
    found = {
        name: outcome(getattr(OPERATORS, f"{form}_{name}"), *case.tensors, *arguments)
        for name, arguments in calls.items()
    }
    if case.fault:
        for name, message in found.items():
            assert message == case.fault, name
        return
    places = torch.tensor(case.positions, dtype=torch.int64).reshape(-1, len(case.size)).unbind(1)
    dense = torch.zeros(case.size, dtype=torch.float64).index_put_(
        places, values.flatten(), accumulate=True
    )
    dA, dB = (X @ Y.mT)[places], dense.mT @ X
    indices = OPERATORS.pattern_indices(*found["pattern"], case.size)
    assert torch.equal(indices, torch.stack(places))
    by_pattern = OPERATORS.pattern_mm(*found["pattern"], case.size, values.flatten(), Y)
    for actual, expected in (
        (found["mm"], dense @ Y),
        (by_pattern, dense @ Y),
        (found["mm_transposed"], dB),
        (found["sddmm"], dA),
        (found["mm_backward"][0], dA),
        (found["mm_backward"][1], dB),
    ):
        assert torch.equal(actual, expected.reshape(actual.shape))


@given(csr_cases())
def csr(case):
    """Multiply a structure in CSR."""
    check(case, "csr")


@given(coo_cases())
def coo(case):
    """Multiply a structure in COO."""
    check(case, "coo")


def main():
    """Try a property on the backend that is named."""
    name, backend, examples = sys.argv[1:]
    _keep = backends.use(backend)
    settings(PROFILE, max_examples=int(examples))({"csr": csr, "coo": coo}[name])()


if __name__ == "__main__":
    main()
