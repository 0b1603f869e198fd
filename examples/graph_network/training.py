"""Training on the pixels under strokes, with the time of a step and the memory that it takes."""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import spgrad
from examples.graph_network.data import NOTHING, Photograph
from examples.graph_network.network import Network

LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Outcome:
    """What came of training."""

    losses: list[float]
    seconds: float
    """Of a step: the median of all but the first."""
    memory: int
    """The most bytes that a step had at once, above those that were there before it."""
    labels: Tensor
    """Of each pixel."""


def train(network: Network, photograph: Photograph, steps: int) -> Outcome:
    """Train the network on the strokes to learn from."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    places = (photograph.learned != NOTHING).nonzero().squeeze(1)
    labels = photograph.learned[places]

    def step() -> float:
        logits = network(photograph.features, photograph.edge_index)
        loss = cross_entropy(logits[places], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    losses, seconds = [step()], []
    spgrad.empty_cache()
    before = _start_counting_memory()
    for _ in range(steps - 1):
        start = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - start)
    memory = _bytes_of("VmHWM") - before
    with torch.no_grad():
        found = network(photograph.features, photograph.edge_index).argmax(dim=1)
    return Outcome(losses, median(seconds), memory, found)


def _start_counting_memory() -> int:
    """Let the kernel forget the most memory that there was, and return what there is."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _bytes_of("VmRSS")


def _bytes_of(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    message = f"/proc/self/status has no {name}"
    raise OSError(message)
