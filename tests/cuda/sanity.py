"""Every operator on a device beside float64, small: for a first look, and for compute-sanitizer.

Goes on after a difference and after an error, prints one line for each, and fails if there was one.
"""

import argparse
import itertools
import sys
import time

import torch

import spgrad

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
)
COLUMNS = (128, 1, 3, 8, 16, 33, 200, 520)
FEW_DTYPES = (torch.float32, torch.float16, torch.complex64)
FEW_COLUMNS = (128, 3)
TOLERANCE = 64
"""In units of epsilon, of the sum of absolute terms."""


class Matrix:
    """A matrix with a full row and a full column, empty ones, and others; or a batch of two."""

    def __init__(self, dtype, columns, *, batched, n=70, m=1100):
        generator = torch.Generator().manual_seed(columns)
        mask = torch.rand(n, m, generator=generator) < 0.01
        mask[3] = True
        mask[:, 5] = True
        mask[7] = False
        self.items = 2 if batched else 1
        self.batched = batched
        wide = torch.complex128 if dtype.is_complex else torch.float64

        def normal(*shape):
            numbers = torch.randn(*shape, dtype=wide, generator=generator)
            return numbers.to(dtype).to(wide)

        self.mask = mask
        self.row, self.col = mask.nonzero(as_tuple=True)
        self.values = normal(self.items, self.row.numel())
        self.B = normal(self.items, m, columns)
        self.G = normal(self.items, n, columns)
        self.dtype = dtype
        self.crow = torch.zeros(n + 1, dtype=torch.int64)
        self.crow[1:] = torch.bincount(self.row, minlength=n).cumsum(0)
        self.size = (n, m)

    def exact(self):
        """Compute C, dA and dB, and the sums of the absolute terms of each."""

        def compute(values, B, G):
            A = torch.zeros(self.items, *self.size, dtype=values.dtype)
            A[:, self.row, self.col] = values
            dA = (G @ B.mH)[:, self.row, self.col]
            return A @ B, dA, A.mH @ G

        operands = (self.values, self.B, self.G)
        return compute(*operands), compute(*(operand.abs() for operand in operands))

    def greatest(self):
        """Compute the greatest message of each row and column, 0 in rows without entries."""
        messages = self.values[:, :, None] * self.B[:, self.col]
        lowest = torch.full_like(self.G, -torch.inf)
        rows = self.row[None, :, None].expand_as(messages)
        found = lowest.scatter_reduce(1, rows, messages, "amax")
        return found.masked_fill(found == -torch.inf, 0)

    def operands(self, device):
        """Give values, B and G of the dtype on a device, without the dimension of one item."""
        moved = (t.to(device, self.dtype) for t in (self.values, self.B, self.G))
        return [t if self.batched else t[0] for t in moved]

    def csr(self, values, index):
        """Give the CSR tensor with these values."""
        crow, col = (t.to(values.device, index) for t in (self.crow, self.col))
        size = self.size
        if self.batched:
            crow, col = (t.expand(2, -1).contiguous() for t in (crow, col))
            size = (2, *size)
        return torch.sparse_csr_tensor(crow, col, values, size, check_invariants=False)

    def coo(self, values, order):
        """Give the COO tensor with these values, its entries in another order unless it is None."""
        indices = torch.stack([self.row, self.col])
        size = self.size
        if self.batched:
            item = torch.arange(2).repeat_interleave(self.row.numel())
            indices = torch.cat([item[None], indices.repeat(1, 2)])
            size = (2, *size)
        indices, values = indices.to(values.device), values.flatten()
        if order is not None:
            indices, values = indices[:, order], values[order]
        return torch.sparse_coo_tensor(
            indices, values, size, is_coalesced=order is None, check_invariants=False
        )


def leaf_of(form, matrix, values):
    """Give what a form takes gradients of, its product, and the entries of a gradient in order."""
    if form.startswith("CSR"):
        index = torch.int32 if form.endswith("32") else torch.int64
        return matrix.csr(values, index), spgrad.sparse_mm, lambda gradient: gradient.values()
    if form == "Pattern":
        pattern = spgrad.Pattern(matrix.csr(values, torch.int32))
        return values, pattern.mm, lambda gradient: gradient
    order = None
    if form == "COO unsorted":
        order = torch.randperm(values.numel(), device="cpu").to(values.device)
    back = slice(None) if order is None else torch.argsort(order)
    return matrix.coo(values, order), spgrad.sparse_mm, lambda g: g._values()[back]


FORMS = ("CSR int32", "CSR int64", "COO", "COO unsorted", "Pattern")
RESULTS = ("C", "dA", "dB", "greatest")


def compute(form, matrix, device):
    """Compute C, dA and dB, together and alone; with the former the greatest of real messages."""
    values, B, G = matrix.operands(device)
    leaf, multiply, entries = leaf_of(form, matrix, values)
    leaf = leaf.detach().requires_grad_()
    B.requires_grad_()
    C = multiply(leaf, B)
    dA, dB = torch.autograd.grad(C, (leaf, B), G)
    (dA_alone,) = torch.autograd.grad(multiply(leaf, B.detach()), leaf, G)
    (dB_alone,) = torch.autograd.grad(multiply(leaf.detach(), B), B, G)
    together = [C.detach(), entries(dA), dB]
    if not values.dtype.is_complex:
        together.append(multiply(leaf, B, reduce="amax").detach())
    return [together, [C.detach(), entries(dA_alone), dB_alone]]


def differences(form, matrix, exact, scales, device):
    """List what deviates too much."""
    found = []
    limit = TOLERANCE * torch.finfo(matrix.dtype).eps
    for how, results in zip(("together", "alone"), compute(form, matrix, device), strict=True):
        some = slice(len(results))
        compared = zip(RESULTS[some], results, exact[some], scales[some], strict=True)
        for name, result, right, scale in compared:
            result_on_host = result.to("cpu", right.dtype).reshape(right.shape)
            tiny = torch.finfo(matrix.dtype).tiny
            deviation = float(((result_on_host - right).abs() / scale.clamp_min(tiny)).max())
            if not deviation <= limit:
                found.append(f"{name} {how} deviates by {deviation:.2g} (at most {limit:.2g})")
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--few", action="store_true", help="few dtypes and numbers of columns")
    arguments = parser.parse_args()
    dtypes = FEW_DTYPES if arguments.few else DTYPES
    columns = FEW_COLUMNS if arguments.few else COLUMNS
    torch.sparse.check_sparse_tensor_invariants.disable()
    start, failed, count = time.perf_counter(), 0, 0
    for dtype, p, batched in itertools.product(dtypes, columns, (False, True)):
        matrix = Matrix(dtype, p, batched=batched)
        exact, scales = matrix.exact()
        if not dtype.is_complex:
            greatest = matrix.greatest()
            exact, scales = (*exact, greatest), (*scales, greatest.abs())
        for form in FORMS:
            count += 1
            try:
                found = differences(form, matrix, exact, scales, arguments.device)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
                lines = str(error).strip().splitlines() or ["no message"]
                found = [f"{type(error).__name__}: {lines[0]}"]
            failed += bool(found)
            batch = ", batched" if batched else ""
            for line in found:
                print(f"WRONG {form}, {dtype}, p = {p}{batch}: {line}", flush=True)
    took = time.perf_counter() - start
    print(f"{count - failed} of {count} cases agree, {failed} do not, in {took:.1f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
