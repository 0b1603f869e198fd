"""torch.func.vmap over the products: every operand and every structure, item by item."""

import itertools

import numpy as np
import pytest
import torch
from cases import BOTH_SIZES, SIZES
from forms import Operators, matrix_of, operands_of, writer_of
from oracle import (
    BATCHED,
    PLAIN,
    assert_dense,
    dense_for,
    gradient_of_B,
    gradient_of_values,
    make_sparse,
    output_gradient_for,
    positions_of,
    product,
    to_dense,
    values_of,
)
from pairs import pairwise
from torch.func import grad, jacrev, vmap

import spgrad

ALL_FORMS = ("csr32", "csr64", "coalesced", "uncoalesced", "pattern of uncoalesced")
FORMS = pytest.mark.parametrize("form", ALL_FORMS)
ITEMS = 3


def expected_of(operator, A, *operands):
    """Say what an operator gives, from the dense matrix that has A's structure."""
    write, positions = writer_of(A), positions_of(A)

    def sddmm(X, Y):
        return (X @ Y.mT)[positions].reshape(values_of(A).shape)

    if operator == "mm_backward":
        values, B, G = operands
        return sddmm(G, B), write(values).mT @ G
    if operator == "sddmm":
        return (sddmm(*operands),)
    matrix = write(operands[0])
    return ((matrix if operator == "mm" else matrix.mT) @ operands[1],)


def stacked(items, dims):
    """Put the operands of all items into one tensor each, or take the first where dim is None."""
    return [
        item[0] if dim is None else torch.stack(item, dim)
        for item, dim in zip(zip(*items, strict=True), dims, strict=True)
    ]


MAPPED = [
    (operator, dims)
    for operator, count in (("mm", 2), ("mm_transposed", 2), ("sddmm", 2), ("mm_backward", 3))
    for dims in itertools.product((None, 0), repeat=count)
    if any(dim is not None for dim in dims)
]
MAPPED += [("mm", (-1, 1)), ("sddmm", (1, -1)), ("mm_backward", (1, 2, 1)), ("mm", (None, 2))]


@pairwise(form=ALL_FORMS, size=BOTH_SIZES.values(), mapped=MAPPED)
def test_every_operator_is_right_for_every_item(form, size, mapped):
    operator, dims = mapped
    A = matrix_of(form, size)
    items = [operands_of(operator, A, seed=seed) for seed in range(ITEMS)]
    call = Operators(A, form)
    results = vmap(lambda *x: call(operator, *x), tuple(dims))(*stacked(items, dims))
    results = results if isinstance(results, tuple) else (results,)
    for i in range(ITEMS):
        operands = [items[0 if d is None else i][k] for k, d in enumerate(dims)]
        expected = expected_of(operator, A, *operands)
        for result, wanted in zip(results, expected, strict=True):
            assert_dense(result[i], wanted)


@pairwise(form=ALL_FORMS, size=BOTH_SIZES.values(), operator=("mm", "mm_transposed"), p=(1, 32, 33))
def test_one_matrix_times_narrow_and_wide_items_is_right(form, size, operator, p):
    A = matrix_of(form, size)
    items = [operands_of(operator, A, p, seed=seed) for seed in range(ITEMS)]
    call = Operators(A, form)
    values, Bs = stacked(items, (None, 0))
    C = vmap(lambda B: call(operator, values, B))(Bs)
    for i in range(ITEMS):
        assert_dense(C[i], expected_of(operator, A, values, Bs[i])[0])


@pytest.mark.parametrize("shared_values", [False, True])
@SIZES
@pytest.mark.parametrize("kind", ["csr32", "coalesced", "uncoalesced"])
def test_each_item_may_have_a_structure_of_its_own(kind, size, shared_values):
    matrices = [make_sparse(kind, size, seed=seed) for seed in range(ITEMS)]
    values = [values_of(matrices[0 if shared_values else i]) for i in range(ITEMS)]
    B, G = dense_for(matrices[0]), output_gradient_for(matrices[0])
    stacked_values, dim = (values[0], None) if shared_values else (torch.stack(values), 0)

    if kind == "csr32":
        crow = torch.stack([A.crow_indices() for A in matrices])
        col = torch.stack([A.col_indices() for A in matrices])

        def multiply(crow, col, values, B):
            return spgrad.csr_mm(crow, col, values, B)

        arguments, dims = (crow, col), (0, 0)
    else:
        indices = torch.stack([A._indices() for A in matrices], 1)

        def multiply(indices, values, B):
            return spgrad.coo_mm(indices, values, size, B)

        arguments, dims = (indices,), (1,)

    C = vmap(multiply, (*dims, dim, None))(*arguments, stacked_values, B)
    gradients = vmap(
        grad(lambda values, B, *a: (multiply(*a, values, B) * G).sum(), argnums=(0, 1)),
        (dim, None, *dims),
    )(stacked_values, B, *arguments)
    for i, A in enumerate(matrices):
        values_of(A).copy_(values[i])
        assert_dense(C[i], product(A, B))
        assert_dense(gradients[0][i], gradient_of_values(A, B, G))
        assert_dense(gradients[1][i], gradient_of_B(A, G))


