"""Patterns that change while training goes on: what stays, what is carried along, what is refused.

Whatever becomes of a layer afterwards must work as with one that was made with its mask.
"""

import copy
import re

import pytest
import torch
from copies import pickled, through_a_file
from layers import BUFFERS, IN, MASK, MASKS, OUT, assert_right, layer_of, weight_of
from oracle import assert_dense, integers, seeded
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from spgrad.nn import SparseLinear

OTHER = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 1, 1]]).bool()
FEWER = MASK & OTHER
AFTER = {"as many": OTHER, "fewer": FEWER, "more": MASK | OTHER, **MASKS}


def changed(mask=OTHER, **arguments):
    """Make a layer whose pattern was changed."""
    layer = layer_of(**arguments)
    layer.change_pattern_(mask)
    return layer


@pytest.mark.parametrize("before", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_weights_that_stay_are_kept_and_new_ones_are_zero_or_given(before, after, dtype):
    for given in (None, integers(OUT, IN, dtype=dtype, seed=8)):
        layer = layer_of(before, dtype=dtype)
        parameters, dense = list(layer.parameters()), weight_of(layer, before)
        layer(torch.ones(2, IN, dtype=dtype)).sum().backward()
        new = after & ~before
        expected = torch.where(new, 0 if given is None else given.double(), dense) * after
        layer.change_pattern_(after.to(dtype), values=None if given is None else given[new])
        assert all(x is y for x, y in zip(layer.parameters(), parameters, strict=True))
        assert layer.weight.grad is None
        assert layer.bias.grad is not None
        assert torch.equal(layer.mask, after)
        assert torch.equal(weight_of(layer, after), expected)
        made = SparseLinear(IN, OUT, mask=after)
        for name in BUFFERS:
            assert torch.equal(layer.get_buffer(name), made.get_buffer(name))
        assert_right(layer, after)


def test_a_weight_that_is_zero_stays_as_it_is():
    layer = layer_of()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0, momentum=0.5)
    with torch.no_grad():
        layer.weight.zero_()
    optimizer.state[layer.weight]["momentum_buffer"] = torch.arange(1.0, 10.0).double()
    layer.change_pattern_(MASK, values=torch.zeros(0), optimizer=optimizer)
    assert optimizer.state[layer.weight]["momentum_buffer"].tolist() == [*range(1, 10)]


def test_patterns_that_were_loaded_unsorted_keep_their_weights():
    layer = layer_of()
    state, dense = layer.state_dict(), weight_of(layer)
    order = torch.tensor([1, 0, 6, 2, 4, 3, 5, 8, 7])
    state["weight"], state["col_indices"] = state["weight"][order], state["col_indices"][order]
    layer.load_state_dict(state)
    layer.change_pattern_(OTHER)
    assert torch.equal(weight_of(layer, OTHER), dense * OTHER)


OPTIMISERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}


@pytest.mark.parametrize("after", [OTHER, FEWER], ids=["as many", "fewer"])
@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_optimisers_go_on_as_those_of_a_dense_layer_under_a_mask(make, after):
    layer = layer_of()
    dense = [weight_of(layer).requires_grad_(), layer.bias.detach().clone().requires_grad_()]
    optimizers = [make(layer.parameters()), make(dense)]
    x, goal = integers(6, IN), integers(6, OUT, seed=5)
    for mask in (MASK, after):
        if mask is after:
            layer.change_pattern_(mask, optimizer=optimizers[0])
            with torch.no_grad():
                dense[0] *= mask
                for value in optimizers[1].state[dense[0]].values():
                    if value.dim() == 2:
                        value.mul_(MASK & mask)
        for _ in range(3):
            for output, optimizer in (
                (layer(x), optimizers[0]),
                (nn.functional.linear(x, dense[0] * mask, dense[1]), optimizers[1]),
            ):
                optimizer.zero_grad()
                (output - goal).square().mean().backward()
                optimizer.step()
        torch.testing.assert_close(weight_of(layer, mask), dense[0].detach() * mask)
        torch.testing.assert_close(layer.bias, dense[1])


