"""The network, of layers of spgrad or of PyTorch Geometric."""

from types import ModuleType

from torch import Tensor, nn
from torch.nn.functional import elu

HIDDEN, HEADS, CHANNELS = 32, 8, 8


class Network(nn.Module):
    """GraphSAGE, attention with heads, then a graph convolution."""

    def __init__(self, layers: ModuleType, inputs: int, outputs: int) -> None:
        """Make the layers: ``torch_geometric.nn`` and ``spgrad.contrib.pyg`` have the same."""
        super().__init__()
        self.sage = layers.SAGEConv(inputs, HIDDEN, aggr="mean")
        self.attention = layers.GATConv(HIDDEN, CHANNELS, heads=HEADS)
        self.convolution = layers.GCNConv(HEADS * CHANNELS, outputs, cached=True)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Compute logits of the classes, for each pixel."""
        x = elu(self.sage(x, edge_index))
        x = elu(self.attention(x, edge_index))
        logits: Tensor = self.convolution(x, edge_index)
        return logits
