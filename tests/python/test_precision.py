"""Rounding errors of long rows and of numbers that are hard to add up, beside PyTorch's products.

`pytest -s tests/python/test_precision.py` prints the table.
"""

import pytest
import torch

import spgrad

DRAWS = 4
COLUMNS = 16
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def positive(length, random):
    """All terms have the same sign: the sum grows, and the later terms are small beside it."""
    return (torch.rand(size, generator=random) for size in (length, (length, COLUMNS)))


def normal(length, random):
    """Terms of either sign."""
    return (torch.randn(size, generator=random) for size in (length, (length, COLUMNS)))


def cancelling(length, random):
    """Each term has another one that takes all but a thousandth of it away."""
    half = torch.randn(length // 2, generator=random)
    opposite = -half * (1 + 1e-3 * torch.rand(length // 2, generator=random))
    values = torch.cat([half, opposite])[torch.randperm(length, generator=random)]
    return values, (1 + torch.rand(COLUMNS, generator=random)).repeat(length, 1)


def wide(length, random):
    """Factors of six orders of magnitude."""
    magnitudes = 10 ** (torch.rand(length, generator=random) * 6 - 3)
    return (
        torch.randn(length, generator=random) * magnitudes,
        torch.randn(length, COLUMNS, generator=random),
    )


def errors(numbers, length, dtype):
    """Compute the mean errors in units of the rounding of all terms together, of each product."""
    random = torch.Generator().manual_seed(length)
    crow, col = torch.tensor([0, length]), torch.arange(length)
    squares = {}
    for _ in range(DRAWS):
        values, B = numbers(length, random)
        # A power of two, which leaves sums of a million in the range of float16.
        values, B = (values * 2.0**-6).to(dtype), B.to(dtype)
        exact = values.double() @ B.double()
        scale = (values.double().abs() @ B.double().abs()) * UNIT[dtype]
        results = {
            "spgrad": spgrad.csr_mm(crow, col, values, B)[0],
            "spgrad, gradient of B": torch.ops.spgrad.csr_mm_transposed(
                torch.arange(length + 1), torch.zeros_like(col), values, 1, B
            )[0],
            "spgrad, gradient of values": torch.ops.spgrad.csr_sddmm(
                torch.tensor([0, COLUMNS]), torch.arange(COLUMNS), values[None], B.t()
            ),
            "torch.mm": torch.mm(values[None], B)[0],
        }
        if dtype == torch.float32:
            A = torch.sparse_csr_tensor(crow, col, values, (1, length))
            results["torch.sparse.mm"] = torch.sparse.mm(A, B)[0]
        for name, result in results.items():
            error = (result.double() - exact) / scale
            squares.setdefault(name, []).append(error.square().mean())
    return {name: torch.stack(found).mean().sqrt().item() for name, found in squares.items()}


@pytest.mark.parametrize("dtype", UNIT, ids=str)
@pytest.mark.parametrize(
    "length", [10_000, 200_000, pytest.param(1_000_000, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("numbers", [positive, normal, cancelling, wide])
def test_rounding_errors_are_no_larger_than_those_of_pytorch(numbers, length, dtype):
    found = errors(numbers, length, dtype)
    print(
        f"\n{numbers.__name__}, {length} entries, {dtype}:",
        ", ".join(f"{name} {error:.2g}" for name, error in found.items()),
    )
    of_pytorch = min(error for name, error in found.items() if name.startswith("torch"))
    bound = 1.3 * of_pytorch  # the same rounding of the result, or better; a little for chance
    if dtype != torch.float32:
        # Where terms cancel, what is left is the error of sums in float32. PyTorch's order of
        # summation differs between CPUs, and is the better one on some.
        bound = max(bound, 0.25 * UNIT[torch.float32] / UNIT[dtype])
    for name, error in found.items():
        if name.startswith("spgrad"):
            assert error <= bound, name