def test_an_optimiser_that_took_no_step_keeps_no_state():
    layer = layer_of()
    optimizer = torch.optim.Adam(layer.parameters())
    layer.change_pattern_(OTHER, optimizer=optimizer)
    assert not optimizer.state


REFUSED = {
    "shape": (lambda layer: layer.change_pattern_(OTHER.T), ValueError, "mask must be a dense te"),
    "numbers": (lambda layer: layer.change_pattern_(OTHER * 2), ValueError, "mask must be bool or"),
    "type": (lambda layer: layer.change_pattern_(None), ValueError, "mask must be a dense tensor"),
    "values": (
        lambda layer: layer.change_pattern_(OTHER, values=torch.ones(9)),
        ValueError,
        "values must have shape (4,), one for each new weight, and a real dtype, but received sha",
    ),
    "complex": (
        lambda layer: layer.change_pattern_(OTHER, values=torch.ones(4, dtype=torch.complex64)),
        ValueError,
        "values must have shape (4,), one for each new weight, and a real dtype, but",
    ),
    "list": (
        lambda layer: layer.change_pattern_(OTHER, values=[1.0]),
        ValueError,
        "values must be a dense tensor, but received list",
    ),
    "sparse": (
        lambda layer: layer.change_pattern_(OTHER, values=torch.ones(4).to_sparse()),
        ValueError,
        "values must be a dense tensor, but received torch.sparse_coo",
    ),
    "other optimiser": (
        lambda layer: layer.change_pattern_(OTHER, optimizer=torch.optim.Adam([layer.bias])),
        ValueError,
        "optimizer must have the weight of the layer, but received one that does not",
    ),
    "LBFGS": (
        lambda layer: layer.change_pattern_(OTHER, optimizer=torch.optim.LBFGS(layer.parameters())),
        ValueError,
        "optimizer must be a torch.optim.Optimizer that keeps a state for each parameter, but rec",
    ),
    "no optimiser": (
        lambda layer: layer.change_pattern_(OTHER, optimizer=[layer.weight]),
        ValueError,
        "optimizer must be a torch.optim.Optimizer that keeps a state for each parameter, but rec",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_a_call_that_fails_changes_nothing(call, error, message):
    layer = layer_of()
    layer(torch.ones(1, IN).double()).sum().backward()
    before = copy.deepcopy(layer)
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call(layer)
    for name, tensor in (*before.named_parameters(), *before.named_buffers()):
        assert torch.equal(getattr(layer, name), tensor)
    assert layer.weight.grad is not None
    assert_right(layer)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: parametrizations.weight_norm(layer, "weight"),
        lambda layer: prune.l1_unstructured(layer, "weight", amount=2),
    ],
    ids=["weight_norm", "prune"],
)
def test_a_parametrised_layer_refuses_and_one_without_data_too(change):
    layer = layer_of()
    change(layer)
    with pytest.raises(RuntimeError, match="weight must be a plain parameter where the pattern"):
        layer.change_pattern_(OTHER)
    with pytest.raises(RuntimeError, match="the layer must have data where its pattern changes"):
        layer_of().to("meta").change_pattern_(OTHER)


def test_the_weight_can_be_normalised_and_freed_again():
    layer, x, G = layer_of(), integers(3, IN), integers(3, OUT, seed=4)
    weight = layer.weight.detach().clone()
    parametrizations.weight_norm(layer, "weight", dim=None)
    torch.testing.assert_close(layer.weight.detach(), weight)
    layer(x).backward(G)
    length, direction = layer.parametrizations.weight.parameters()
    gradient, norm = (G.T @ x)[MASK], weight.norm()
    torch.testing.assert_close(length.grad, gradient @ weight / norm)
    along = (gradient @ weight) * weight / norm**2
    torch.testing.assert_close(direction.grad, gradient - along)
    assert layer.to_dense().weight.requires_grad
    copied = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    copied.load_state_dict(layer.state_dict())
    assert torch.equal(copied(x), layer(x))
    parametrize.remove_parametrizations(layer, "weight")
    layer.change_pattern_(OTHER)
    torch.testing.assert_close(weight_of(layer, OTHER), weight_of(layer_of()) * OTHER)


