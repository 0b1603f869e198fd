"""Modules whose parameters are shared out to ranks."""

import copy

import matrices
import pytest
import torch
import torch.distributed.checkpoint as dcp
from ranks import on_threads

import spgrad
from spgrad.distributed import RowSharded, ShardedValues, SparseLinear, TrainingState

INPUTS, OUTPUTS = 23, 17


def gradients(layer, x, of_output):
    x = x.clone().requires_grad_()
    output = layer(x)
    leaves = [x, *layer.parameters()]
    return [output.detach(), *torch.autograd.grad(output, leaves, of_output)]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("leading", "bias"), [((5,), True), ((2, 3), False), ((), True)])
def test_features_are_shared_out(size, leading, bias):
    generator = torch.Generator().manual_seed(0)
    whole = spgrad.nn.SparseLinear(
        INPUTS, OUTPUTS, bias, sparsity=0.7, dtype=torch.float64, generator=generator
    )
    x = matrices.floats(*leading, INPUTS, dtype=torch.float64)
    of_output = matrices.floats(*leading, OUTPUTS, dtype=torch.float64, seed=1)

    def on_rank(mesh):
        is_source = mesh is None or mesh.get_local_rank() == size - 1
        layer = SparseLinear.from_rank(whole if is_source else None, size - 1, mesh)
        (own_x, own_of_output) = (
            tensor.tensor_split(starts[1:-1], -1)[layer.A.rank]
            for tensor, starts in ((x, layer.A.column_starts), (of_output, layer.A.row_starts))
        )
        return gradients(layer, own_x, own_of_output)

    results = [on_rank(None)] if size == 1 else on_threads(size, on_rank)
    together = [torch.cat(parts, -1) for parts in zip(*results, strict=True)]
    expected = gradients(whole.to_dense(), x, of_output)
    expected[2] = expected[2][whole.mask]
    for result, other in zip(together, expected, strict=True):
        assert torch.allclose(result, other, rtol=1e-12)


def test_weights_are_drawn_as_those_of_a_layer_on_one_process():
    mask = matrices.random(OUTPUTS, INPUTS, 120).dense(torch.ones(120)).clamp(max=1)
    mask[3] = 0

    def on_rank(mesh):
        whole = mask.to_sparse_csr() if mesh.get_local_rank() == 0 else None
        A = RowSharded.from_rank(whole, 0, mesh)
        layer = SparseLinear(A, generator=torch.Generator().manual_seed(A.rank))
        return layer.weight.detach(), layer.bias.detach()

    weight, bias = (torch.cat(parts) for parts in zip(*on_threads(2, on_rank), strict=True))
    bound = mask.sum(1).rsqrt()
    of_each = bound.repeat_interleave(mask.sum(1).long())
    assert (weight.abs() <= of_each).all()
    assert (weight / of_each).std() == pytest.approx(3**-0.5, rel=0.15)
    assert (bias.abs() <= bound.nan_to_num(posinf=0)).all()
    assert bias[3] == 0
    assert len(bias.unique()) == OUTPUTS


def test_what_is_wrong_with_an_input_is_told_on_every_rank():
    def on_rank(mesh):
        rank = mesh.get_local_rank()
        whole = spgrad.nn.SparseLinear(6, 4) if rank == 0 else None
        layer = SparseLinear.from_rank(whole, 0, mesh)
        wrong = [(None, "B must be a torch.Tensor"), (torch.ones(2, 5), r"shape \(3, p\)")]
        wrong += [(torch.tensor(1.0), r"of shape \(\)")]
        wrong += [(torch.ones(1, 2, 3).to_sparse(), r"received torch\.sparse_coo")]
        nested = torch.nested.nested_tensor([torch.ones(2, 3)], layout=torch.jagged)
        wrong += [(nested, "dense .* nested")]
        for x, text in wrong:
            with pytest.raises(ValueError, match="rank 1: .*" + text):
                layer(x if rank == 1 else torch.ones(2, 3))
        for other in (torch.nn.Linear(6, 4), torch.eye(4).to_sparse_csr()):
            with pytest.raises(ValueError, match=r"rank 0: layer must be a spgrad\.nn\.SparseL"):
                SparseLinear.from_rank(other if rank == 0 else None, 0, mesh)
        assert layer(torch.ones(2, 3)).shape == (2, 2)

    on_threads(2, on_rank)
    A = RowSharded.from_rank(torch.eye(3).to_sparse_csr())
    with pytest.raises(ValueError, match=r"values must be dense .* shape \(3,\), but .*\(2,\)"):
        ShardedValues(A, torch.ones(2))
    with pytest.raises(ValueError, match="A must be a RowSharded, but received Tensor"):
        ShardedValues(torch.eye(3), torch.ones(3))


def test_a_layer_that_all_ranks_have_is_that_of_the_source_also_under_autocast():
    def on_rank(mesh):
        torch.manual_seed(mesh.get_local_rank())
        whole = spgrad.nn.SparseLinear(6, 4, sparsity=0.5)
        layer = SparseLinear.from_rank(whole, 1, mesh)
        x = torch.ones(2, 3)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == whole(torch.ones(2, 6)).dtype == torch.bfloat16
        return layer(x).detach(), whole(torch.ones(2, 6)).detach()

    (first, _), (second, expected) = on_threads(2, on_rank)
    assert torch.allclose(torch.cat([first, second], 1), expected)


def test_other_arguments_of_modules_and_helpers_are_refused():
    A = RowSharded.from_rank(torch.eye(3).to_sparse_csr())
    model = ShardedValues(A, torch.ones(3))
    with pytest.raises(ValueError, match=r"bias must be True or False, .* torch\.float16"):
        SparseLinear(A, torch.float16)
    with pytest.raises(ValueError, match=r"values must be dense .* torch\.sparse_coo"):
        ShardedValues(A, torch.ones(3).to_sparse())
    for helper in (spgrad.distributed.sharded_parameters, spgrad.distributed.data_parallel):
        with pytest.raises(ValueError, match=r"a torch\.nn\.Module, but received RowSharded"):
            helper(A)
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module, but .* NoneType"):
        TrainingState(None)
    with pytest.raises(ValueError, match=r"optimizers must be torch\.optim\.Optimizer, .* list"):
        TrainingState(model, [torch.optim.SGD(model.parameters())])


def test_copies_of_a_module_share_its_matrix():
    edges = ShardedValues(RowSharded.from_rank(torch.eye(3).to_sparse_csr()), torch.ones(3))
    other = copy.deepcopy(edges)
    assert other.A is edges.A
    assert copy.copy(edges.A) is edges.A
    assert other.values is not edges.values
    assert torch.equal(other.double()(torch.eye(3).double()), torch.eye(3).double())


def test_an_older_pytorch_saves_no_parts_as_if_they_were_copies(monkeypatch):
    monkeypatch.setattr("spgrad.distributed._parts._HAS_PROTOCOL", False)
    edges = ShardedValues(RowSharded.from_rank(torch.eye(3).to_sparse_csr()), torch.ones(3))
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(dcp.CheckpointException, match=r"need PyTorch 2\.15 or later"):
            dcp.save(edges.state_dict(), checkpoint_id="nowhere")
    finally:
        torch.distributed.destroy_process_group()
    for call in (edges.A.state_dict, lambda: TrainingState(edges)):
        with pytest.raises(RuntimeError, match=r"need PyTorch 2\.15 or later"):
            call()
