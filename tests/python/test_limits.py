"""Sizes beyond 2^31, and the end of memory."""

from pathlib import Path
from textwrap import dedent

import pytest
from programs import output_of

GIGABYTE = 1 << 30


def available_memory():
    """Read how many bytes processes may still take: of the machine, and of a container."""
    fields = dict(
        line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    )
    available = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and (most := limit.read_text(encoding="ascii").strip()) != "max":
        available = min(available, int(most) - int(used.read_text(encoding="ascii")))
    return available


def needs(gigabytes):
    """Skip a test where memory does not suffice."""
    return pytest.mark.skipif(
        available_memory() < gigabytes * GIGABYTE, reason=f"needs {gigabytes} GiB of free memory"
    )


# Memory that is only read costs nothing as long as it is zero: all of it is the same page. NumPy
# asks for such memory, PyTorch writes its zeros.
LARGE = """
import sys
import numpy as np

dtype = torch.bfloat16
operators = torch.ops.spgrad


def zeros(*size, dtype=torch.bfloat16):
    width = torch.empty(0, dtype=dtype).itemsize
    return torch.from_numpy(np.zeros(size, f"i{width}")).view(dtype)


def check(actual, expected):
    assert actual == expected, (actual, expected)
    print("right")
"""


@needs(12)
@pytest.mark.long
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_dense_matrices_of_more_than_two_billion_numbers(index_dtype):
    program = """
    index_dtype = getattr(torch, sys.argv[1])
    n, p = 2**19 + 1, 2**12
    large = zeros(n, p)
    assert large.numel() > 2**31
    large[-1], large[0, -1] = 7, 4
    small = torch.zeros(3, p, dtype=dtype)
    small[0], small[2, -1] = 1, 5
    values = torch.tensor([2.0, 3.0], dtype=dtype)

    # One entry in the first of n rows, and one in the last.
    crow = torch.ones(n + 1, dtype=index_dtype)
    crow[0], crow[n] = 0, 2
    col = torch.tensor([2, 0], dtype=index_dtype)
    C = spgrad.csr_mm(crow, col, values, small)
    check(C.shape, (n, p))
    check((C[0, -1].item(), C[0, :-1].any().item()), (10, False))
    check(C[1:-1].view(torch.int64).any().item(), False)  # which is faster
    check(C[-1].eq(3).all().item(), True)
    del C
    check(operators.csr_sddmm(crow, col, large, small).tolist(), [4 * 5, 7 * p])
    dB = operators.csr_mm_transposed(crow, col, values, 3, large)
    check((dB[2, -1].item(), dB[2, :-1].any().item(), dB[1].any().item()), (8, False, False))
    check(dB[0].eq(21).all().item(), True)

    # The transpose: entries in the last and the first of n columns.
    crow = torch.arange(3, dtype=index_dtype)
    col = torch.tensor([n - 1, 0], dtype=index_dtype)
    C = spgrad.csr_mm(crow, col, values, large)
    check((C[0].eq(14).all().item(), C[1, -1].item()), (True, 12))
    dA, dB = operators.csr_mm_backward(crow, col, values, large, torch.ones(2, p, dtype=dtype))
    check(dA.tolist(), [7 * p, 4])
    check(dB.shape, (n, p))
    check((dB[-1].eq(2).all().item(), dB[0].eq(3).all().item()), (True, True))
    check(dB[1:-1].view(torch.int64).any().item(), False)
    """
    assert set(output_of(LARGE + dedent(program), index_dtype)) == {"right"}


