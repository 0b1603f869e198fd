"""Accuracy against the share of weights that exist, with fixed patterns and with regrown ones."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from examples.digits import figures, training
from examples.digits.network import SparseNetwork
from examples.threads import one_thread

DENSITIES = (0.005, 0.01, 0.02, 0.05, 0.1)
EPOCHS = 10
SEEDS = 2
QUICK_DENSITIES = (0.01, 0.05)
QUICK_EPOCHS = 4


@dataclass(frozen=True)
class Trained:
    """What became of one network."""

    density: float
    regrown: bool
    accuracy: float
    seconds: float
    weights_of_each_pixel: Tensor


def train_all(
    digits: training.Digits, densities: Sequence[float], epochs: int, seeds: int
) -> Iterator[Trained]:
    """Train networks of each density from the same patterns, weights and batches both ways."""
    for density in densities:
        for seed in range(seeds):
            for regrown in (False, True):
                generator = torch.Generator().manual_seed(seed)
                layers = [
                    (outputs, inputs, density * inputs) for outputs, inputs, _ in training.LAYERS
                ]
                network = SparseNetwork(layers, generator)
                start = time.perf_counter()
                list(training.train(network, digits, epochs, generator, regrow=regrown))
                seconds = time.perf_counter() - start
                accuracy = training.accuracy(network, digits.test_images, digits.test_labels)
                pixels = network.sparse_layers()[0].mask.sum(0)
                yield Trained(density, regrown, accuracy, seconds, pixels)


def run(console: Console, output: Path, *, quick: bool = False) -> None:
    """Train, print and draw the curves; end with a message if regrowing did not help."""
    densities, epochs, seeds = (
        (QUICK_DENSITIES, QUICK_EPOCHS, 1) if quick else (DENSITIES, EPOCHS, SEEDS)
    )
    digits = training.load()
    with one_thread():
        results = list(
            track(
                train_all(digits, densities, epochs, seeds),
                "fixed and regrown patterns",
                total=2 * len(densities) * seeds,
                console=console,
            )
        )
    curves: dict[bool, list[float]] = {False: [], True: []}
    for density in densities:
        line = f"{density:5.1%} of the weights:"
        for regrown, name in ((False, "fixed"), (True, "regrown")):
            of_both = [x for x in results if (x.density, x.regrown) == (density, regrown)]
            curves[regrown].append(mean(x.accuracy for x in of_both))
            seconds = mean(x.seconds for x in of_both)
            line += f"  {name} {curves[regrown][-1]:.1%} in {seconds:.1f} s"
        console.print(line, highlight=False)
    path = output / "digits_densities.png"
    # The sparsest networks differ most in where they look, if they learn at all: the second.
    shown = [x for x in results if x.density == densities[min(1, len(densities) - 2)]][:2]
    figures.save_densities(
        path, densities, curves[False], curves[True], [x.weights_of_each_pixel for x in shown]
    )
    console.print(f"saved {path}", highlight=False)
    if mean(curves[True]) < mean(curves[False]):
        message = "networks with regrown patterns should read as many digits as with fixed ones"
        raise SystemExit(message)