@SIZES
@FORMS
def test_vmaps_and_gradients_nest(form, size):
    A = matrix_of(form, size)
    call, G = Operators(A, form), output_gradient_for(A)
    values = torch.stack([operands_of("mm", A, seed=seed)[0] for seed in range(2)])
    Bs = torch.stack([dense_for(A, seed=seed) for seed in range(ITEMS)])

    def gradients(values, B):
        return grad(lambda v, b: (call("mm", v, b) * G).sum(), argnums=(0, 1))(values, B)

    def of_all(function):
        return vmap(vmap(function, (None, 0)), (0, None), out_dims=1)

    C = of_all(lambda v, B: call("mm", v, B))(values, Bs)
    dv, dB = of_all(gradients)(values, Bs)
    total = grad(lambda v: (of_all(lambda v, B: call("mm", v, B))(v, Bs) * G).sum())(values)
    for i, j in itertools.product(range(2), range(ITEMS)):
        expected = expected_of("mm_backward", A, values[i], Bs[j], G)
        assert_dense(C[j, i], expected_of("mm", A, values[i], Bs[j])[0])
        assert_dense(dv[j, i], expected[0])
        assert_dense(dB[j, i], expected[1])
        wanted = sum(expected_of("mm_backward", A, values[i], B, G)[0] for B in Bs)
        assert_dense(total[i], wanted)


@FORMS
def test_a_second_derivative_for_each_item_is_that_of_the_dense_product(form):
    A = matrix_of(form, PLAIN)
    call, write = Operators(A, form), writer_of(A)
    values = torch.stack([operands_of("mm", A, seed=seed)[0] for seed in range(ITEMS)])
    B = dense_for(A)

    def curvature(multiply):
        return vmap(jacrev(grad(lambda v: multiply(v).pow(2).sum())))(values)

    assert_dense(curvature(lambda v: call("mm", v, B)), curvature(lambda v: write(v) @ B))


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)], ids=str)
@SIZES
@FORMS
def test_no_items_give_an_empty_result_of_the_right_shape(form, size, dims):
    A = matrix_of(form, size)
    call = Operators(A, form)
    operands = [
        x if dim is None else x.new_empty(0, *x.shape)
        for x, dim in zip(operands_of("mm", A, seed=0), dims, strict=True)
    ]
    assert vmap(lambda v, B: call("mm", v, B), dims)(*operands).shape == (0, *size[:-1], 3)


def in_chunks(multiply):
    return vmap(multiply, chunk_size=2)


def compiled(multiply, *, dynamic=False):
    torch.compiler.reset()
    return torch.compile(vmap(multiply), fullgraph=True, backend="aot_eager", dynamic=dynamic)


def compiled_for_any_size(multiply):
    return compiled(multiply, dynamic=True)


@pairwise(form=ALL_FORMS, mapped=(in_chunks, compiled, compiled_for_any_size))
def test_vmap_in_chunks_and_compiled_gives_the_same(form, mapped):
    A = matrix_of(form, PLAIN)
    call = Operators(A, form)
    operands = stacked([operands_of("mm", A, seed=seed) for seed in range(5)], (0, 0))
    for i, C in enumerate(mapped(lambda v, B: call("mm", v, B))(*operands)):
        assert_dense(C, expected_of("mm", A, operands[0][i], operands[1][i])[0])