@pytest.mark.parametrize("dim", [0, None])
def test_a_normalised_weight_is_drawn_anew_as_a_plain_one_is(dim):
    layers = [SparseLinear(IN, OUT, mask=MASK) for _ in range(2)]
    parametrizations.weight_norm(layers[1], "weight", dim=dim)
    for layer in layers:
        layer.reset_parameters(seeded(5))
    torch.testing.assert_close(layers[1].weight, layers[0].weight)
    assert torch.equal(layers[1].bias, layers[0].bias)


def loaded(layer):
    """Load the state of a layer into one with another number of weights."""
    other = layer_of(MASKS["all"])
    weight = other.weight
    graph = other(torch.ones(1, IN).double()).sum()
    graph.backward()
    assert other.load_state_dict(layer.state_dict()) == ([], [])
    assert other.weight is weight
    assert weight.grad is None
    return other


def shared(layer):
    layer.share_memory()
    assert all(x.is_shared() for x in (*layer.buffers(), *layer.parameters()))
    return layer


@pytest.mark.parametrize("mask", [MASK, OTHER, FEWER], ids=["the same", "as many", "fewer"])
@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        pickled,
        lambda layer: layer.to("cpu"),
        lambda layer: layer.float(),
        lambda layer: layer.half().double(),
        shared,
        lambda layer: SparseLinear.from_dense(layer.to_dense(), mask=layer.mask),
        loaded,
        through_a_file,
    ],
    ids=[
        *("deepcopy", "pickle", "to", "float", "half", "share_memory"),
        *("dense and back", "state_dict", "file"),
    ],
)
def test_what_becomes_of_a_layer_works_as_the_layer_does(mask, copied):
    layer = copied(layer_of() if mask is MASK else changed(mask))
    assert {buffer.dtype for buffer in layer.buffers()} == {torch.int32}
    assert_right(layer, mask)
    layer.change_pattern_(MASK)
    assert_right(layer)


def test_a_model_with_its_optimiser_is_resumed_with_another_number_of_weights():
    def make():
        layer = layer_of(bias=False)
        return layer, torch.optim.Adam(layer.parameters(), lr=0.1)

    def step(layer, optimizer):
        optimizer.zero_grad()
        layer(integers(6, IN)).square().mean().backward()
        optimizer.step()

    first, second = make(), make()
    step(*first)
    first[0].change_pattern_(FEWER, optimizer=first[1])
    step(*first)
    for one, other in zip(first, second, strict=True):
        other.load_state_dict(copy.deepcopy(one.state_dict()))
    step(*first)
    step(*second)
    assert torch.equal(first[0].weight, second[0].weight)


@pytest.mark.parametrize("mask", [OTHER, FEWER], ids=["as many", "fewer"])
def test_a_graph_of_before_the_change_does_not_reach_what_comes_after(mask):
    layer, x = layer_of(), integers(3, IN).requires_grad_()
    pending, done = layer(x).sum(), layer(x).sum()
    done.backward()
    layer.change_pattern_(mask)
    assert_right(layer, mask)  # while the graphs are there
    layer(x).sum().backward()
    assert layer.weight.grad.shape == layer.weight.shape
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pending.backward()


def test_a_pattern_that_was_changed_in_inference_mode_can_be_trained_with():
    layer = layer_of()
    with torch.inference_mode():
        layer.change_pattern_(FEWER)
    assert_right(layer, FEWER)
    layer(torch.ones(1, IN).double()).sum().backward()


def test_a_state_of_a_plain_layer_does_not_fit_a_parametrised_one():
    layer = layer_of()
    parametrizations.weight_norm(layer, "weight", dim=None)
    with pytest.raises(RuntimeError, match="size mismatch for col_indices"):
        layer.load_state_dict(layer_of(FEWER).state_dict())
    assert layer.weight.shape == (layer_of().nnz,)


