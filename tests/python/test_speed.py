"""Guards against a loss of speed, by ratios within one run and by counts, never by seconds.

The margins are wide: the ratios are three times as high on a quiet machine.
"""

from functools import partial

import pytest
from profiles import allocated

import spgrad
from benchmarks.operator import contenders, modes, timing, workloads

PACE = timing.Pace(seconds=0.0, least_rounds=15, most_rounds=15, sample=0.0)


@pytest.fixture(scope="module")
def stencil():
    """Make a finite-element matrix of 360,000 entries, with 64 columns in B."""
    return workloads.stencil((24, 24, 25), 64)


def prepare(problem, mode, name):
    """Make the call of a contender."""
    return modes.make_call(contenders.find(name).prepare(problem), problem, mode)


def medians(calls):
    """Time calls in turns, and return the median of each."""
    for call in calls.values():
        call()  # the first one takes longer
    times = timing.time_rounds(calls, PACE)
    return [times[name].median for name in calls]


def allocations(function):
    """Count the allocations of a call, and their bytes."""
    function()
    sizes = [size for size in allocated(function) if size > 0]
    assert sizes  # the profiler works
    return len(sizes), sum(sizes)


@pytest.mark.timed
@pytest.mark.parametrize(
    ("mode", "least"), [(modes.Mode.FORWARD, 1.2), (modes.Mode.BOTH, 2.0)], ids=str
)
def test_the_product_is_faster_than_that_of_pytorch(stencil, mode, least, set_threads):
    set_threads(1)
    names = ("spgrad CSR int32", "torch.sparse.mm CSR int32")
    ours, theirs = medians({name: prepare(stencil, mode, name) for name in names})
    assert theirs > least * ours


@pytest.mark.timed
def test_vectors_are_faster_than_the_baseline_set(stencil, instruction_set, set_threads):
    set_threads(1)
    multiply = prepare(stencil, modes.Mode.FORWARD, "spgrad CSR int32")

    def multiply_with(name):
        spgrad.use_instruction_set(name)
        return multiply()

    names = {"chosen": instruction_set, "baseline": "baseline"}
    chosen, baseline = medians({key: partial(multiply_with, name) for key, name in names.items()})
    assert chosen < 1.5 * baseline


def test_a_pattern_sorts_nothing(stencil):
    nnz = stencil.entries

    def step(name):
        return allocations(prepare(stencil, modes.Mode.BOTH, name))

    csr_count, csr_bytes = step("spgrad csr_mm")
    pattern_count, pattern_bytes = step("spgrad Pattern")
    results = stencil.G.nbytes + stencil.B.nbytes + stencil.values.nbytes
    assert pattern_bytes < results + nnz
    assert csr_bytes - pattern_bytes >= 8 * nnz  # the sorted entries
    assert pattern_count < csr_count


def test_a_small_product_makes_few_allocations():
    problem = workloads.uniform((64, 32), 256, 16)
    # C; dA and dB, counters, offsets and sorted entries; what autograd adds is not ours.
    count, _ = allocations(prepare(problem, modes.Mode.BOTH, "spgrad csr_mm"))
    assert count <= 10
