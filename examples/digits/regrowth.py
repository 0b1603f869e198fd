"""Lets the pattern of sparse layers follow what they learn, as RigL does."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spgrad.nn import SparseLinear

# Steps between two changes of the pattern.
INTERVAL = 20
# Share of the weights that the first change replaces; it falls to zero along half a cosine.
FIRST_SHARE = 0.3
# Share of all steps after which the pattern stays, so that the last weights can settle.
LAST_CHANGE = 0.75


class Regrowth:
    """Replaces the smallest weights by absent ones with the largest gradients, now and then.

    Evci et al., "Rigging the Lottery: Making All Tickets Winners", 2020.
    """

    def __init__(
        self, layers: Sequence[SparseLinear], optimizer: torch.optim.Optimizer, steps: int
    ) -> None:
        """Watch the layers, which are trained for a number of steps."""
        self._optimizer = optimizer
        self._end = LAST_CHANGE * steps
        self._step = 0
        self._seen: dict[SparseLinear, tuple[Tensor, Tensor]] = {}
        for layer in layers:
            layer.register_forward_hook(self._remember)

    @property
    def _is_due(self) -> bool:
        return 0 < self._step < self._end and self._step % INTERVAL == 0

    def _remember(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Not where only the accuracy is measured.
        if self._is_due and output.requires_grad and isinstance(layer, SparseLinear):
            output.retain_grad()
            self._seen[layer] = inputs[0], output

    def step(self) -> None:
        """Change the patterns where it is time to; call it after each step of the optimiser."""
        share = FIRST_SHARE / 2 * (1 + math.cos(math.pi * self._step / self._end))
        for layer, (samples, output) in self._seen.items():
            if output.grad is not None:
                replace_weights(layer, samples, output.grad, share, self._optimizer)
        self._seen.clear()
        self._step += 1


def replace_weights(
    layer: SparseLinear,
    samples: Tensor,
    of_output: Tensor,
    share: float,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Replace a share of the weights; there are as many afterwards."""
    mask = layer.mask
    number = min(round(share * layer.nnz), mask.numel() - layer.nnz)
    grown, _ = layer.absent_gradient(samples, of_output, number)
    smallest = layer.weight.abs().topk(number, largest=False).indices
    rows, columns = mask.nonzero()[smallest].T
    mask[rows, columns] = False
    mask[grown[0], grown[1]] = True
    layer.change_pattern_(mask, optimizer=optimizer)
