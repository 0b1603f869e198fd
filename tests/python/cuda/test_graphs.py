"""Products that a CUDA graph records, and plays again on other numbers."""

import pytest
import torch

import spgrad

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# CSR rows that are short, empty, and long enough to be done in pieces.
LENGTHS = [3, 0, 40, 600, 1, 256, 257]
COLUMNS, P = 50, 24


def make_structure():
    crow = torch.tensor([0, *LENGTHS], device="cuda").cumsum(0)
    return crow, torch.randint(COLUMNS, (sum(LENGTHS),), device="cuda")


def product_by(form, crow, col):
    """Give a product of this form, as a function of values and B."""
    size = (len(LENGTHS), COLUMNS)
    if form == "csr":
        return lambda values, B: spgrad.csr_mm(crow, col, values, B)
    if form == "pattern":
        A = torch.sparse_csr_tensor(crow, col, torch.ones(len(col), device="cuda"), size)
        return spgrad.Pattern(A).mm
    rows = torch.repeat_interleave(torch.arange(size[0], device="cuda"), crow.diff())
    indices = torch.stack([rows, col])
    return lambda values, B: spgrad.coo_mm(indices, values, size, B)


@pytest.mark.parametrize("form", ["csr", "coo", "pattern"])
def test_products_and_gradients_are_played_again(form):
    crow, col = make_structure()
    product = product_by(form, crow, col)
    values = torch.randn(len(col), device="cuda", requires_grad=True)
    B = torch.randn(COLUMNS, P, device="cuda", requires_grad=True)
    grad = torch.randn(len(LENGTHS), P, device="cuda")

    def step():
        C = product(values, B)
        return C, *torch.autograd.grad(C, (values, B), grad)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()  # kernels are compiled and loaded
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    for _ in range(3):
        with torch.no_grad():
            for tensor in (values, B, grad):
                tensor.normal_()
        graph.replay()
        for again, expected in zip(recorded, step(), strict=True):
            assert torch.equal(again, expected)
    spgrad.cuda.check()
