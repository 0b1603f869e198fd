"""A network with sparse weight matrices learns to read handwritten digits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from examples.digits import figures
from examples.digits.network import SparseNetwork
from examples.digits.regrowth import Regrowth
from examples.threads import one_thread
from spgrad.nn import SparseLinear

REQUIRED_ACCURACY = 0.95
EPOCHS = 50
BATCH_SIZE = 64
SEED = 0
# The learning rate rises to this value over the first tenth of the steps, then falls to zero.
PEAK_LEARNING_RATE = 0.02

# (outputs, inputs, inputs that each output sees): at least 95 % of every matrix is absent, which
# wide hidden layers make up for.
LAYERS = ((1024, 64, 3), (512, 1024, 51), (10, 512, 25))


@dataclass(frozen=True)
class Digits:
    """Scans of 8 × 8 pixels, one flattened scan per row, and the digits that they show."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load() -> Digits:
    """Load the scans, and hold a quarter of those of each digit out of training."""
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images / 16, labels, test_size=0.25, stratify=labels, random_state=SEED
    )
    return Digits(
        torch.tensor(train_images, dtype=torch.float32),
        torch.tensor(train_labels),
        torch.tensor(test_images, dtype=torch.float32),
        torch.tensor(test_labels),
    )


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that the network reads correctly."""
    return float((network(images).argmax(dim=1) == labels).float().mean())


def train(
    network: nn.Module,
    digits: Digits,
    epochs: int,
    generator: torch.Generator,
    *,
    regrow: bool = False,
) -> Iterator[float]:
    """Train the network, regrowing its patterns or not, and yield the mean loss of each epoch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=PEAK_LEARNING_RATE)
    samples = len(digits.train_labels)
    steps = epochs * math.ceil(samples / BATCH_SIZE)
    layers = [module for module in network.modules() if isinstance(module, SparseLinear)]
    regrowth = Regrowth(layers if regrow else [], optimizer, steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        PEAK_LEARNING_RATE,
        total_steps=steps,
        pct_start=0.1,
        cycle_momentum=False,
    )
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(samples, generator=generator).split(BATCH_SIZE):
            logits = network(digits.train_images[batch])
            loss = nn.functional.cross_entropy(logits, digits.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            regrowth.step()
            schedule.step()
            total += loss.item() * len(batch)
        yield total / samples


def run(console: Console, output: Path, epochs: int = EPOCHS) -> float:
    """Train, draw the figures, and return the accuracy on the held-out scans."""
    generator = torch.Generator().manual_seed(SEED)
    digits = load()
    network = SparseNetwork(LAYERS, generator)
    layers = network.sparse_layers()
    present = sum(layer.nnz for layer in layers)
    possible = sum(layer.out_features * layer.in_features for layer in layers)
    console.print(
        f"{len(digits.train_labels):,} scans to learn from, {len(digits.test_labels)} held out; "
        f"{present:,} of {possible:,} weights exist ({present / possible:.1%})",
        highlight=False,
    )

    losses, accuracies = [], []
    with one_thread():
        for loss in track(
            train(network, digits, epochs, generator), "training", total=epochs, console=console
        ):
            losses.append(loss)
            accuracies.append(accuracy(network, digits.test_images, digits.test_labels))

    loss_figure = output / "digits_loss.png"
    patterns_figure = output / "digits_patterns.png"
    figures.save_loss(loss_figure, losses, accuracies, REQUIRED_ACCURACY)
    figures.save_patterns(patterns_figure, layers)
    console.print(
        f"{accuracies[-1]:.1%} of the held-out digits are read correctly\n"
        f"saved {loss_figure} and {patterns_figure}",
        highlight=False,
    )
    if accuracies[-1] < REQUIRED_ACCURACY:
        message = f"the network should read {REQUIRED_ACCURACY:.0%} of the digits correctly"
        raise SystemExit(message)
    return accuracies[-1]
