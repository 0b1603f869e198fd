"""Layers of PyTorch Geometric through spgrad, beside PyTorch Geometric's own, by scatter."""

import copy
import gc

import pytest
import torch
import torch_geometric.nn as theirs
from oracle import seeded
from torch_geometric import EdgeIndex

from spgrad.contrib import pyg as ours

NODES, INPUTS, OUTPUTS = 30, 6, 4


def edges(sources=NODES, targets=NODES):
    """Make edges with loops and duplicates; the last targets have none."""
    ends = [torch.randint(n, (120,), generator=seeded(n)) for n in (sources, targets - 5)]
    made = torch.stack(ends)
    made[:, :4] = torch.tensor([[3, 3, 7, 7], [3, 3, 7, 8]])
    made[:, 4] = made[:, 5]
    return made


def numbers(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(len(shape)), dtype=dtype).requires_grad_()


def pair(name, *arguments, dtype=torch.float64, **options):
    """Make a layer of theirs, and one of ours with the same parameters."""
    torch.manual_seed(0)
    expected = getattr(theirs, name)(*arguments, **options).to(dtype)
    layer = getattr(ours, name)(*arguments, **options).to(dtype)
    layer.load_state_dict(expected.state_dict())
    assert repr(layer) == repr(expected)
    return layer, expected


def results(layer, inputs, others):
    """Compute the output of a layer, and the gradients of inputs and parameters."""
    copies = [x.detach().clone().requires_grad_() for x in inputs]
    out = layer(*others(*copies))
    weights = torch.randn(out.shape, generator=seeded(9), dtype=out.dtype)
    return [out, *torch.autograd.grad((out * weights).sum(), [*copies, *layer.parameters()])]


def assert_same(layers, inputs, others, **tolerances):
    found, expected = (results(layer, inputs, others) for layer in layers)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, **tolerances)


LAYERS = {
    "gcn": ("GCNConv", {}),
    "gcn, improved and cached": ("GCNConv", {"improved": True, "cached": True, "bias": False}),
    "gcn, no loops": ("GCNConv", {"add_self_loops": False}),
    "gcn, no norm": ("GCNConv", {"normalize": False}),
    "sage": ("SAGEConv", {}),
    "sage, sum": ("SAGEConv", {"aggr": "sum", "normalize": True, "project": True}),
    "sage, max": ("SAGEConv", {"aggr": "max"}),
    "sage, min": ("SAGEConv", {"aggr": "min", "root_weight": False}),
    "gat": ("GATConv", {}),
    "gat, heads": ("GATConv", {"heads": 3, "residual": True}),
    "gat, mean": ("GATConv", {"heads": 2, "concat": False, "bias": False}),
    "gat, no loops": ("GATConv", {"heads": 2, "add_self_loops": False, "negative_slope": -0.1}),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "options"), LAYERS.values(), ids=LAYERS)
