"""A multilayer perceptron whose weight matrices are sparse."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spgrad.nn import SparseLinear


class SparseNetwork(nn.Module):
    """Sparse layers, each given as `(outputs, inputs, fan_in)`, with ReLU between them."""

    def __init__(
        self, layers: Sequence[tuple[int, int, float]], generator: torch.Generator
    ) -> None:
        """Draw all layers."""
        super().__init__()
        modules: list[nn.Module] = []
        for outputs, inputs, fan_in in layers:
            sparsity = 1 - fan_in / inputs
            modules += [
                SparseLinear(inputs, outputs, sparsity=sparsity, generator=generator),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*modules[:-1])

    def forward(self, samples: Tensor) -> Tensor:
        """Take and return a sample per row."""
        logits: Tensor = self.layers(samples)
        return logits

    def sparse_layers(self) -> list[SparseLinear]:
        """Return the layers that have weights."""
        return [layer for layer in self.layers if isinstance(layer, SparseLinear)]
