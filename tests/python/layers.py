"""Layers with small integers as weights, and dense arithmetic to compare them with."""

import torch
from oracle import assert_dense, integers

from spgrad.nn import SparseLinear

OUT, IN = 4, 5
MASK = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 1]]).bool()
MASKS = {"some": MASK, "none": torch.zeros_like(MASK), "all": torch.ones_like(MASK)}
BUFFERS = ["crow_indices", "col_indices", "column_offsets", "column_entries"]
SAVED = BUFFERS[:2]


def layer_of(mask=MASK, *, bias=True, dtype=torch.float64, seed=0):
    """Make a layer with small integers as weights."""
    layer = SparseLinear(*reversed(mask.shape), bias, mask=mask, dtype=dtype)
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(integers(*parameter.shape, seed=seed + number))
    return layer


def weight_of(layer, mask=MASK):
    """Write the weights out, at the places of the mask."""
    return torch.zeros(mask.shape).double().masked_scatter(mask, layer.weight.detach().double())


def mask_of(layer):
    """Write out where the buffers have an entry."""
    mask = torch.zeros(layer.out_features, layer.in_features, dtype=torch.int64)
    for row in range(layer.out_features):
        first, last = layer.crow_indices[row : row + 2].tolist()
        for column in layer.col_indices[first:last].tolist():
            mask[row, column] += 1
    assert int(mask.max()) <= 1
    return mask.bool()


def assert_right(layer, mask=MASK, x=None, call=None):
    """Compare the layer and all of its gradients with dense arithmetic in float64."""
    dtype = layer.weight.dtype
    x = integers(3, layer.in_features, dtype=dtype) if x is None else x
    x = x.detach().requires_grad_()
    weight = weight_of(layer, mask)
    expected = x.detach().double() @ weight.T
    if layer.bias is not None:
        expected += layer.bias.detach().double()
    y = layer(x) if call is None else call(x)
    assert y.is_contiguous()
    assert y.dtype == dtype
    assert_dense(y, expected)
    G = integers(*y.shape, dtype=dtype, seed=9)
    gradients = torch.autograd.grad(y, [x, *layer.parameters()], G)
    rows, samples = G.double().reshape(-1, len(mask)), x.detach().double().reshape(-1, len(mask.T))
    of_weight = rows.T @ samples
    assert_dense(gradients[0], G.double() @ weight)
    assert_dense(gradients[1], of_weight[mask])
    if layer.bias is not None:
        assert_dense(gradients[2], rows.sum(0))