@pytest.mark.parametrize("shared", [False, True], ids=["different A", "same A"])
def test_sparse_mm_takes_coo_matrices_item_by_item(shared):
    matrices = [make_sparse("coalesced", PLAIN, seed=seed) for seed in range(ITEMS)]
    Bs = torch.stack([dense_for(matrices[0], seed=seed) for seed in range(ITEMS)])
    A = matrices[0] if shared else torch.stack(matrices)
    C = vmap(spgrad.sparse_mm, (None if shared else 0, 0))(A, Bs)
    for i in range(ITEMS):
        assert_dense(C[i], to_dense(matrices[0 if shared else i]) @ Bs[i])


@SIZES
def test_sparse_mm_takes_dense_items_beside_one_csr_tensor_and_its_gradient_is_their_sum(size):
    A = make_sparse("csr64", size).requires_grad_()
    Bs = torch.stack([dense_for(A, seed=seed) for seed in range(ITEMS)])
    G = torch.stack([output_gradient_for(A, seed=seed) for seed in range(ITEMS)])
    C = vmap(lambda B: spgrad.sparse_mm(A, B))(Bs)
    C.backward(G)
    for i in range(ITEMS):
        assert_dense(C[i], product(A, Bs[i]))
    wanted = sum(gradient_of_values(A, B, g) for B, g in zip(Bs, G, strict=True))
    assert_dense(values_of(A.grad), wanted)


def test_batches_of_sparse_matrices_for_each_item_are_refused():
    A = torch.stack([make_sparse("coalesced", BATCHED)] * 2)
    with pytest.raises(ValueError, match=r"one sparse matrix \(n, m\) for each item"):
        vmap(spgrad.sparse_mm)(A, torch.ones(2, *BATCHED[:-2], BATCHED[-1], 2).double())


@FORMS
def test_operands_that_do_not_fit_are_refused_as_without_vmap(form):
    A = matrix_of(form, PLAIN)
    call = Operators(A, form)
    values, B = operands_of("mm", A, seed=0)
    with pytest.raises(ValueError, match=r"B must have at least 2 dimensions .* \[5\]"):
        vmap(lambda b: call("mm", values, b), 1)(B)
    with pytest.raises(ValueError, match="values must have one element for each entry"):
        vmap(lambda v: call("mm", v, B))(values.new_ones(2, 3))
    with pytest.raises(RuntimeError, match="values and B must have the same dtype"):
        vmap(lambda b: call("mm", values, b))(B.expand(2, -1, -1).float())


@pytest.mark.parametrize(
    ("operator", "place", "part"),
    [
        ("mm", 0, np.s_[1:]),
        ("mm_transposed", 1, np.s_[1:]),
        ("sddmm", 0, np.s_[1:]),
        ("sddmm", 1, np.s_[:, 1:]),
        ("mm_backward", 2, np.s_[:, 1:]),
    ],
)
@FORMS
def test_messages_speak_of_one_item_as_without_vmap(form, operator, place, part):
    A = matrix_of(form, PLAIN)
    call = Operators(A, form)
    operands = list(operands_of(operator, A, seed=0))
    operands[place] = operands[place][part]
    with pytest.raises(ValueError, match="must have") as alone:
        call(operator, *operands)
    dims = [0 if i == place else None for i in range(len(operands))]
    operands[place] = torch.stack([operands[place]] * ITEMS)
    with pytest.raises(ValueError, match="must have") as mapped:
        vmap(lambda *x: call(operator, *x), tuple(dims))(*operands)
    assert str(mapped.value) == str(alone.value)


@pytest.mark.parametrize("bad", [-1, BATCHED[0], 2**62])
@pytest.mark.parametrize("dim", range(3))
def test_an_index_out_of_bounds_does_not_reach_the_next_item(dim, bad):
    A = make_sparse("coalesced", BATCHED)
    indices = A._indices().clone()
    indices[dim, 0] = BATCHED[dim] if bad == BATCHED[0] else bad
    values, B = stacked([operands_of("mm", A, seed=seed) for seed in range(2)], (0, 0))
    with pytest.raises(RuntimeError, match=r"indices of .* must be in"):
        vmap(lambda v, b: spgrad.coo_mm(indices, v, BATCHED, b))(values, B)


def test_a_tensor_that_left_its_vmap_is_refused():
    A = make_sparse("csr64", PLAIN)
    kept = []
    vmap(lambda B: (kept.append(B), B)[1])(dense_for(A).expand(2, -1, -1))
    with pytest.raises(RuntimeError, match="must be used inside that function"):
        spgrad.csr_mm(A.crow_indices(), A.col_indices(), values_of(A), kept[0])
