"""The products as part of autograd: its modes, hooks, checks and higher derivatives."""

import re

import pytest
import torch
from cases import (
    ALL_KINDS,
    COO_KINDS,
    DISTINCT_KINDS,
    SIZES,
)
from forms import function_of, leaves, maker_of, plain_leaves
from oracle import (
    BATCHED,
    PLAIN,
    assert_dense,
    assert_sparse,
    assert_sum,
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
from torch.autograd import gradcheck, gradgradcheck

import spgrad


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (kind, size)
        for kind in DISTINCT_KINDS
        for size in (PLAIN, BATCHED)
        if not (is_csr(kind) and size is BATCHED)  # gradcheck indexes rows of the batch wrongly
    ],
)
def test_the_sparse_product_passes_the_masked_gradcheck(kind, size):
    A = make_sparse(kind, size).requires_grad_()
    B = dense_for(A).requires_grad_()
    assert gradcheck(spgrad.sparse_mm, (A, B), masked=True)
    assert gradgradcheck(lambda B: spgrad.sparse_mm(A.detach(), B), (B,))


@SIZES
@ALL_KINDS
def test_the_sparse_product_passes_gradcheck_as_a_function_of_its_values(kind, size):
    pattern = make_sparse(kind, size)
    make = maker_of(kind, pattern)
    assert gradcheck(lambda values, B: spgrad.sparse_mm(make(values), B), plain_leaves(pattern))


@pytest.mark.parametrize("kind", DISTINCT_KINDS)
def test_the_sparse_product_passes_the_masked_gradgradcheck(kind):
    # What gradgradcheck does, which itself refuses sparse gradients: gradcheck of the gradients,
    # here with that of A as its values.
    A = make_sparse(kind, PLAIN).requires_grad_()
    B, G = dense_for(A).requires_grad_(), output_gradient_for(A).requires_grad_()

    def gradients(A, B, G):
        of_A, of_B = torch.autograd.grad(spgrad.sparse_mm(A, B), (A, B), G, create_graph=True)
        return torch.ops.spgrad._specified_values(of_A), of_B

    # The check of undefined gradients asks whether a sparse tensor equals 0, which none can tell.
    assert gradcheck(gradients, (A, B, G), masked=True, check_undefined_grad=False)


@pytest.mark.parametrize("kind", DISTINCT_KINDS)
def test_the_sparse_product_has_second_derivatives_through_a_leaf(kind):
    A, B, G = leaves(kind, PLAIN)
    (first,) = torch.autograd.grad(spgrad.sparse_mm(A, B), A, G, create_graph=True)
    weights = integers(*PLAIN, seed=9)
    values = first.values() if is_csr(kind) else first.coalesce().values()
    (second,) = torch.autograd.grad((values * weights[positions_of(A)]).sum(), B)
    mask = torch.zeros(PLAIN, dtype=torch.float64)
    mask[positions_of(A)] = 1
    assert_dense(second, (weights * mask).T @ G)


def test_create_graph_gives_second_derivatives_of_values():
    A = make_sparse("csr64", PLAIN)
    values, B = plain_leaves(A)
    C = function_of(A)(values, B)
    gradients = torch.autograd.grad(C.pow(2).sum() / 2, (values, B), create_graph=True)
    (second,) = torch.autograd.grad(gradients[0].sum(), values)
    positions = positions_of(A)

    def half_of_squares(v):
        dense = torch.zeros(PLAIN, dtype=torch.float64).index_put(positions, v)
        return (dense @ B.detach()).pow(2).sum() / 2

    hessian = torch.autograd.functional.hessian(half_of_squares, values.detach())
    assert_dense(second, hessian.sum(0))


@ALL_KINDS
def test_no_grad_and_inference_mode_record_nothing(kind):
    A = make_sparse(kind, PLAIN).requires_grad_()
    B = dense_for(A).requires_grad_()
    with torch.no_grad():
        C = spgrad.sparse_mm(A, B)
    assert C.grad_fn is None
    assert not C.requires_grad
    with torch.inference_mode():
        D = spgrad.sparse_mm(A, B)
    assert D.is_inference()
    for result in (C, D):
        assert_dense(result, product(A, B))


def test_a_sparse_tensor_made_in_inference_mode_can_be_multiplied_there():
    with torch.inference_mode():
        A = make_sparse("coalesced", PLAIN)
        C = spgrad.sparse_mm(A, dense_for(A))
        assert_dense(C, product(A, dense_for(A)))


@SIZES
@ALL_KINDS
def test_autograd_grad_returns_the_gradients_and_stores_none(kind, size):
    A, B, G = leaves(kind, size)
    gradients = torch.autograd.grad(spgrad.sparse_mm(A, B), (A, B), G)
    assert A.grad is None
    assert B.grad is None
    assert_sparse(gradients[0], A, gradient_of_values(A, B, G))
    assert_dense(gradients[1], gradient_of_B(A, G))