@needs(16)
@pytest.mark.long
def test_matrices_of_more_than_two_billion_entries():
    # A gradient of B would sort 2^31 entries of 16 bytes each.
    program = """
    nnz = 2**31 + 5
    places = [0, 2**31 - 1, 2**31 + 1, nnz - 1]
    crow = torch.tensor([0, 1, 2**31 + 1, nnz])  # places in the rows 0, 1, 2 and 2
    col = zeros(nnz, dtype=torch.int64)
    values = zeros(nnz)
    col[places] = torch.tensor([1, 2, 3, 4])
    values[places] = torch.tensor([5.0, 6, 7, 8]).to(dtype)
    B = torch.tensor([[0.0], [1], [2], [3], [4]]).to(dtype)
    check(spgrad.csr_mm(crow, col, values, B).tolist(), [[5], [12], [53]])
    X = torch.tensor([[1.0], [2], [3]]).to(dtype)
    dA = operators.csr_sddmm(crow, col, X, B)
    check(dA.shape, (nnz,))
    check(dA[places].tolist(), [1, 4, 9, 12])
    # The others are zero: numbers of 64 bits are counted faster.
    check(dA[:2**31].view(torch.int64).count_nonzero().item(), 2)
    check(dA[2**31:].count_nonzero().item(), 2)
    col[-1] = 5
    try:
        spgrad.csr_mm(crow, col, values, B)
    except RuntimeError as error:
        check(f"must be in [0, 5), but received 5 at position {nnz - 1}" in str(error), True)
    """
    done = output_of(LARGE + dedent(program))
    assert done == ["right"] * 6


# Sizes n, m, p and entries for which the result in question takes 64 MiB or more: the C library may
# have less than that left of what it reserved for a thread.
SCARCE = {
    "C": (2**17, 10, 2**10, 1000),
    "B": (10, 2**17, 2**10, 1000),
    "A": (4096, 4096, 2, 2**24),
}


@pytest.mark.parametrize("wanted", SCARCE)
def test_the_end_of_memory_is_an_error_after_which_all_goes_on(wanted):
    program = """
    import resource
    import sys
    from pathlib import Path

    wanted, *sizes = sys.argv[1:]
    torch.set_num_threads(2)
    torch.ones(2**22).relu_()  # the threads take memory of their own


    def make(layout, n, m, p, nnz):
        rows, columns = torch.randint(n, (nnz,)).sort().values, torch.randint(m, (nnz,))
        A = torch.sparse_coo_tensor(torch.stack([rows, columns]), torch.ones(nnz), (n, m))
        if layout != "coo":
            crow = torch.searchsorted(rows, torch.arange(n + 1))
            A = torch.sparse_csr_tensor(crow, columns, torch.ones(nnz), (n, m))
        leaf = A if layout != "pattern" else A.values()
        multiply = spgrad.Pattern(A).mm if layout == "pattern" else spgrad.sparse_mm
        B = torch.ones(m, 1).expand(m, p)
        return multiply, leaf.requires_grad_(wanted == "A"), B.requires_grad_(wanted == "B")


    def values(tensor):
        if tensor.layout == torch.strided:
            return tensor
        return tensor.values() if tensor.layout == torch.sparse_csr else tensor._values()


    def results(multiply, A, B):
        C = multiply(A, B)
        if wanted == "C":
            return C
        return torch.autograd.grad(C.sum(), A if wanted == "A" else B)[0]


    def limit(extra):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + extra, resource.RLIM_INFINITY))


    for layout in ("csr", "coo", "pattern"):
        small, large = make(layout, 50, 40, 3, 500), make(layout, *map(int, sizes))
        expected = results(*small)
        spgrad.empty_cache()
        limit(24 << 20)
        for _ in range(3):
            try:
                results(*large)
            except RuntimeError as error:
                assert "allocate memory" in str(error) or "not enough memory" in str(error), error
            else:
                raise AssertionError(layout)
            assert torch.equal(values(results(*small)), values(expected))
        limit(4 << 30)
        found = values(results(*large))
        columns = large[2].shape[1]
        # Each element of a result is a sum of ones.
        print(found.sum().item() == large[1].sum().item() * columns if wanted != "A"
              else found.eq(columns).all().item())
        del found
    """
    assert output_of(dedent(program), wanted, *SCARCE[wanted]) == ["True"] * 3
