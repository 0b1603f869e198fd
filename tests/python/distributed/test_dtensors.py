"""The plain operators on DTensors: each rank works on its part of the dense operands."""

import matrices
import pytest
import torch
from ranks import on_threads
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.experimental import implicit_replication

import spgrad
import spgrad.distributed

MATRIX = matrices.random(9, 8, 30)
ROWS = torch.repeat_interleave(torch.arange(9), MATRIX.crow_indices.diff())
GIVEN = matrices.operands(MATRIX, 6)
R, P = Replicate(), Partial()


def mm_and_sddmm(structure, mesh):
    """Give both products over a structure whose tensors are DTensors where there is a mesh."""

    def of_all(tensor):
        return tensor if mesh is None else distribute_tensor(tensor, mesh, [R] * mesh.ndim)

    if structure == "csr":
        indices = of_all(MATRIX.crow_indices), of_all(MATRIX.col_indices)
        return (lambda v, B: spgrad.csr_mm(*indices, v, B)), (
            lambda X, Y: spgrad.csr_sddmm(*indices, X, Y)
        )
    if structure == "coo":
        indices = of_all(torch.stack([ROWS, MATRIX.col_indices]))
        return (lambda v, B: spgrad.coo_mm(indices, v, MATRIX.shape, B)), (
            lambda X, Y: spgrad.coo_sddmm(indices, MATRIX.shape, X, Y)
        )
    pattern = spgrad.Pattern.from_csr(*MATRIX)
    return pattern.mm, pattern.sddmm


def gradients(products, values, B, X, of_values):
    """List both products and their gradients, with second derivatives of the first."""
    mm, sddmm = products
    values, B, X = (tensor.detach().requires_grad_() for tensor in (values, B, X))
    C = mm(values, B)
    first = torch.autograd.grad(C, (values, B), X, create_graph=True)
    second = torch.autograd.grad(first, (values, B, X), (of_values, B.detach()))
    both = torch.autograd.grad(mm(values, B), (values, B), X)  # by one operator for the two
    d = sddmm(X, B)
    results = [C, *first, *second, *both, d, *torch.autograd.grad(d, (X, B), of_values)]
    return [result.detach() for result in results]


@pytest.mark.parametrize("structure", ["csr", "coo", "pattern"])
def test_columns_are_shared_out_without_communication(structure):
    expected = gradients(mm_and_sddmm(structure, None), *GIVEN[:4])

    def on_rank(mesh):
        def put(tensor, placement):
            return distribute_tensor(tensor, mesh, [placement])

        S = Shard(1)
        operands = put(GIVEN.values, R), put(GIVEN.B, S), put(GIVEN.X, S), put(GIVEN.of_values, R)
        with CommDebugMode() as communication, implicit_replication():
            results = gradients(mm_and_sddmm(structure, mesh), *operands)
        placements = [result.placements[0] for result in results]
        assert placements == [S, P, S, P, S, S, P, S, P, S, S]
        return communication.get_total_counts(), [result.full_tensor() for result in results]

    for count, results in on_threads(3, on_rank):
        assert count == 0
        for result, other in zip(results, expected, strict=True):
            assert torch.equal(result, other)


def test_what_the_others_are_compared_with_is_right():
    first = gradients(mm_and_sddmm("csr", None), *GIVEN[:4])
    of_dense = (
        lambda values, B: MATRIX.dense(values) @ B,
        lambda X, Y: (X @ Y.mT)[ROWS, MATRIX.col_indices],
    )
    dense = gradients(of_dense, *GIVEN[:4])
    assert all(map(torch.equal, first, dense))


@pytest.mark.parametrize(
    "placements",
    [
        ((R, Shard(0)), (Shard(0), Shard(0)), (Shard(0), Shard(0))),  # heads, columns not
        ((R, P), (Shard(2), R), (Shard(2), R)),  # partial sums
        ((Shard(1), R), (Shard(1), Shard(0)), (R, Shard(2))),  # what is no part of a product
    ],
)
def test_heads_partial_sums_and_what_must_move_give_the_same(placements):
    # Two heads; the second has other numbers.
    given = [torch.stack([t, 2 * t + 1]) for t in (GIVEN.values, GIVEN.B, GIVEN.X)]
    expected = gradients(mm_and_sddmm("csr", None), *given, given[0])

    def on_rank(_):
        mesh = init_device_mesh("cpu", (2, 2))
        values, B, X = (
            distribute_tensor(tensor, mesh, [R if place == P else place for place in places])
            for tensor, places in zip(given, placements, strict=True)
        )
        if placements[0][1] == P:  # of its heads, each rank has one and zeros
            values = values.redistribute(placements=(R, Shard(0))).redistribute(placements=(R, P))
        results = gradients(mm_and_sddmm("csr", mesh), values, B, X, values)
        return [result.full_tensor() for result in results]

    for results in on_threads(4, on_rank):
        for result, other in zip(results, expected, strict=True):
            assert torch.equal(result, other)