@ALL_KINDS
def test_backward_with_inputs_stores_only_their_gradients(kind):
    A, B, G = leaves(kind, PLAIN)
    spgrad.sparse_mm(A, B).backward(G, inputs=[A])
    assert B.grad is None
    assert_sparse(A.grad, A, gradient_of_values(A, B, G))
    A.grad = None
    spgrad.sparse_mm(A, B).backward(G, inputs=[B])
    assert A.grad is None
    assert_dense(B.grad, gradient_of_B(A, G))


@pytest.mark.parametrize("leaf", ["A", "B", "AB"])
@ALL_KINDS
def test_a_second_backward_pass_is_refused_unless_the_graph_was_kept(kind, leaf):
    A = make_sparse(kind, PLAIN).requires_grad_("A" in leaf)
    B = dense_for(A).requires_grad_("B" in leaf)
    C = spgrad.sparse_mm(A, B)
    G = output_gradient_for(A)
    C.backward(G, retain_graph=True)
    C.backward(G)
    if "A" in leaf:
        assert_sum(A.grad, A, 2 * gradient_of_values(A, B, G))
    if "B" in leaf:
        assert_dense(B.grad, 2 * gradient_of_B(A, G))
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        C.backward(G)
    spgrad.sparse_mm(A, B).backward(G)  # a new graph is not affected


def replace_pattern(A, other):
    """Give a leaf another pattern, in the ways that PyTorch has."""
    if A.layout == torch.sparse_coo:
        A.data = other
    else:
        with torch.no_grad():
            A.resize_as_sparse_(other).copy_(other)


@ALL_KINDS
def test_a_new_pattern_counts_at_once_also_where_a_graph_of_the_old_one_lives(kind):
    A = make_sparse(kind, PLAIN).requires_grad_()
    other = make_sparse(kind, PLAIN, 12, seed=9)
    B, G = dense_for(A), output_gradient_for(A)
    old = spgrad.sparse_mm(A, B)
    replace_pattern(A, other)
    spgrad.sparse_mm(A, B).backward(G)
    assert_sparse(A.grad, other, gradient_of_values(other, B, G))
    assert old.grad_fn is not None


@pytest.mark.parametrize("flags", [(True, False), (False, True)])
def test_a_changed_coalesced_flag_counts_at_once(flags):
    A = make_sparse("coalesced", PLAIN)._coalesced_(flags[0]).requires_grad_()
    B, G = dense_for(A), output_gradient_for(A)
    old = spgrad.sparse_mm(A, B)
    with torch.no_grad():
        A._coalesced_(flags[1])
    spgrad.sparse_mm(A, B).backward(G)
    assert A.grad.is_coalesced() == flags[1]
    assert old.grad_fn is not None


@ALL_KINDS
def test_a_leaf_that_no_longer_wants_a_gradient_gets_none(kind):
    A, B, G = leaves(kind, PLAIN)
    C = spgrad.sparse_mm(A, B)
    A.requires_grad_(False)
    C.backward(G)
    assert A.grad is None
    assert_dense(B.grad, gradient_of_B(A, G))


@ALL_KINDS
def test_hooks_see_and_change_the_gradient(kind):
    A = make_sparse(kind, PLAIN).requires_grad_()
    B, G = dense_for(A), output_gradient_for(A)
    seen = []
    A.register_hook(seen.append)
    A.register_hook(lambda gradient: gradient * 2)
    C = spgrad.sparse_mm(A, B)
    C.retain_grad()
    C.backward(G)
    assert torch.equal(C.grad, G)
    (gradient,) = seen
    assert_sparse(gradient, A, gradient_of_values(A, B, G))
    assert torch.equal(values_of(A.grad), 2 * gradient_of_values(A, B, G))


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@pytest.mark.parametrize("kind", COO_KINDS)
def test_anomaly_mode_finds_nothing_in_a_sound_pass(kind):
    A, B, G = leaves(kind, PLAIN)
    with torch.autograd.detect_anomaly():
        spgrad.sparse_mm(A, B).backward(G)
    assert_sparse(A.grad, A, gradient_of_values(A, B, G))


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@pytest.mark.filterwarnings("ignore:Error detected in :UserWarning")
def test_the_anomaly_mode_of_pytorch_knows_no_csr_gradients():
    for use in (lambda A: spgrad.sparse_mm(A, dense_for(A)), lambda A: A.values()):
        A = make_sparse("csr64", PLAIN).requires_grad_()
        with (
            torch.autograd.detect_anomaly(),
            pytest.raises(NotImplementedError, match=r"'SparseCsr(CPU|CUDA)' backend"),
        ):
            use(A).sum().backward()


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@pytest.mark.filterwarnings("ignore:Error detected in CsrMmBackward:UserWarning")
def test_anomaly_mode_finds_the_product_whose_gradient_is_not_a_number():
    A = make_sparse("csr64", PLAIN).requires_grad_()
    B = torch.full((PLAIN[1], 2), float("nan"), dtype=torch.float64)
    with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match=r"CsrMm.*nan values"):
        spgrad.sparse_mm(A, B).sum().backward()


