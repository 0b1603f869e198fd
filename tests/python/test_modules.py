"""Modules around each form of the product: hooks, copies, checkpoints, threads."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import BOTH_FORMS, SIZES
from copies import pickled, through_a_file
from forms import function_of
from oracle import (
    PLAIN,
    assert_dense,
    dense_for,
    gradient_of_B,
    gradient_of_values,
    make_sparse,
    output_gradient_for,
    product,
    values_of,
)
from torch.utils.checkpoint import checkpoint

import spgrad


class Sparse(torch.nn.Module):
    """sparse_mm with a sparse parameter."""

    def __init__(self, A):
        super().__init__()
        self.weight = torch.nn.Parameter(A)

    def forward(self, B):
        return spgrad.sparse_mm(self.weight, B)


class Plain(torch.nn.Module):
    """csr_mm with a parameter of values."""

    def __init__(self, A):
        super().__init__()
        self.register_buffer("crow_indices", A.crow_indices())
        self.register_buffer("col_indices", A.col_indices())
        self.weight = torch.nn.Parameter(A.values().clone())

    def forward(self, B):
        return spgrad.csr_mm(self.crow_indices, self.col_indices, self.weight, B)


class ByPattern(torch.nn.Module):
    """Pattern.mm with a parameter of values."""

    def __init__(self, A):
        super().__init__()
        self.pattern = spgrad.Pattern(A)
        self.weight = torch.nn.Parameter(values_of(A).clone())

    def forward(self, B):
        return self.pattern.mm(self.weight, B)


MODULES = pytest.mark.parametrize(
    ("module_class", "kind"),
    [
        (Sparse, "unflagged"),
        (Sparse, "csr32"),
        (Plain, "csr64"),
        (ByPattern, "uncoalesced"),
        (ByPattern, "csr32"),
    ],
)


def values(tensor):
    """Return the values of a sparse tensor, and a dense tensor as it is."""
    return tensor.detach() if tensor.layout == torch.strided else values_of(tensor)


def assert_trains(module, call, A, *, passes=1):
    """Check a call of the module and its gradients against the dense product."""
    module.zero_grad()
    B, G = dense_for(A).requires_grad_(), output_gradient_for(A)
    for _ in range(passes):
        C = call(B)
        assert_dense(C, product(A, B))
        C.backward(G)
    assert_dense(values(module.weight.grad), passes * gradient_of_values(A, B, G))
    assert_dense(B.grad, passes * gradient_of_B(A, G))


@MODULES
@SIZES
def test_checkpoints_give_the_gradients_of_a_plain_pass(module_class, kind, size):
    A = make_sparse(kind, size)
    module = module_class(make_sparse(kind, size))
    for use_reentrant in (True, False):
        call = lambda B, reentrant=use_reentrant: checkpoint(module, B, use_reentrant=reentrant)  # noqa: E731
        assert_trains(module, call, A, passes=2)


def test_the_reentrant_checkpoint_of_pytorch_drops_the_flag_of_a_coalesced_argument():
    A, B = make_sparse("coalesced", PLAIN).requires_grad_(), dense_for(make_sparse("csr64", PLAIN))
    G = output_gradient_for(A)
    checkpoint(spgrad.sparse_mm, A, B, use_reentrant=True).backward(G)
    assert not A.grad.is_coalesced()
    assert torch.equal(A.grad._indices(), A._indices())
    assert_dense(values_of(A.grad), gradient_of_values(A, B, G))


@MODULES
def test_saved_tensors_may_wait_elsewhere(module_class, kind):
    A, packed = make_sparse(kind, PLAIN), []
    module = module_class(make_sparse(kind, PLAIN))

    def with_hooks(B):
        def pack(tensor):
            packed.append(tensor)
            return tensor.clone()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return module(B)

    def on_cpu(B):
        with torch.autograd.graph.save_on_cpu():
            return module(B)

    assert_trains(module, with_hooks, A)
    assert len(packed) >= 3  # the structure, the values and B
    assert_trains(module, on_cpu, A)


@MODULES
def test_hooks_of_modules_and_parameters_see_the_gradients(module_class, kind):
    A, seen = make_sparse(kind, PLAIN), {}
    module = module_class(make_sparse(kind, PLAIN))
    module.register_full_backward_pre_hook(lambda _, of_C: seen.update(of_C=of_C[0]))
    module.register_full_backward_hook(lambda _, of_B, of_C: seen.update(of_B=of_B[0], G=of_C[0]))
    module.weight.register_hook(lambda gradient: seen.update(of_weight=gradient))
    module.weight.register_post_accumulate_grad_hook(lambda leaf: seen.update(stored=leaf.grad))
    assert_trains(module, module, A)
    B, G = dense_for(A), output_gradient_for(A)
    assert_dense(seen["of_C"], G)
    assert_dense(seen["G"], G)
    assert_dense(seen["of_B"], gradient_of_B(A, G))
    assert_dense(values(seen["of_weight"]), gradient_of_values(A, B, G))
    assert seen["stored"] is module.weight.grad


@MODULES
def test_a_graph_that_is_kept_gives_its_gradients_again(module_class, kind):
    A = make_sparse(kind, PLAIN)
    module = module_class(make_sparse(kind, PLAIN))
    B, G = dense_for(A).requires_grad_(), output_gradient_for(A)
    C = module(B)
    for _ in range(2):
        of_weight, of_B = torch.autograd.grad(C, (module.weight, B), G, retain_graph=True)
        assert_dense(values(of_weight), gradient_of_values(A, B, G))
        assert_dense(of_B, gradient_of_B(A, G))


@MODULES
def test_no_grad_and_inference_mode_record_nothing(module_class, kind):
    A = make_sparse(kind, PLAIN)
    module, B = module_class(make_sparse(kind, PLAIN)), dense_for(A).requires_grad_()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            C = module(B)
        assert not C.requires_grad
        assert C.is_inference() == (mode is torch.inference_mode)
        assert_dense(C, product(A, B))
    assert_trains(module, module, A)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, through_a_file])
@MODULES
def test_a_copy_of_a_module_trains_by_itself(module_class, kind, copied):
    A = make_sparse(kind, PLAIN)
    module = module_class(make_sparse(kind, PLAIN))
    module(dense_for(A)).sum().backward()  # what a pass leaves at the parameter is not copied
    module.zero_grad()
    if module_class is Sparse and copied is copy.deepcopy:  # PyTorch copies no sparse Parameter so
        with pytest.raises(RuntimeError, match="unsupported memory format option Preserve"):
            copied(module)
        return
    other = copied(module)
    assert_trains(other, other, A)
    assert module.weight.grad is None
    values(other.weight).zero_()
    assert_trains(module, module, A)


@MODULES
def test_a_functional_call_takes_other_parameters(module_class, kind):
    A = make_sparse(kind, PLAIN)
    module = module_class(make_sparse(kind, PLAIN))
    doubled = (module.weight.detach() * 2).requires_grad_()
    twice = make_sparse(kind, PLAIN)
    values_of(twice).mul_(2)
    B, G = dense_for(A), output_gradient_for(A)
    C = torch.func.functional_call(module, {"weight": doubled}, (B,))
    assert_dense(C, product(twice, B))
    C.backward(G)
    assert_dense(values(doubled.grad), gradient_of_values(A, B, G))
    assert module.weight.grad is None


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@BOTH_FORMS
def test_anomaly_mode_finds_nothing_in_a_sound_pass_of_plain_tensors(kind):
    A = make_sparse(kind, PLAIN)
    for f in (function_of(A), spgrad.Pattern(A).mm):
        v, B, G = values_of(A).clone().requires_grad_(), dense_for(A), output_gradient_for(A)
        with torch.autograd.detect_anomaly():
            f(v, B).backward(G)
        assert_dense(v.grad, gradient_of_values(A, B, G))


@MODULES
def test_threads_train_one_module_at_the_same_time(module_class, kind):
    A = make_sparse(kind, (60, 50))
    module, G = module_class(make_sparse(kind, (60, 50))), output_gradient_for(A)
    B = dense_for(A).requires_grad_()
    passes = 64
    with ThreadPoolExecutor(8) as pool:
        for task in [pool.submit(lambda: module(B).backward(G)) for _ in range(passes)]:
            task.result()
    weight = module.weight.grad
    assert_dense(B.grad, passes * gradient_of_B(A, G))
    assert_dense(values(weight), passes * gradient_of_values(A, B, G))


@pytest.mark.parametrize("kind", ["unflagged", "csr32", "csr64"])
def test_passes_of_several_graphs_in_threads_of_their_own_give_their_own_gradients(kind):
    def run(seed):
        A = make_sparse(kind, (40, 30), seed=seed)
        module = Sparse(make_sparse(kind, (40, 30), seed=seed))
        assert_trains(module, module, A, passes=4)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(32)))
