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

n, m, nnz = 40_000, 20_000, 6_000_000
torch.manual_seed(0)
rows, columns = torch.randint(n, (nnz,)).sort().values, torch.randint(m, (nnz,))
pattern = spgrad.Pattern.from_csr(torch.searchsorted(rows, torch.arange(n + 1)), columns, (n, m))
values = torch.randn(nnz, dtype=torch.float64, requires_grad=True)
b = torch.randn(n, dtype=torch.float64)

def peak(function):
    function()
    spgrad.empty_cache()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    kept = function()
    return (status("VmHWM") - before) / nnz

forward = peak(lambda: pattern.lstsq(values.detach(), b, tol=1e-6))
both = peak(lambda: torch.autograd.grad(pattern.lstsq(values, b, tol=1e-6).sum(), values))
print(json.dumps([forward, both]))
"""


def test_least_squares_take_a_copy_of_the_matrix_and_one_of_the_gradient():
    # By column: a value and an index. Then the gradient and a term of it.
    done = run_python("-c", LEAST_SQUARES, MALLOC_MMAP_THRESHOLD_="65536")
    assert done.returncode == 0, done.stderr[-4000:]
    forward, both = json.loads(done.stdout)
    assert forward > 8  # the measurement works
    assert forward < 12.5
    assert both < 16.5