IN_PLACE = re.escape("modified by an inplace operation")


def is_refused(C):
    """Check that the backward pass finds a change in place."""
    with pytest.raises(RuntimeError, match=IN_PLACE):
        C.sum().backward()


@ALL_KINDS
def test_a_change_of_B_before_backward_is_found_where_the_gradient_needs_B(kind):
    A, B = make_sparse(kind, PLAIN).requires_grad_(), dense_for(make_sparse(kind, PLAIN))
    C = spgrad.sparse_mm(A, B)
    B.add_(1)
    is_refused(C)


@ALL_KINDS
def test_a_change_of_B_before_backward_is_nothing_to_the_gradient_of_B(kind):
    A = make_sparse(kind, PLAIN)
    B = dense_for(A).requires_grad_()
    G = output_gradient_for(A)
    C = spgrad.sparse_mm(A, B)
    with torch.no_grad():
        B.add_(1)
    C.backward(G)
    assert_dense(B.grad, gradient_of_B(A, G))


@ALL_KINDS
def test_a_change_of_the_values_of_A_before_backward_is_found(kind):
    A = make_sparse(kind, PLAIN)
    C = spgrad.sparse_mm(A, dense_for(A).requires_grad_())
    values_of(A).mul_(2)
    is_refused(C)


@pytest.mark.parametrize("kind", COO_KINDS)
def test_a_change_of_a_coo_matrix_as_a_whole_is_found(kind):
    A = make_sparse(kind, PLAIN)
    C = spgrad.sparse_mm(A, dense_for(A).requires_grad_())
    A.mul_(2)
    is_refused(C)


@pytest.mark.parametrize("wanted", ["values", "B"])
@pytest.mark.parametrize("changed", ["indices", "crow_indices", "col_indices"])
def test_a_change_of_the_indices_before_backward_is_found(changed, wanted):
    A = make_sparse("coalesced" if changed == "indices" else "csr64", PLAIN)
    names = ("indices",) if changed == "indices" else ("crow_indices", "col_indices")
    structure = {name: getattr(A, name)().clone() for name in names}
    values = A.values().clone().requires_grad_(wanted == "values")
    B = dense_for(A).requires_grad_(wanted == "B")
    if changed == "indices":
        C = spgrad.coo_mm(structure["indices"], values, PLAIN, B)
    else:
        C = spgrad.csr_mm(structure["crow_indices"], structure["col_indices"], values, B)
    structure[changed].add_(0)
    is_refused(C)


def test_a_step_between_forward_and_backward_is_found():
    A = make_sparse("csr64", PLAIN).requires_grad_()
    B = dense_for(A).requires_grad_()
    C = spgrad.sparse_mm(A, B)
    spgrad.sparse_mm(A, B).sum().backward()
    with torch.no_grad():
        A.values().sub_(A.grad.values())
    is_refused(C)


@ALL_KINDS
def test_a_post_accumulate_hook_runs_once_a_pass_and_may_take_the_gradient(kind):
    A = make_sparse(kind, PLAIN).requires_grad_()
    B, G = dense_for(A), output_gradient_for(A)
    taken = []

    def take(leaf):
        taken.append(leaf.grad)
        leaf.grad = None

    A.register_post_accumulate_grad_hook(take)
    for passes in (1, 2, 3):
        spgrad.sparse_mm(A, B).backward(G)
        assert len(taken) == passes
        assert A.grad is None
    for gradient in taken:
        assert_sparse(gradient, A, gradient_of_values(A, B, G))


@pytest.mark.parametrize("kind", DISTINCT_KINDS)
def test_gradients_are_added_to_the_tensor_that_is_there(kind):
    A = make_sparse(kind, PLAIN).requires_grad_()
    B, G = dense_for(A), output_gradient_for(A)
    spgrad.sparse_mm(A, B).backward(G)
    gradient = A.grad
    spgrad.sparse_mm(A, B).backward(G)
    assert A.grad is gradient
    assert_sum(gradient, A, 2 * gradient_of_values(A, B, G))


def test_uses_of_batched_csr_that_pytorch_adds_up_wrongly_are_refused():
    A = make_sparse("csr64", BATCHED).requires_grad_()
    total = spgrad.sparse_mm(A, dense_for(A)).sum() + A.values().sum()
    with pytest.raises(RuntimeError, match="use the tensor in sparse_mm only"):
        total.backward()
