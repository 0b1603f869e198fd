"""Meshes of two dimensions: rows of A and columns of B are shared out."""

import collections

import matrices
import pytest
import torch
import torch.distributed.checkpoint as dcp
from ranks import on_threads
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import spgrad
import spgrad.distributed

MESHES = ((1, 3), (2, 2), (3, 2))


def columns_of(p, mesh):
    """Give the columns of B of a rank, as DTensor has them: the last may have none."""
    size = -(-p // mesh.size(1))
    begin = min(mesh.get_local_rank(1) * size, p)
    return slice(begin, min(begin + size, p))


def on_mesh(shape, function, *arguments):
    """Call function(mesh, *arguments) on the ranks of a mesh; list results by row, column."""

    def on_rank(_):
        return function(init_device_mesh("cpu", shape), *arguments)

    results = on_threads(shape[0] * shape[1], on_rank)
    return [results[first : first + shape[1]] for first in range(0, len(results), shape[1])]


def whole(results):
    """Put together what the ranks have: blocks of a matrix, or copies of values."""
    return torch.cat([row[0] if row[0].dim() == 1 else torch.cat(row, 1) for row in results])


def of_rank(A, given, mesh):
    """Cut operands for a rank."""
    return matrices.Operands(
        *(
            part if part.dim() == 1 else part[:, columns_of(part.shape[1], mesh)]
            for part in matrices.of_rank(A, given)
        )
    )


def derivatives(mesh, matrix, given, options):
    A = matrices.share(mesh, matrix, **options)
    return matrices.derivatives(A.mm, A.sddmm, of_rank(A, given, mesh))


@pytest.mark.parametrize("p", [1, 5])
@pytest.mark.parametrize("shape", MESHES)
@pytest.mark.parametrize("name", ["grid", "random", "more ranks than rows"])
def test_all_derivatives_are_those_of_a_dense_matrix(name, shape, p):
    matrix = matrices.MATRICES[name]
    given = matrices.operands(matrix, p)
    expected = matrices.derivatives_of_dense(matrix, given)
    options = {"max_halo_bytes": 24} if shape == (3, 2) else {}
    results = on_mesh(shape, derivatives, matrix, given, options)
    for number, other in enumerate(expected):
        parts = [[rank[number] for rank in row] for row in results]
        assert torch.equal(whole(parts), other)
        if other.dim() == 1:
            assert all(torch.equal(copy, row[0]) for row in parts for copy in row)


def test_complex_numbers_are_conjugated_once():
    matrix = matrices.MATRICES["random"]
    given = matrices.operands(matrix, 4, dtype=torch.complex64)
    alone = on_mesh((1, 1), derivatives, matrix, given, {})
    results = on_mesh((2, 2), derivatives, matrix, given, {})
    for number, other in enumerate(alone[0][0]):
        assert torch.equal(whole([[rank[number] for rank in row] for row in results]), other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_small_numbers_are_rounded_once(dtype, monkeypatch):
    # 2048 + 1 is 2048 where each step is rounded to 11 bits or fewer, as backends do.
    A = matrices.Matrix(torch.tensor([0, 1]), torch.tensor([0]), (1, 1))
    parts = torch.tensor([[2048.0, 1, 1, 1, 1]], dtype=dtype)
    add_up = torch.distributed.all_reduce

    def see(numbers, *arguments, **options):
        assert numbers.dtype == torch.float32
        return add_up(numbers, *arguments, **options)

    monkeypatch.setattr(torch.distributed, "all_reduce", see)

    def gradient(mesh):
        sharded = matrices.share(mesh, A)
        values = torch.ones(1, dtype=dtype).requires_grad_()
        sharded.mm(values, parts[:, columns_of(5, mesh)]).sum().backward()
        return values.grad

    results = on_mesh((1, 5), gradient)
    assert all(torch.equal(each, parts.double().sum(1).to(dtype)) for each in results[0])


def test_tensors_of_all_ranks_are_taken_and_given():
    matrix = matrices.MATRICES["grid"]
    given = matrices.operands(matrix, 5)
    places = [Shard(0), Shard(1)]

    def product(mesh):
        A = matrices.share(mesh, matrix)
        values = A.local(given.values).requires_grad_()
        B = distribute_tensor(given.B, mesh, places).requires_grad_()
        C = A.mm(values, B)
        C.backward(distribute_tensor(given.X, mesh, places))
        d = A.sddmm(C.detach(), B.detach())
        assert list(C.placements) == list(B.grad.placements) == places
        return C.full_tensor(), values.grad, B.grad.full_tensor(), d

    dense, B = matrix.dense(given.values).requires_grad_(), given.B.clone().requires_grad_()
    C = dense @ B
    C.backward(given.X)
    rows = torch.repeat_interleave(torch.arange(36), matrix.crow_indices.diff())
    places_of_entries = rows, matrix.col_indices
    d = (C @ B.mT)[places_of_entries]
    results = on_mesh((2, 2), product)
    for row in results:
        for got_C, _, got_B, _ in row:
            assert torch.equal(got_C, C)
            assert torch.equal(got_B, B.grad)
    assert torch.equal(torch.cat([row[1][1] for row in results]), dense.grad[places_of_entries])
    assert torch.equal(torch.cat([row[1][3] for row in results]), d)


def test_one_sum_of_own_values_is_all_that_moves_between_columns(monkeypatch):
    matrix = matrices.MATRICES["random"]
    given = matrices.operands(matrix, 6)
    counts = collections.Counter()
    add_up, exchange = torch.distributed.all_reduce, torch.distributed.all_to_all_single

    def count_sum(tensor, *arguments, **options):
        counts["sums"] += 1
        counts["added"] += tensor.numel()
        return add_up(tensor, *arguments, **options)

    def count_rows(out, *arguments, **options):
        counts["exchanges"] += 1
        counts["received"] += out.nbytes
        return exchange(out, *arguments, **options)

    monkeypatch.setattr(torch.distributed, "all_reduce", count_sum)
    monkeypatch.setattr(torch.distributed, "all_to_all_single", count_rows)

    def step(mesh):
        A = matrices.share(mesh, matrix)
        mine = of_rank(A, given, mesh)
        torch.distributed.barrier()
        counts.clear()
        torch.distributed.barrier()
        A.mm(mine.values.requires_grad_(), mine.B.requires_grad_()).sum().backward()
        return A.halo_rows

    results = on_mesh((2, 3), step)
    assert (counts["sums"], counts["added"]) == (6, 3 * matrix.nnz)
    halo = sum(halo for row in results for halo in row)
    assert counts["exchanges"] == 2 * 6
    assert counts["received"] == 2 * halo * 2 * 8  # there and back, of two columns each


def message(call):
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def messages(shape, call):
    """List what is said on the ranks of a mesh, each once."""
    return {
        text for row in on_mesh(shape, lambda mesh: message(lambda: call(mesh))) for text in row
    }


def test_errors_of_one_rank_reach_those_with_other_columns():
    matrix = matrices.MATRICES["random"]

    def wrong_rows(mesh):
        A = matrices.share(mesh, matrix)
        is_it = tuple(mesh.get_coordinate()) == (0, 1)
        rows = A.column_starts[mesh.get_local_rank(0) + 1] - A.column_starts[mesh.get_local_rank(0)]
        A.mm(torch.ones(A.nnz), torch.ones(rows + is_it, 2))

    (text,) = messages((2, 2), wrong_rows)
    assert text.startswith("ValueError: rank (0, 1): B must be dense and have shape (19, p)")

    def wants_other_gradients(mesh):
        A = matrices.share(mesh, matrix)
        values = torch.ones(A.nnz, requires_grad=tuple(mesh.get_coordinate()) == (1, 1))
        A.mm(values, torch.ones(A.column_starts[1] if mesh.get_local_rank(0) == 0 else 18, 2))

    (text,) = messages((2, 2), wants_other_gradients)
    assert "rank (1, 1): wants gradients of operands [1]; rank (0, 0): wants no gradients" in text


def test_columns_may_be_as_many_as_they_are_but_not_on_ranks_with_the_same():
    matrix = matrices.MATRICES["grid"]

    def product(mesh, more):
        A = matrices.share(mesh, matrix)
        row, column = mesh.get_coordinate()
        return A.mm(torch.ones(A.nnz), torch.ones(18, 2 + 3 * column + more * row)).shape

    shapes = on_mesh((2, 2), product, 0)
    assert shapes == [[(18, 2), (18, 5)]] * 2
    (text,) = messages((2, 2), lambda mesh: product(mesh, mesh.get_local_rank(1)))
    assert "rank (1, 1): has p = 6; rank (0, 1): has p = 5" in text


@pytest.mark.parametrize("other", ["entries", "columns", "own columns"])
def test_ranks_with_other_columns_of_B_must_have_the_same_rows_of_A(other):
    def construct(mesh):
        is_it = tuple(mesh.get_coordinate()) == (1, 1)
        columns = torch.tensor([0, 3, 2, 1])
        if is_it and other == "columns":
            columns = columns.roll(1)
        last = 3 if is_it and other == "entries" else 4
        own = 2 if other == "own columns" and is_it else None
        offsets = torch.tensor([0, 2, last])
        spgrad.distributed.RowSharded.from_local(
            offsets, columns[:last], (4, 4), mesh, own_columns=own
        )

    texts = messages((2, 2), construct)
    assert all("the same rows of A" in text for text in texts)
    assert all(text.startswith("RuntimeError: rank (") for text in texts)


def test_a_mesh_of_three_dimensions_is_refused():
    matrix = matrices.MATRICES["no halo"]
    (text,) = messages(
        (1, 1, 1)[:2], lambda _: matrices.share(init_device_mesh("cpu", (1, 1, 1)), matrix)
    )
    assert text == "ValueError: mesh must have one or two dimensions, but received 3"


@pytest.mark.parametrize("source", ["rank", "file"])
def test_matrices_come_from_where_one_dimension_has_them(source, tmp_path):
    matrix = matrices.MATRICES["random"]
    given = matrices.operands(matrix, 4)
    A0 = torch.sparse_csr_tensor(*matrix[:2], given.values, matrix.shape)
    if source == "file":
        spgrad.distributed.save(tmp_path, A0)

    def product(mesh):
        RowSharded = spgrad.distributed.RowSharded
        if source == "file":
            A = RowSharded.from_file(tmp_path, mesh)
            values = A.local()
        else:
            has_it = tuple(mesh.get_coordinate()) == (1, 0)
            A = RowSharded.from_rank(A0 if has_it else None, 1, mesh)
            values = A.local(A0.values() if has_it else None)
        mine = of_rank(A, given, mesh)
        assert torch.equal(values, mine.values)
        return A.mm(values, mine.B)

    assert torch.equal(whole(on_mesh((2, 2), product)), matrix.dense(given.values) @ given.B)


def test_a_checkpoint_of_two_dimensions_is_loaded_by_any_mesh(tmp_path):
    pytest.importorskip("torch.distributed.checkpoint.protocol", reason="needs PyTorch 2.15")
    matrix = matrices.MATRICES["random"]
    numbers = torch.arange(matrix.nnz).float()

    def save(mesh):
        A = matrices.share(mesh, matrix)
        model = spgrad.distributed.ShardedValues(A, A.local(numbers))
        state = {"A": A, "training": spgrad.distributed.TrainingState(model)}
        dcp.save(state, checkpoint_id=tmp_path)

    def load(mesh):
        A = spgrad.distributed.RowSharded.from_checkpoint(tmp_path, "A", mesh)
        model = spgrad.distributed.ShardedValues(A, torch.zeros(A.nnz))
        state = {"A": A, "training": spgrad.distributed.TrainingState(model)}
        dcp.load(state, checkpoint_id=tmp_path)
        return model.values.detach()

    on_mesh((2, 2), save)
    for shape in ((2, 2), (1, 3), (3, 1)):
        results = on_mesh(shape, load)
        assert torch.equal(whole(results), numbers)
        assert all(torch.equal(copy, row[0]) for row in results for copy in row)


def test_a_layer_with_samples_on_ranks_learns_as_one_with_all():
    torch.manual_seed(0)
    whole_layer = spgrad.nn.SparseLinear(64, 16)
    x = torch.randn(10, 64)
    whole_layer(x).square().sum().backward()

    def gradients(mesh):
        first = tuple(mesh.get_coordinate()) == (0, 0)
        layer = spgrad.distributed.SparseLinear.from_rank(whole_layer if first else None, 0, mesh)
        samples = x[columns_of(10, mesh)]
        row = mesh.get_local_rank(0)
        begin, end = layer.A.column_starts[row : row + 2]
        layer(samples[:, begin:end]).square().sum().backward()
        fresh = spgrad.distributed.SparseLinear(layer.A)
        return layer.weight.grad, layer.bias.grad, fresh.weight.detach(), fresh.bias.detach()

    results = on_mesh((2, 3), gradients)
    for number, parameter in enumerate((whole_layer.weight, whole_layer.bias)):
        of_rows = torch.cat([row[0][number] for row in results])
        assert torch.allclose(of_rows, parameter.grad, rtol=1e-5, atol=1e-4)
    for row in results:
        for copy in row[1:]:
            assert all(map(torch.equal, copy, row[0]))
