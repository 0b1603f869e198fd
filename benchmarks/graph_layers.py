"""Layers of PyTorch Geometric, forward and backward: through spgrad, and through its own scatter.

``python -m benchmarks.graph_layers``; times are medians of rounds in one process.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import torch
import torch_geometric.nn
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import spgrad.contrib.pyg
from benchmarks.operator.modes import Outcome
from benchmarks.operator.timing import Pace, time_rounds
from benchmarks.operator.units import three_digits

if TYPE_CHECKING:
    from benchmarks.operator.modes import Call

NODES, EDGES, QUICK_NODES, QUICK_EDGES = 100_000, 1_000_000, 1_000, 10_000
FEATURES = 128
LAYERS: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "GCNConv": ((FEATURES, FEATURES), {"cached": True}),
    "SAGEConv": ((FEATURES, FEATURES), {"aggr": "mean"}),
    "GATConv": ((FEATURES, FEATURES // 8), {"heads": 8}),
}
# Rounding, of sums in another order.
TOLERANCE = 1e-4


def main(arguments: list[str] | None = None) -> None:
    """Time the layers on a random graph; end with a message if the results differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph_layers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small graph")
    quick = parser.parse_args(arguments).quick
    nodes, edges = (QUICK_NODES, QUICK_EDGES) if quick else (NODES, EDGES)
    pace = Pace(seconds=0.1 if quick else 60, least_rounds=3 if quick else 7, most_rounds=50)
    torch.manual_seed(0)
    edge_index = torch.randint(nodes, (2, edges))
    x = torch.randn(nodes, FEATURES)
    table = Table("layer", "spgrad (ms)", "PyTorch Geometric (ms)", "ratio")
    for name, (sizes, options) in LAYERS.items():
        ours, theirs = (
            getattr(module, name)(*sizes, **options)
            for module in (spgrad.contrib.pyg, torch_geometric.nn)
        )
        ours.load_state_dict(theirs.state_dict())
        calls = {"ours": _step(ours, x, edge_index), "theirs": _step(theirs, x, edge_index)}
        found, expected = (_tensors(call()) for call in calls.values())
        if not all(_agree(*pair) for pair in zip(found, expected, strict=True)):
            message = f"{name} should give the same through both libraries"
            raise SystemExit(message)
        times = time_rounds(calls, pace)
        first, second = (times[key].median for key in calls)
        table.add_row(
            name, three_digits(1e3 * first), three_digits(1e3 * second), f"{second / first:.1f}"
        )
    Console().print(
        f"{nodes:,} nodes, {edges:,} edges, {FEATURES} features, forward and backward, "
        f"{torch.get_num_threads()} threads",
        table,
        sep="\n",
    )


def _step(layer: nn.Module, x: Tensor, edge_index: Tensor) -> Call:
    """Make a call that gives the output, and the gradients of x and of the parameters."""
    x = x.clone().requires_grad_()

    def call() -> Outcome:
        out: Tensor = layer(x, edge_index)
        dx, *others = torch.autograd.grad(out.square().mean(), [x, *layer.parameters()])
        return Outcome(out.detach(), tuple(others), dx)

    return call


def _tensors(outcome: Outcome) -> list[Tensor]:
    return [x for x in (outcome.C, *(outcome.dA or ()), outcome.dB) if x is not None]


def _agree(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


if __name__ == "__main__":
    main()
