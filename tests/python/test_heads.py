"""Leading dimensions of values and dense operands over one structure: heads, ensembles, vectors."""

import re
from functools import partial

import pytest
import torch
from cases import RESTRIDES, SIZES
from forms import Operators, matrix_of, product_of, sampled_product_of, writer_of
from oracle import (
    BATCHED,
    DTYPES,
    PLAIN,
    assert_dense,
    exact,
    integers,
    make_sparse,
    positions_of,
    seeded,
    values_of,
)
from pairs import pairwise
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

import spgrad

PATTERNS = ("pattern of uncoalesced", "pattern of csr64")
FORMS = ("csr32", "csr64", "coalesced", "uncoalesced", *PATTERNS)
ALL_FORMS = pytest.mark.parametrize("form", FORMS)
BOTH_SIZES = (PLAIN, BATCHED)

# Leading dimensions of one operand and of the other.
LEADING = (
    ((2,), ()),
    ((), (3,)),
    ((2,), (2,)),
    ((2, 1), (3,)),
    ((1,), (2, 3)),
    ((2, 3), (2, 3)),
    ((1, 1), ()),
    ((0,), ()),
    ((3, 0), (1,)),
)


def values_for(A, *leading, seed=1):
    """Make values for each head."""
    return integers(*leading, *values_of(A).shape, dtype=A.dtype, seed=seed)


def dense_for(A, dim, *leading, p=3, seed=2):
    """Make a dense operand with a row for each row (-2) or column (-1) of A, for each head."""
    return integers(*leading, *A.shape[:-2], A.shape[dim], p, dtype=A.dtype, seed=seed)


def written_out(A, values):
    """Write the matrix of each head out, differentiably."""
    shape = values_of(A).shape
    leading = values.shape[: values.dim() - len(shape)]
    if 0 in leading:
        return exact(values).new_zeros((*leading, *A.shape))
    zeros = torch.zeros(A.shape, dtype=exact(values).dtype)
    heads = [
        zeros.index_put(positions_of(A), v.flatten(), accumulate=True)
        for v in values.reshape(-1, *shape)
    ]
    return torch.stack(heads).reshape(*leading, *A.shape)


def assert_same(ours, right, operands):
    """Check a function and its gradients against one of float64 or complex128."""
    leaves = [x.clone().requires_grad_() for x in operands]
    wide = [exact(x).requires_grad_() for x in operands]
    result, expected = ours(*leaves), right(*wide)
    assert result.dtype == operands[0].dtype
    assert result.is_contiguous()
    assert_dense(result, expected.detach())
    G = integers(*result.shape, dtype=result.dtype, seed=3)
    wanted = torch.autograd.grad(expected, wide, exact(G), allow_unused=0 in expected.shape)
    for gradient, want, x in zip(
        torch.autograd.grad(result, leaves, G, retain_graph=True), wanted, operands, strict=True
    ):
        assert_dense(gradient, torch.zeros_like(exact(x)) if want is None else want)
    for place, want in enumerate(wanted):
        alone = [x.clone().requires_grad_(i == place) for i, x in enumerate(operands)]
        (gradient,) = torch.autograd.grad(ours(*alone), alone[place], G)
        assert_dense(gradient, torch.zeros_like(exact(operands[place])) if want is None else want)


@pairwise(form=FORMS, size=BOTH_SIZES, leading=LEADING, dtype=DTYPES)
def test_products_and_gradients_are_those_of_the_dense_matrices(form, size, leading, dtype):
    A = matrix_of(form, size, dtype=dtype)
    operands = values_for(A, *leading[0]), dense_for(A, -1, *leading[1])
    assert_same(product_of(form, A), lambda v, B: written_out(A, v) @ B, operands)


# Rows, or columns, that the kernels of CUDA do in pieces, of one tile of columns and of several.
@pytest.mark.parametrize("p", [3, 300])
@pytest.mark.parametrize("size", [(3, 1000), (1000, 3)], ids=["rows", "columns"])
@pytest.mark.parametrize("form", ["csr32", "uncoalesced", "pattern of uncoalesced"])
def test_long_rows_and_columns_are_right_for_each_head(form, size, p):
    A = matrix_of(form, size)
    operands = values_for(A, 3), dense_for(A, -1, 3, p=p)
    assert_same(product_of(form, A), lambda v, B: written_out(A, v) @ B, operands)


@pairwise(form=FORMS, size=BOTH_SIZES, leading=LEADING, dtype=DTYPES)
def test_products_at_the_entries_are_those_of_the_dense_matrices(form, size, leading, dtype):
    A = matrix_of(form, size, dtype=dtype)
    operands = dense_for(A, -2, *leading[0]), dense_for(A, -1, *leading[1], seed=4)
    shape = values_of(A).shape

    def right(X, Y):
        everywhere = X @ Y.mT
        heads = everywhere.shape[: everywhere.dim() - A.dim()]
        return everywhere[(..., *positions_of(A))].reshape(*heads, *shape)

    assert_same(sampled_product_of(form, A), right, operands)


