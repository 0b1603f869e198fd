"""Models that were exported to ONNX, in onnxruntime."""

import typing

import onnxruntime
import pytest
import torch

import spgrad
from spgrad.contrib.onnx import translation_table


def exported(model, inputs, *, dense=False, **options):
    """Export a model, and give what computes it in onnxruntime."""
    program = torch.onnx.export(
        model.eval(),
        inputs,
        custom_translation_table=translation_table(dense=dense),
        verbose=False,
        **options,
    )
    file = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def compute(*numbers):
        given = {name: x.numpy() for name, x in zip(names, numbers, strict=True)}
        return [torch.from_numpy(x) for x in session.run(None, given)], len(file)

    return compute


class Products(torch.nn.Module):
    """One matrix in three structures, with an empty row, a duplicate, and heads."""

    def __init__(self):
        super().__init__()
        indices = torch.tensor([[3, 0, 3, 0, 0], [1, 4, 0, 4, 2]])
        self.register_buffer("indices", indices)
        self.unsorted = spgrad.nn.PatternBuffer(spgrad.Pattern.from_coo(indices, (5, 6)))
        self.register_buffer("crow_indices", torch.tensor([0, 3, 3, 3, 5, 5]))
        self.register_buffer("col_indices", torch.tensor([4, 4, 2, 1, 0]))
        generator = torch.Generator().manual_seed(0)
        self.values = torch.nn.Parameter(torch.randn(2, 5, generator=generator))

    def forward(self, B):
        first = self.values[0]
        return (
            self.unsorted(self.values, B),
            spgrad.coo_mm(self.indices, first, (5, 6), B),
            spgrad.csr_mm(self.crow_indices, self.col_indices, first, B),
        )


@pytest.mark.parametrize("dense", [False, True])
def test_the_products_are_those_of_dense_matrices(dense):
    model = Products()
    B = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    (of_heads, of_coo, of_csr), _ = exported(model, (B,), dense=dense)(B)
    rows = torch.tensor([0, 0, 0, 3, 3])
    for result, places, values in (
        (of_heads[0], model.indices, model.values[0]),
        (of_heads[1], model.indices, model.values[1]),
        (of_coo, model.indices, model.values[0]),
        (of_csr, torch.stack([rows, model.col_indices]), model.values[0]),
    ):
        matrix = torch.zeros(5, 6).double()
        for row, column, value in zip(*places.tolist(), values.tolist(), strict=True):
            matrix[row, column] += value
        torch.testing.assert_close(result.double(), matrix @ B.double(), rtol=1e-5, atol=1e-6)


def test_a_layer_takes_any_number_of_samples_and_its_file_has_only_the_weights_that_are_there():
    layer = spgrad.nn.SparseLinear(300, 200, sparsity=0.99)
    samples = torch.export.Dim("samples", min=1, max=1000)
    compute = exported(layer, (torch.randn(4, 300),), dynamic_shapes=({0: samples},))
    x = torch.randn(7, 300)
    (result,), size = compute(x)
    dense = layer.to_dense().double()
    torch.testing.assert_close(result.double(), dense(x.double()), rtol=1e-5, atol=1e-6)
    assert size < 200 * 300 * 4 / 2


@pytest.mark.parametrize("dense", [False, True])
def test_a_layer_of_float16_is_summed_in_float32(dense):
    layer = spgrad.nn.SparseLinear(300, 200, sparsity=0.9).half()
    x = torch.randn(3, 300).half()
    (result,), _ = exported(layer, (x,), dense=dense)(x)
    assert result.dtype == torch.float16
    torch.testing.assert_close(result, layer(x), rtol=2e-3, atol=2e-3)


def test_a_batch_of_structures_is_refused():
    translate = translation_table()[torch.ops.spgrad.coo_mm.default]
    with pytest.raises(NotImplementedError, match=r"one sparse matrix .*received \(2, 3, 3\)"):
        translate(None, None, [2, 3, 3], None)


def test_the_exporter_can_read_the_annotations():
    for translate in translation_table().values():
        assert "B" in typing.get_type_hints(translate)
