"""The command line of the example."""

import contextlib
import copy
from pathlib import Path

import torch
import torch_geometric.nn
from rich.console import Console
from rich.table import Table

import spgrad.contrib.pyg
from examples.command_line import run_example
from examples.graph_network import data as photographs
from examples.graph_network import figures
from examples.graph_network.network import Network
from examples.graph_network.training import train
from examples.threads import one_thread

DESCRIPTION = (
    "Pixels of a photograph as a graph, labelled from a few strokes. The photograph, of a pavilion "
    "in Beijing, is by danielbuechele (CC BY 2.0), and scikit-learn ships it."
)
PICTURES = {
    "graph_network.png": (
        "The photograph with strokes, the label of each pixel, and the loss, seconds and "
        "memory of a step through both libraries"
    ),
}
SEED = 0
STEPS, QUICK_STEPS = 30, 20
# Rounding grows while one trains.
TOLERANCE = 1e-3


def run(console: Console, output: Path, quick: bool) -> None:  # noqa: FBT001 - as the command has it
    """Train through both libraries, and compare."""
    photograph = photographs.load(photographs.QUICK_STEP if quick else 1)
    console.print(
        f"{len(photograph.features):,} pixels, {photograph.edge_index.shape[1]:,} edges, "
        f"{int((photograph.learned != photographs.NOTHING).sum()):,} labels",
        highlight=False,
    )
    torch.manual_seed(SEED)
    inputs, outputs = photograph.features.shape[1], len(photographs.CLASSES)
    networks = {
        "spgrad": Network(spgrad.contrib.pyg, inputs, outputs),
        "PyTorch Geometric": Network(torch_geometric.nn, inputs, outputs),
    }
    networks["PyTorch Geometric"].load_state_dict(copy.deepcopy(networks["spgrad"].state_dict()))
    with one_thread() if quick else contextlib.nullcontext():
        outcomes = {
            name: train(network, photograph, QUICK_STEPS if quick else STEPS)
            for name, network in networks.items()
        }
    is_compared = photograph.held_out != photographs.NOTHING
    table = Table(
        "through", "loss", "held-out strokes", "seconds for each step", "memory of a step"
    )
    for name, outcome in outcomes.items():
        right = (outcome.labels == photograph.held_out)[is_compared].float().mean()
        table.add_row(
            name,
            f"{outcome.losses[0]:.4f} → {outcome.losses[-1]:.4f}",
            f"{right:.1%}",
            f"{outcome.seconds:.3g}",
            f"{outcome.memory / 1e6:,.0f} MB",
        )
    console.print(table)
    path = output / "graph_network.png"
    figures.save_labels(path, photograph, outcomes)
    console.print(f"saved {path}", highlight=False)
    found, expected = (torch.tensor(outcome.losses) for outcome in outcomes.values())
    if not torch.allclose(found, expected, rtol=TOLERANCE):
        message = "both libraries should have the same losses"
        raise SystemExit(message)


def main(arguments: list[str] | None = None) -> None:
    """Train and compare; end with a message if the losses differ."""
    run_example("graph_network", DESCRIPTION, run, arguments)


if __name__ == "__main__":
    main()