@pairwise(form=PATTERNS, size=BOTH_SIZES, leading=LEADING)
def test_transposed_products_are_those_of_the_dense_matrices(form, size, leading):
    A = matrix_of(form, size)
    operands = values_for(A, *leading[0]), dense_for(A, -2, *leading[1])
    pattern = spgrad.Pattern(A)
    for multiply in (pattern.mm_transposed, pattern.T.mm):
        assert_same(multiply, lambda v, B: written_out(A, v).mT @ B, operands)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
@ALL_FORMS
def test_a_vector_is_multiplied_as_one(form, leading):
    A = matrix_of(form)
    operands = values_for(A, *leading), integers(A.shape[1], seed=2)
    assert_same(product_of(form, A), lambda v, b: written_out(A, v) @ b, operands)


@pairwise(form=FORMS, restride=RESTRIDES)
def test_operands_of_heads_may_have_any_strides(form, restride):
    A = matrix_of(form)
    B = restride(dense_for(A, -1, 2))
    values = values_for(A, 2).mT.contiguous().mT
    assert_same(product_of(form, A), lambda v, B: written_out(A, v) @ B, (values, B))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's forward mode
@ALL_FORMS
def test_derivatives_of_any_order_and_forward_mode_are_right(form):
    A = matrix_of(form)
    operands = [
        torch.rand_like(x).requires_grad_() for x in (values_for(A, 2, 1), dense_for(A, -1, 3, p=2))
    ]
    assert gradcheck(product_of(form, A), operands, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(product_of(form, A), operands, fast_mode=True)


@SIZES
@ALL_FORMS
def test_vmap_over_heads_and_heads_in_vmap_give_the_same(form, size):
    A = matrix_of(form, size)
    multiply = product_of(form, A)
    values, B = values_for(A, 2, 3), dense_for(A, -1, 3)
    expected = written_out(A, exact(values)) @ exact(B)
    assert_dense(vmap(multiply, (0, None))(values, B), expected)
    assert_dense(vmap(multiply, (1, 0), 1)(values, B), expected)
    assert_dense(vmap(vmap(multiply, (0, 0)), (0, None))(values, B), expected)

    def loss(values, B):
        return multiply(values, B).sum()

    dv, dB = vmap(grad(loss, argnums=(0, 1)), (0, None))(values, B)
    for i in range(2):
        wanted = torch.autograd.functional.jacobian(
            lambda v, b: (written_out(A, v) @ b).sum(), (values[i], B)
        )
        assert_dense(dv[i], wanted[0])
        assert_dense(dB[i], wanted[1])


@SIZES
@pytest.mark.parametrize("kind", ["csr32", "uncoalesced"])
def test_heads_over_a_structure_of_each_item_are_right(kind, size):
    matrices = [make_sparse(kind, size, seed=seed) for seed in range(2)]
    values = torch.stack([values_for(matrices[0], 3, seed=seed) for seed in range(2)])
    B = dense_for(matrices[0], -1, 3)
    G = integers(*(writer_of(matrices[0])(values[0, 0]) @ B).shape, seed=9)

    def loss(structure, values, B):
        multiply = (
            partial(spgrad.csr_mm, *structure)
            if kind == "csr32"
            else lambda values, B: spgrad.coo_mm(structure[0], values, size, B)
        )
        return (multiply(values, B) * G).sum(), multiply(values, B)

    tensors = [
        (A.crow_indices(), A.col_indices()) if kind == "csr32" else (A._indices(),)
        for A in matrices
    ]
    structures = tuple(torch.stack(x) for x in zip(*tensors, strict=True))
    gradients, C = vmap(grad(loss, argnums=(1, 2), has_aux=True), (0, 0, None))(
        structures, values, B
    )
    for i, A in enumerate(matrices):
        v, b = values[i].clone().requires_grad_(), B.clone().requires_grad_()
        expected = written_out(A, v) @ b
        wanted = torch.autograd.grad(expected, (v, b), G.expand(expected.shape))
        assert_dense(C[i], expected.detach())
        assert_dense(gradients[0][i], wanted[0])
        assert_dense(gradients[1][i], wanted[1])


def test_a_vmap_over_the_values_of_a_pattern_is_one_product():
    A = make_sparse("uncoalesced", PLAIN)
    pattern, values, B = spgrad.Pattern(A), values_for(A, 7), dense_for(A, -1)
    with torch.profiler.profile(acc_events=True) as profile:
        vmap(pattern.mm, (0, None))(values, B)
    names = [event.name for event in profile.events()]
    assert names.count("spgrad::pattern_mm") <= 2  # the call, and that by the rule of vmap


@pytest.mark.parametrize("heads", [3, 50])
@pytest.mark.parametrize("form", ["csr64", "uncoalesced", "pattern of uncoalesced"])
def test_results_have_the_same_bits_on_any_number_of_threads(form, heads, set_threads):
    A = matrix_of(form, (300, 200))
    generator = seeded(1)
    values = torch.randn(heads, *values_of(A).shape, generator=generator, requires_grad=True)
    B = torch.randn(200, 20, generator=generator, requires_grad=True)
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        C = product_of(form, A)(values, B)
        results.append((C, *torch.autograd.grad(C.pow(2).sum(), (values, B))))
    for others in results[1:]:
        assert all(map(torch.equal, others, results[0]))
    right = written_out(A, values.double()) @ B.double()
    torch.testing.assert_close(results[0][0], right.float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 2, 50])
