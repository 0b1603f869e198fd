"""The products in each of their forms, as functions of a matrix's values and of dense operands."""

from functools import partial

import torch
from oracle import (
    PLAIN,
    assert_dense,
    assert_gradients,
    assert_sparse,
    dense_for,
    gradient_of_B,
    gradient_of_values,
    integers,
    is_csr,
    make_sparse,
    output_gradient_for,
    positions_of,
    product,
    values_of,
)

import spgrad


def leaves(kind, size, entries=None, *, p=3, dtype=torch.float64, seed=0):
    """Make A and B that require gradients, and a gradient of their product."""
    A = make_sparse(kind, size, entries, dtype=dtype, seed=seed)
    return A.requires_grad_(), dense_for(A, p).requires_grad_(), output_gradient_for(A, p)


def operands_for(A, p=3, *, seed=None):
    """Return values, A's or others by a seed, a B and a gradient of the product."""
    if seed is None:
        return values_of(A).clone(), dense_for(A, p), output_gradient_for(A, p)
    values = integers(*values_of(A).shape, dtype=A.dtype, seed=seed)
    return values, dense_for(A, p, seed=seed + 50), output_gradient_for(A, p, seed=seed + 100)


def plain_leaves(A, p=3):
    """Return values and B that require gradients."""
    values, B, _ = operands_for(A, p)
    return values.requires_grad_(), B.requires_grad_()


def fill(random, *tensors):
    """Overwrite tensors by real numbers of a generator's function, torch.rand or torch.randn."""
    generator = torch.Generator(tensors[0].device).manual_seed(3)
    for tensor in tensors:
        numbers = random(
            tensor.shape, dtype=tensor.dtype, device=tensor.device, generator=generator
        )
        tensor.copy_(numbers)


def function_of(A, **options):
    """Return the product of plain tensors with A's structure as a function of values and B."""
    if A.layout == torch.sparse_coo:
        indices, size = A._indices(), tuple(A.shape)
        return lambda values, B: spgrad.coo_mm(indices, values, size, B, **options)
    return partial(spgrad.csr_mm, A.crow_indices(), A.col_indices(), **options)


def matrix_of(form, size=PLAIN, entries=None, **options):
    """Make the matrix of a form: a kind, or "pattern of" a kind."""
    return make_sparse(form.removeprefix("pattern of "), size, entries, **options)


def product_of(form, A, **options):
    """Return the product in a form with A's structure as a function of values and B."""
    if form.startswith("pattern"):
        return partial(spgrad.Pattern(A).mm, **options)
    return function_of(A, **options)


def sampled_product_of(form, A):
    """Return the product of dense matrices at A's entries, in a form."""
    if form.startswith("pattern"):
        return spgrad.Pattern(A).sddmm
    if A.layout == torch.sparse_coo:
        return partial(spgrad.coo_sddmm, A._indices(), A.shape)
    return partial(spgrad.csr_sddmm, A.crow_indices(), A.col_indices())


def maker_of(kind, A):
    """Return a function that makes a sparse tensor of a kind with A's structure out of values."""
    if is_csr(kind):
        crow, col = A.crow_indices(), A.col_indices()
        return lambda values: torch.sparse_csr_tensor(crow, col, values, A.shape)
    flag = True if kind == "coalesced" else None
    indices = A._indices()
    return lambda values: torch.sparse_coo_tensor(indices, values, A.shape, is_coalesced=flag)


def writer_of(A):
    """Return a function that writes out, as a dense matrix, A with other values."""
    positions = positions_of(A)
    zeros = torch.zeros(A.shape, dtype=torch.float64)
    return lambda values: zeros.index_put(positions, values.flatten(), accumulate=True)


