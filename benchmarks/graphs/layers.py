"""Layers of PyTorch Geometric, forward and backward: through spgrad, and by its own scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch_geometric.nn

import spgrad.contrib.pyg
from benchmarks.graphs.rows import Row, forward_and_backward

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from benchmarks.operator.modes import Call

FEATURES = 128
LAYERS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "GCNConv": ((FEATURES, FEATURES), {"cached": True}),
    "SAGEConv": ((FEATURES, FEATURES), {"aggr": "mean"}),
    "GATConv": ((FEATURES, FEATURES // 8), {"heads": 8}),
}


def rows(*, quick: bool) -> Iterator[Row]:
    """Make the rows: on a random graph of 100,000 nodes and a million edges, or of 1,000."""
    nodes = 1_000 if quick else 100_000
    torch.manual_seed(0)
    edge_index = torch.randint(nodes, (2, 10 * nodes))
    x = torch.randn(nodes, FEATURES)
    for name, (sizes, options) in LAYERS.items():
        ours, theirs = (
            getattr(module, name)(*sizes, **options)
            for module in (spgrad.contrib.pyg, torch_geometric.nn)
        )
        ours.load_state_dict(theirs.state_dict())
        yield Row(
            f"{name}, {nodes:,} nodes",
            _step(ours, x, edge_index),
            {"PyTorch Geometric": _step(theirs, x, edge_index)},
        )


def _step(layer: nn.Module, x: Tensor, edge_index: Tensor) -> Call:
    x = x.clone().requires_grad_()
    return forward_and_backward(lambda: layer(x, edge_index), [x, *layer.parameters()])