@pytest.mark.parametrize("bad", [-1, 5, 2**40])
def test_an_index_out_of_bounds_is_refused_whatever_the_heads(heads, bad):
    A = matrix_of("csr64")
    col = A.col_indices().clone()
    col[3] = bad
    values, B = values_for(A, heads).requires_grad_(), dense_for(A, -1).requires_grad_()
    message = rf"col_indices must be in \[0, 5\), but received {bad} at position 3"
    with pytest.raises(RuntimeError, match=message):
        spgrad.csr_mm(A.crow_indices(), col, values, B)
    with pytest.raises(RuntimeError, match=message):
        spgrad.csr_sddmm(A.crow_indices(), col, dense_for(A, -2, heads), B)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.spgrad.csr_mm_backward(A.crow_indices(), col, values, B, dense_for(A, -2, heads))


@pytest.mark.parametrize(("form", "dynamic"), [("csr32", False), ("pattern of uncoalesced", True)])
def test_a_compiled_function_gives_the_same(form, dynamic):
    torch.compiler.reset()
    A = matrix_of(form)
    compiled = torch.compile(
        product_of(form, A), fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    for heads in (2, 4):
        operands = values_for(A, heads, 1), dense_for(A, -1, 3)
        assert_same(compiled, lambda v, B: written_out(A, v) @ B, operands)


# opcheck itself asks for the gradient of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    ("form", "operator"),
    [("csr", "mm"), ("coo", "mm_transposed"), ("pattern", "sddmm"), ("pattern", "mm_backward")],
)
def test_operators_with_heads_behave_as_pytorch_expects(form, operator):
    A = matrix_of("csr64" if form == "csr" else "uncoalesced")
    call = Operators(A, form)
    values, B, G = values_for(A, 2, 1), dense_for(A, -1, 3), dense_for(A, -2, 2, 3)
    operands = {
        "mm": (values, B),
        "mm_transposed": (values, G),
        "sddmm": (G, B),
        "mm_backward": (values, B, G),
    }[operator]
    arguments = call.arguments(operator, *(x.requires_grad_() for x in operands))
    outcomes = torch.library.opcheck(call.operator(operator), arguments)
    assert set(outcomes.values()) == {"SUCCESS"}


def test_autocast_casts_the_operands_of_heads():
    A = matrix_of("csr64", dtype=torch.float32)
    values, B = values_for(A, 2).requires_grad_(), dense_for(A, -1)
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        C = product_of("csr64", A)(values, B)
    assert C.dtype == torch.bfloat16
    assert_dense(C, written_out(A, exact(values)) @ exact(B))
    C.sum().backward()
    assert values.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "B", "message"),
    [
        (
            (2, 8),
            (3, 5, 2),
            "leading dimensions of values and B must broadcast, but received [2] a",
        ),
        ((2, 3, 8), (2, 1, 5, 2), None),
        ((2, 7), (5, 2), "values must have one element for each entry, shape [8] behind any lead"),
        (
            (2, 8),
            (),
            "B must have at least 2 dimensions for a sparse matrix, but received shape []",
        ),
    ],
)
def test_leading_dimensions_that_do_not_broadcast_are_refused(values, B, message):
    A = matrix_of("csr64")
    call = partial(spgrad.csr_mm, A.crow_indices(), A.col_indices())
    operands = torch.ones(values), torch.ones(B)
    if message is None:
        assert call(*operands).shape == (2, 3, 4, 2)
        return
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call(*operands)


def test_dense_operands_of_a_sampled_product_must_broadcast():
    A = matrix_of("csr64")
    message = r"leading dimensions of X and Y must broadcast, but received \[2\] and \[3\]"
    with pytest.raises(ValueError, match=message):
        sampled_product_of("csr64", A)(dense_for(A, -2, 2), dense_for(A, -1, 3))
    with pytest.raises(ValueError, match=r"X must be 2D for a sparse matrix, but received shape"):
        spgrad.sddmm(A, dense_for(A, -2, 2), dense_for(A, -1))
