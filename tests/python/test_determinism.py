"""The same bits for any number of threads, run after run, on the matrices of the benchmark."""

from functools import partial

import pytest
import torch

import spgrad
from benchmarks.operator import contenders, modes
from benchmarks.operator.layouts import coo_tensor, specified
from benchmarks.operator.workloads import rmat, stencil, workloads

THREADS = (1, 2, 3, 8, 8)
# Large enough for several threads; the small power law has no rows that are split among them. Those
# of the full benchmark take ten times as long.
LARGE = {
    workload.name: workload.make
    for workload in workloads("quick")
    if workload.group not in ("narrow", "power_law")
}
LARGE["power_law"] = partial(rmat, 14, 800_000, 16)
# The width stands for all that fill no vector.
LARGE["narrow"] = partial(stencil, (24, 24, 23), 3)
FULL = {
    f"full {workload.name}": workload.make
    for workload in workloads("full")
    if workload.group != "narrow" or workload.name == "narrow_3"
}
PROBLEMS = [pytest.param(make, id=name) for name, make in LARGE.items()]
PROBLEMS += [pytest.param(make, id=name, marks=pytest.mark.long) for name, make in FULL.items()]


class Shuffled(contenders.Spgrad):
    """COO with its entries in no order."""

    def __init__(self):
        super().__init__(contenders.Layout("COO shuffled", self.shuffle))

    @staticmethod
    def shuffle(problem):
        A = coo_tensor(problem, coalesced=False)
        order = torch.randperm(problem.entries, generator=torch.Generator().manual_seed(0))
        return torch.sparse_coo_tensor(A._indices()[:, order], A._values()[order], A.shape)


FORMS = [Shuffled(), *map(contenders.find, ("spgrad CSR int32", "spgrad COO", "spgrad Pattern"))]


@pytest.fixture(scope="module", params=PROBLEMS)
def problem(request):
    """Make one of the benchmark's problems."""
    return request.param().to(torch.float32)


def bits(outcome):
    """View the results as integers: two zeros differ by their sign, and NaN equals itself."""
    tensors = (outcome.C, *map(specified, outcome.dA), outcome.dB)
    return [tensor.view(torch.int32).clone() for tensor in tensors]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_results_have_the_same_bits_for_any_number_of_threads(problem, form, set_threads):
    call = modes.make_call(form.prepare(problem), problem, modes.Mode.BOTH)
    expected = None
    for threads in THREADS:
        set_threads(threads)
        assert torch.get_num_threads() == threads
        found = bits(call())
        expected = expected or found
        for result, first in zip(found, expected, strict=True):
            assert torch.equal(result, first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("p", [*range(1, 10)])
def test_the_gradient_of_values_has_the_same_bits_with_and_without_that_of_B(p, dtype):
    torch.manual_seed(p)
    n = 3000  # near columns: both gradients go by the rows of A
    crow_indices = torch.arange(n + 1) * 9
    col_indices = (torch.arange(n)[:, None] + torch.arange(-4, 5)).remainder(n).sort(1).values
    values = torch.randn(9 * n, dtype=dtype, requires_grad=True)
    B = torch.randn(n, p, dtype=dtype, requires_grad=True)
    C = spgrad.csr_mm(crow_indices, col_indices.flatten(), values, B)
    G = torch.randn_like(C)
    (alone,) = torch.autograd.grad(C, values, G, retain_graph=True)
    with_other, _ = torch.autograd.grad(C, (values, B), G)
    assert torch.equal(with_other, alone)
