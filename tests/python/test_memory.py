"""Peak memory of large products, measured in a process of its own."""

import json
from pathlib import Path

import backends
import pytest
from programs import run_python

ROWS, ENTRIES, P = 200_000, 1_000_000, 64

PROGRAM = f"""
import json
import sys
from pathlib import Path
import torch

sys.path.append(sys.argv[2])
import backends
import spgrad

_keep = backends.use(sys.argv[1])

def status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024

n, nnz, p = {ROWS}, {ENTRIES}, {P}
torch.sparse.check_sparse_tensor_invariants.disable()
torch.manual_seed(0)
indices = torch.randint(0, n, (2, nnz))
order = (indices[0] * n + indices[1]).argsort()
rows, columns = indices[:, order]
crow = torch.searchsorted(rows, torch.arange(n + 1)).int()

def make(kind):
    if kind == "csr":
        return torch.sparse_csr_tensor(crow, columns.int(), torch.ones(nnz), (n, n))
    places = indices if kind == "uncoalesced" else torch.stack([rows, columns])
    return torch.sparse_coo_tensor(places, torch.ones(nnz), (n, n))

def peak(kind, wanted):
    spgrad.empty_cache()
    A = make(kind).requires_grad_("A" in wanted)
    B = torch.ones(n, p, requires_grad="B" in wanted)
    if B.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before, highest = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, highest = status("VmRSS"), lambda: status("VmHWM")
    C = spgrad.sparse_mm(A, B)
    C.backward(torch.ones_like(C))
    return highest() - before

spgrad.sparse_mm(make("csr").requires_grad_(), torch.ones(n, 1)).sum().backward()  # loads all
peaks = {{
    kind + wanted: peak(kind, wanted)
    for kind in ("csr", "coo", "uncoalesced") for wanted in ("A", "B", "AB")
}}
print(json.dumps(peaks))
"""

# C, its gradient and the gradient of B, and what the entries themselves need, generously: a sorted
# copy, gradients, offsets, counters. Far from entries by P or rows by columns.
DENSE = 4 * ROWS * P
ALLOWED = {"A": 2 * DENSE, "B": 3 * DENSE, "AB": 3 * DENSE}
FOR_ENTRIES = 60 * ENTRIES


@pytest.fixture(scope="module")
def peaks(backend):
    """Measure the growth up to the peak, for each kind and wanted gradients."""
    # Arrays go back to the system as soon as they are freed, which makes peaks comparable.
    done = run_python(
        *("-c", PROGRAM, backend, Path(backends.__file__).parent), MALLOC_MMAP_THRESHOLD_="65536"
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("wanted", ALLOWED)
@pytest.mark.parametrize("kind", ["csr", "coo", "uncoalesced"])
def test_peak_memory_is_that_of_the_results(peaks, kind, wanted):
    peak = peaks[kind + wanted]
    assert peak > DENSE  # the measurement works
    assert peak < ALLOWED[wanted] + FOR_ENTRIES
    assert ALLOWED[wanted] + FOR_ENTRIES < 4 * ENTRIES * P


LEAST_SQUARES = """
import json
import sys
from pathlib import Path
import torch

import spgrad

def status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024

n, m, nnz = 13_000, 6_500, 1_950_000
torch.manual_seed(0)
rows, columns = torch.randint(n, (nnz,)).sort().values, torch.randint(m, (nnz,)).int()
offsets = torch.searchsorted(rows, torch.arange(n + 1)).int()
pattern = spgrad.Pattern.from_csr(offsets, columns, (n, m))
del rows
a_row = nnz // n
band = (torch.arange(n).div(3, rounding_mode="floor").view(n, 1) + torch.arange(a_row)).flatten()
in_order = spgrad.Pattern.from_csr(torch.arange(0, nnz + 1, a_row).int(), band.int(), (n, m))
del band
values = torch.randn(nnz, dtype=torch.float64, requires_grad=True)
b = torch.randn(n, dtype=torch.float64)

def peak(function):
    function()
    spgrad.empty_cache()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    kept = function()
    return (status("VmHWM") - before) / nnz

plain = values.detach()
print(json.dumps({
    "forward": peak(lambda: pattern.lstsq(plain, b, tol=1e-6)),
    "both": peak(lambda: torch.autograd.grad(pattern.lstsq(values, b, tol=1e-6).sum(), values)),
    "without a pattern": peak(lambda: spgrad.csr_lstsq(offsets, columns, plain, b, m, tol=1e-6)),
    "damped": peak(lambda: pattern.lstsq(plain, b, damp=100.0, tol=1e-6)),
    "scaled": peak(lambda: in_order.lstsq(plain, b, scale="columns", tol=1e-6)),
    "scaled by sums": peak(lambda: pattern.lstsq(plain, b, scale="columns", tol=1e-6)),
}))
"""

# A copy by column is a value and an index, 12 bytes. That is enough for the gradient, a result.
# Without a pattern, there is its half by column; damping has a structure and values with its rows,
# and scaling has values. Where entries may be listed in parts, it sorts their places before.
LEAST = {
    "forward": 12,
    "both": 12,
    "without a pattern": 20,
    "damped": 32,
    "scaled": 20,
    "scaled by sums": 64,
}


@pytest.mark.of_kernels
def test_least_squares_take_a_copy_of_the_matrix():
    done = run_python("-c", LEAST_SQUARES, MALLOC_MMAP_THRESHOLD_="65536")
    assert done.returncode == 0, done.stderr[-4000:]
    peaks = json.loads(done.stdout)
    assert peaks.keys() == LEAST.keys()
    for name, least in LEAST.items():
        assert 8 < peaks[name] < least + 2, name  # no less: the measurement works
