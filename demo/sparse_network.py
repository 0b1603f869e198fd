"""A multilayer perceptron whose weight matrices are sparse."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spgrad import sparse_mm


class SparseLinear(nn.Module):
    """`weight @ x + bias` with a fixed random pattern of weights, for samples in columns."""

    def __init__(self, outputs: int, inputs: int, fan_in: int, generator: torch.Generator) -> None:
        """Draw the pattern and the first values."""
        super().__init__()
        # The places of the largest of some random numbers are a draw without replacement.
        columns = torch.rand(outputs, inputs, generator=generator).topk(fan_in).indices
        # He initialisation with the inputs that exist, not the width of the matrix.
        values = torch.randn(outputs * fan_in, generator=generator) * math.sqrt(2 / fan_in)
        rows = torch.arange(outputs).repeat_interleave(fan_in)
        # COO rather than CSR: PyTorch's addition of CSR tensors, which the optimiser calls, loses
        # memory in every step (2.15).
        self.weight = nn.Parameter(
            torch.sparse_coo_tensor(
                torch.stack([rows, columns.sort(dim=1).values.flatten()]),
                values,
                (outputs, inputs),
                is_coalesced=True,
                check_invariants=True,
            )
        )
        self.bias = nn.Parameter(torch.zeros(outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return sparse_mm(self.weight, x) + self.bias


class SparseNetwork(nn.Module):
    """Sparse layers, each given as `(outputs, inputs, fan_in)`, with ReLU between them."""

    def __init__(self, layers: Sequence[tuple[int, int, int]], generator: torch.Generator) -> None:
        """Draw all layers."""
        super().__init__()
        modules: list[nn.Module] = []
        for sizes in layers:
            modules += [SparseLinear(*sizes, generator), nn.ReLU()]
        self.layers = nn.Sequential(*modules[:-1])

    def forward(self, samples: Tensor) -> Tensor:
        """Take and return a sample per row, as is usual, though the layers work on columns."""
        logits: Tensor = self.layers(samples.T)
        return logits.T

    def weights(self) -> list[Tensor]:
        """Return the weight matrices, in COO, with the flag that SGD with momentum drops."""
        return [
            layer.weight.detach().coalesce()
            for layer in self.layers
            if isinstance(layer, SparseLinear)
        ]