def test_hooks_of_the_weight_stay():
    layer, seen = layer_of(), []
    layer.weight.register_hook(lambda gradient: seen.append(len(gradient)))
    layer.weight.register_post_accumulate_grad_hook(lambda weight: seen.append(len(weight.grad)))
    graph = layer(torch.ones(1, IN).double()).sum()
    layer.change_pattern_(FEWER)
    layer(torch.ones(1, IN).double()).sum().backward()
    assert seen == 2 * [int(FEWER.sum())]
    assert graph.requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_compiled_layer_follows_its_pattern():
    torch.compiler.reset()
    layer = layer_of()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for mask in (MASK, OTHER, FEWER):
        layer.change_pattern_(mask)
        assert_right(layer, mask, call=compiled)


@pytest.mark.usefixtures("group_of_one_process")
@pytest.mark.parametrize(("mask", "anew"), [(OTHER, False), (OTHER, True), (FEWER, True)])
def test_distributed_training_goes_on(mask, anew):
    layer, x = layer_of(), integers(3, IN)
    parallel = nn.parallel.DistributedDataParallel(layer)
    parallel(x).sum().backward()
    layer.change_pattern_(mask)
    if anew:
        parallel = nn.parallel.DistributedDataParallel(layer)
    for _ in range(2):
        layer.zero_grad()
        parallel(x).sum().backward()
        assert_dense(layer.weight.grad, x.sum(0).expand(OUT, IN)[mask])
    del parallel


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("shape", [(), (6,), (0,), (2, 3)], ids=str)
def test_the_largest_gradients_of_absent_weights(rows, mask, shape, monkeypatch):
    monkeypatch.setattr("spgrad.nn._absent_gradient.BLOCK", rows * IN)
    layer = layer_of(mask)
    generator = seeded(3)
    x, g = (torch.randn(*shape, size, generator=generator).double() for size in (IN, OUT))
    dense = nn.Linear(IN, OUT).double()
    dense(x).backward(g)
    gradient = dense.weight.grad * ~mask
    for k in {0, min(3, int((~mask).sum())), int((~mask).sum())}:
        indices, values = layer.absent_gradient(x, g, k)
        assert (indices.shape, indices.dtype) == ((2, k), torch.int64)
        assert values.dtype == x.dtype
        assert not mask[tuple(indices)].any()
        assert len(indices.unique(dim=1).T) == k
        torch.testing.assert_close(values, gradient[tuple(indices)])
        largest = gradient.flatten().abs().sort(descending=True).values[:k]
        torch.testing.assert_close(values.abs(), largest)


def test_the_dense_gradient_is_never_there_as_a_whole(monkeypatch):
    class Recorded(torch.utils._python_dispatch.TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            result = function(*arguments, **(options or {}))
            for x in result if isinstance(result, tuple) else (result,):
                if isinstance(x, torch.Tensor):
                    self.largest = max(self.largest, x.numel())
            return result

    monkeypatch.setattr("spgrad.nn._absent_gradient.BLOCK", 1000)
    layer = SparseLinear(100, 100, generator=seeded())
    with Recorded() as recorded:
        layer.absent_gradient(torch.randn(4, 100), torch.randn(4, 100), 50)
    assert recorded.largest <= 1000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(3, OUT), torch.ones(3, OUT), 1), ValueError, "input must have shape (*, 5)"),
        (
            (torch.ones(3, IN), torch.ones(2, OUT), 1),
            ValueError,
            "grad_output must have shape (3, 4), but received (2, 4)",
        ),
        (([1.0], torch.ones(OUT), 1), ValueError, "input must be a torch.Tensor, but received"),
        ((torch.ones(IN), None, 1), ValueError, "grad_output must be a torch.Tensor, but rec"),
        (
            (torch.ones(IN), torch.ones(OUT), 12),
            ValueError,
            "k must be from 0 to the number of absent weights, 11, but received 12",
        ),
        ((torch.ones(IN), torch.ones(OUT), -1), ValueError, "k must be from 0 to the number of"),
        ((torch.ones(IN), torch.ones(OUT), 1.0), ValueError, "k must be from 0 to the number of"),
        ((torch.ones(IN), torch.ones(OUT).double(), 1), RuntimeError, "grad_output must have the"),
    ],
)
def test_wrong_arguments_of_the_absent_gradient_are_refused(arguments, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        layer_of().absent_gradient(*arguments)