def all_results(multiply, A, B, G):
    """Compute the product and all gradients, together and alone; A is sparse, or its values."""
    A = A.detach().requires_grad_()
    B = B.detach().requires_grad_()
    C = multiply(A, B)
    of_A, of_B = torch.autograd.grad(C, (A, B), G)
    (of_A_alone,) = torch.autograd.grad(multiply(A, B.detach()), A, G)
    (of_B_alone,) = torch.autograd.grad(multiply(A.detach(), B), B, G)
    if A.layout != torch.strided:
        of_A, of_A_alone = values_of(of_A), values_of(of_A_alone)
    return [C.detach(), of_A, of_B, of_A_alone, of_B_alone]


def assert_right(multiply, A, operands=None, *, factor=1, alone=True):
    """Check a product with A's structure and values, and its gradients, together and alone."""
    values, B, G = operands or operands_for(A)
    leaves = {"values": values, "B": B}
    expected = {"values": gradient_of_values(A, B, G), "B": gradient_of_B(A, G)}
    for wanted in (["values", "B"], ["values"], ["B"])[: 3 if alone else 1]:
        for name, leaf in leaves.items():
            leaf.requires_grad_(name in wanted)
        C = multiply(values, B)
        assert C.dtype == A.dtype
        assert C.is_contiguous()
        assert_dense(C, factor * product(A, B))
        gradients = torch.autograd.grad(C, [leaves[name] for name in wanted], G)
        for name, gradient in zip(wanted, gradients, strict=True):
            assert_dense(gradient, factor * expected[name])


def assert_leaves_right(A, B, G):
    """Check sparse_mm of leaves, and their gradients, together and alone."""
    C = spgrad.sparse_mm(A, B)
    assert C.dtype == A.dtype
    assert C.is_contiguous()
    assert_dense(C, product(A, B))
    C.backward(G)
    assert_gradients(A, B, G)
    (of_A,) = torch.autograd.grad(spgrad.sparse_mm(A, B.detach()), A, G)
    assert_sparse(of_A, A, gradient_of_values(A, B, G))
    (of_B,) = torch.autograd.grad(spgrad.sparse_mm(A.detach(), B), B, G)
    assert_dense(of_B, gradient_of_B(A, G))


PRODUCTS = ("mm", "mm_transposed", "sddmm", "mm_backward")


def operands_of(name, A, p=3, *, seed=None):
    """Return fresh operands of one of the four products."""
    values, B, G = operands_for(A, p, seed=seed)
    return {
        "mm": (values, B),
        "mm_transposed": (values, G),
        "sddmm": (G, B),
        "mm_backward": (values, B, G),
    }[name]


class Operators:
    """The registered operators of the four products, with the structure of a matrix."""

    def __init__(self, A, form=""):
        """Take the structure: that of a pattern in such a form, else that of A's layout."""
        self.A, self.size = A, tuple(A.shape)
        layout = "coo" if A.layout == torch.sparse_coo else "csr"
        self.form = "pattern" if form.startswith("pattern") else layout
        if self.form == "pattern":
            self.structure = (*spgrad.Pattern(A)._tensors, self.size)
        elif self.form == "csr":
            self.structure = (A.crow_indices(), A.col_indices())
        else:
            self.structure = (A._indices(),)

    def operator(self, name):
        """Return an operator."""
        return getattr(torch.ops.spgrad, f"{self.form}_{name}").default

    def arguments(self, name, *operands):
        """Return all arguments of an operator: the structure, the operands and sizes."""
        if self.form == "coo":
            # size comes after indices and, where given, values
            at = 0 if name.endswith("sddmm") else 1
            return (*self.structure, *operands[:at], self.size, *operands[at:])
        if self.form == "csr" and name.endswith("mm_transposed"):
            return (*self.structure, operands[0], self.size[-1], *operands[1:])
        return (*self.structure, *operands)

    def with_leaves(self, name, p=3):
        """Return an operator and its arguments, those that have a gradient as leaves."""
        operands = operands_of(name, self.A, p)
        if self.form == "pattern" and name != "sddmm":
            operands = (operands[0].flatten(), *operands[1:])
        return self.operator(name), self.arguments(name, *(x.requires_grad_() for x in operands))

    def __call__(self, name, *operands):
        """Call an operator."""
        return self.operator(name)(*self.arguments(name, *operands))