def test_layers_and_their_gradients_are_those_of_pytorch_geometric(name, options, dtype):
    layers = pair(name, INPUTS, OUTPUTS, dtype=dtype, **options)
    graph = edges()
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    x = numbers(NODES, INPUTS, dtype=dtype)
    assert_same(layers, [x], lambda x: (x, graph), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("normalize", [True, False])
def test_weights_of_edges_are_learned(normalize):
    layers = pair("GCNConv", INPUTS, OUTPUTS, normalize=normalize)
    graph = edges()
    inputs = [numbers(NODES, INPUTS), numbers(graph.shape[1]).detach().abs()]
    assert_same(layers, inputs, lambda x, weight: (x, graph, weight))


def test_layers_of_one_graph_have_weights_of_their_own():
    graph, x = edges(), numbers(NODES, INPUTS)
    for options in ({}, {"improved": True}, {"normalize": False}, {"add_self_loops": False}):
        layer, expected = pair("GCNConv", INPUTS, OUTPUTS, **options)
        torch.testing.assert_close(layer(x, graph), expected(x, graph))


@pytest.mark.parametrize("loops", [True, False])
def test_attention_takes_features_of_edges(loops):
    layers = pair("GATConv", INPUTS, OUTPUTS, heads=2, edge_dim=3, add_self_loops=loops)
    graph = edges()
    inputs = [numbers(NODES, INPUTS), numbers(graph.shape[1], 3)]
    assert_same(layers, inputs, lambda x, features: (x, graph, features))


@pytest.mark.parametrize("with_targets", [True, False])
@pytest.mark.parametrize(("name", "options"), [LAYERS["sage"], LAYERS["gat, no loops"]])
def test_sources_and_targets_may_be_different_nodes(name, options, with_targets):
    sources, targets = 20, NODES
    layers = pair(name, (INPUTS, 5), OUTPUTS, **options)
    graph = edges(sources, targets)
    if with_targets:
        inputs = [numbers(sources, INPUTS), numbers(targets, 5)]
        assert_same(layers, inputs, lambda x, y: ((x, y), graph))
    else:
        arguments = {"x": (numbers(sources, INPUTS), None), "edge_index": graph}
        found, expected = (layer(size=[sources, targets], **arguments) for layer in layers)
        torch.testing.assert_close(found, expected)


def test_attention_is_returned_with_its_edges():
    layer, expected = pair("GATConv", INPUTS, OUTPUTS, heads=2)
    x = numbers(NODES, INPUTS)
    tables = []
    for each in (layer, expected):
        out, (places, attention) = each(x, edges(), return_attention_weights=True)
        torch.testing.assert_close(out, expected(x, edges()))
        table = torch.zeros(NODES, NODES, 2).double()
        tables.append(table.index_put(tuple(places), attention, accumulate=True))
    torch.testing.assert_close(*tables)
    assert isinstance(layer(x, edges(), return_attention_weights=False), torch.Tensor)


def test_large_logits_do_not_overflow_and_dropout_drops_all():
    layer, expected = pair("GATConv", INPUTS, OUTPUTS, dtype=torch.float32)
    graph, x = edges(), 1e4 * numbers(NODES, INPUTS, dtype=torch.float32)
    out = layer(x, graph)
    assert out.abs().max() > 1000
    torch.testing.assert_close(out, expected(x, graph), rtol=1e-4, atol=1e-2)
    layer.dropout = 1.0
    assert torch.equal(layer(x, graph), layer.bias.expand(NODES, -1))


def test_attention_has_second_derivatives():
    layer, _ = pair("GATConv", INPUTS, OUTPUTS, heads=2)
    graph = edges()
    x = numbers(NODES, INPUTS)
    assert torch.autograd.gradgradcheck(lambda x: layer(x, graph)[:3], x, atol=1e-4, fast_mode=True)


def test_graphs_are_made_once_and_go_with_their_edges(monkeypatch):
    made = []
    make = ours.Pattern.from_coo
    monkeypatch.setattr(ours.Pattern, "from_coo", lambda *a: made.append(make(*a)) or made[-1])
    x, graph = numbers(NODES, INPUTS), edges()
    layers = [pair("GATConv", INPUTS, OUTPUTS)[0] for _ in range(2)]
    before = [layer(x, graph) for layer in layers]
    assert len(made) == 1
    graph[1, :40] = 2
    after, again = layers[0](x, graph), layers[0](x, graph)
    assert len(made) == 2
    assert not torch.allclose(before[0], after)
    assert torch.equal(after, again)
    torch.testing.assert_close(after, copy.deepcopy(layers[0])(x, graph.clone()))
    remembered = len(ours._graphs)
    del graph
    gc.collect()
    assert len(ours._graphs) < remembered


def test_graphs_that_are_first_seen_in_inference_mode_are_trained_with_later():
    x = numbers(NODES, INPUTS)
    for name in ("GCNConv", "SAGEConv", "GATConv"):
        layer, expected = pair(name, INPUTS, OUTPUTS)
        graph = edges()
        with torch.inference_mode():
            torch.testing.assert_close(layer(x, graph), expected(x, graph))
            torch.testing.assert_close(layer(x, edges()), expected(x, graph))
        assert_same((layer, expected), [x], lambda x: (x, graph))  # noqa: B023


def test_other_forms_of_edges():
    layer, expected = pair("GCNConv", INPUTS, OUTPUTS)
    x, graph = numbers(NODES, INPUTS), edges()
    index = EdgeIndex(graph, sparse_size=(NODES, NODES))
    torch.testing.assert_close(layer(x, index), expected(x, graph))
    torch.testing.assert_close(layer(x, graph.int()), expected(x, graph))
    for wrong, received in (
        (graph.T, r"\(120, 2\)"),
        (torch.eye(NODES).to_sparse_csr(), "torch.sparse_csr"),
        ([[0], [1]], "list"),
    ):
        with pytest.raises(ValueError, match=f"must .*shape .2, edges.*, but received {received}"):
            layer(x, wrong)
    with pytest.raises(RuntimeError, match=r"must be in \[0, 30\), but received 99"):
        layer(x, torch.tensor([[0], [99]]))
    with pytest.raises(RuntimeError, match=r"must be int32 or int64, but received torch.float64"):
        layer(x, graph.double())


@pytest.mark.parametrize("name", ["gcn, no norm", "sage", "sage, max", "gat, no loops"])
def test_gradients_with_int32_edges_are_those_with_int64(name):
    # PyTorch's own are wrong (2.15): gather by an expanded int32 index reads other places.
    layer, expected = pair(LAYERS[name][0], INPUTS, OUTPUTS, **LAYERS[name][1])
    x, graph = [numbers(NODES, INPUTS)], edges()
    found = results(layer, x, lambda x: (x, graph.int()))
    for mine, right in zip(found, results(expected, x, lambda x: (x, graph)), strict=True):
        torch.testing.assert_close(mine, right)


@pytest.mark.parametrize(("name", "options"), [LAYERS["gcn"], LAYERS["sage, max"]])
def test_graphs_may_have_features_of_several_samples(name, options):
    layers = pair(name, INPUTS, OUTPUTS, **options)
    assert_same(layers, [numbers(2, NODES, INPUTS)], lambda x: (x, edges()))


@pytest.mark.parametrize(("name", "options"), LAYERS.values(), ids=LAYERS)
def test_graphs_may_have_no_edges_and_no_nodes(name, options):
    nothing = torch.empty(2, 0, dtype=torch.long)
    for nodes in (NODES, 0):
        layers = pair(name, INPUTS, OUTPUTS, **options)
        assert_same(layers, [numbers(NODES, INPUTS)], lambda x: (x[:nodes], nothing))  # noqa: B023


@pytest.mark.parametrize("normalize", [True, False])
def test_weights_of_another_dtype_are_promoted(normalize):
    layer, expected = pair("GCNConv", INPUTS, OUTPUTS, dtype=torch.float32, normalize=normalize)
    x, graph = numbers(NODES, INPUTS, dtype=torch.float32), edges()
    weight = numbers(graph.shape[1]).detach().abs()
    found, right = layer(x, graph, weight), expected(x, graph, weight)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


def test_what_is_not_served_is_refused():
    with pytest.raises(ValueError, match="flow must be 'source_to_target', but received 'target"):
        ours.GATConv(INPUTS, OUTPUTS, flow="target_to_source")
    with pytest.raises(ValueError, match=r"aggr must be one of 'mean'.*, but received 'median'"):
        ours.SAGEConv(INPUTS, OUTPUTS, aggr="median")
    with pytest.raises(ValueError, match="node_dim must be -2, but received 0"):
        ours.GCNConv(INPUTS, OUTPUTS, node_dim=0)
    x, graph = numbers(NODES, INPUTS).float(), edges()
    gcn, gat, sage = (
        getattr(ours, name)(INPUTS, OUTPUTS) for name in ("GCNConv", "GATConv", "SAGEConv")
    )
    for call, message in (
        (lambda: gcn((x, x), graph), r"x must be a tensor .*, but received tuple"),
        (lambda: gcn(x, graph, x[:1]), r"edge_weight must have shape \(120,\).*received \(1, 6\)"),
        (lambda: gat(x, graph, x), r"edge_attr must have shape \(120, .*, but received \(30, 6\)"),
        (lambda: gat(x[None], graph), r"x must have shape \(nodes, .*, but received \(1, 30, 6\)"),
        (lambda: sage(x, graph, size=(30, 29)), r"size must be \(30, 30\).*received \(30, 29\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_explained_models_are_those_of_pytorch_geometric():
    for name in ("GCNConv", "SAGEConv", "GATConv"):
        layer, expected = pair(name, INPUTS, OUTPUTS)
        for each in (layer, expected):
            each.explain = True
            each._edge_mask = numbers(120).detach()
            each._loop_mask = edges()[0] != edges()[1]
            each._apply_sigmoid = True
        x = numbers(NODES, INPUTS)
        torch.testing.assert_close(layer(x, edges()), expected(x, edges()))
        layer.explain = False
        assert not torch.allclose(layer(x, edges()), expected(x, edges()))


@pytest.mark.parametrize("name", ["GCNConv", "SAGEConv", "GATConv"])
def test_hooks_on_the_steps_are_called(name):
    layer, expected = pair(name, INPUTS, OUTPUTS)
    seen = []
    handle = layer.register_message_forward_hook(lambda *step: seen.append(step[-1]))
    x, graph = numbers(NODES, INPUTS), edges()
    torch.testing.assert_close(layer(x, graph), expected(x, graph))
    assert len(seen) == 1
    handle.remove()
    layer(x, graph)
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["GCNConv", "GATConv"])
def test_a_compiled_model_is_the_same(name):
    layer, expected = pair(name, INPUTS, OUTPUTS)
    graph, x = edges(), numbers(NODES, INPUTS)
    compiled = torch.compile(layer, backend="eager")
    assert_same((compiled, expected), [x], lambda x: (x, graph))
