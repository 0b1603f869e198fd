"""Checkpoints of sharded matrices: any number of ranks goes on where any other number was."""

import functools

import matrices
import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from ranks import on_threads

from spgrad.distributed import RowSharded, ShardedValues, TrainingState

pytest.importorskip("torch.distributed.checkpoint.protocol", reason="needs PyTorch 2.15")

# Eight ranks have 4 rows each but for the last two, with 2 and none.
MATRIX = matrices.random(26, 26, 150)
VALUES, B, X, *_ = matrices.operands(MATRIX, 3, matrices.floats, dtype=torch.float64)
SAVED_STARTS = [0, 3, 3, 20, 26]


class Network(torch.nn.Module):
    """A sharded matrix between parameters that all ranks have, with a square of their own."""

    def __init__(self, A, values):
        super().__init__()
        self.edges = ShardedValues(A, values)
        self.scale = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, B):
        return self.edges(B) * self.scale


def trained(model, optimizer, B, X, steps):
    """Train; gradients of what ranks share are added up where there are several."""
    for _ in range(steps):
        optimizer.zero_grad()
        (model(B) - X).square().sum().backward()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(model.scale.grad)
        optimizer.step()


def state_of(model, optimizer):
    """List the numbers of the matrix, then those that all ranks have."""
    moments = [optimizer.state[p] for p in (model.edges.values, model.scale)]
    of_all = [model.scale.detach(), moments[1]["exp_avg"], moments[0]["step"]]
    return [model.edges.values.detach(), moments[0]["exp_avg"], moments[0]["exp_avg_sq"]], of_all


@functools.cache
def expected(steps):
    """Train a dense matrix on one process."""

    class Dense(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.values = torch.nn.Parameter(VALUES.clone())

        def forward(self, B):
            return MATRIX.dense(self.values) @ B

    model = Network.__new__(Network)
    torch.nn.Module.__init__(model)
    model.edges = Dense()
    model.scale = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    trained(model, optimizer, B, X, steps)
    return state_of(model, optimizer)


def cut(A, *tensors):
    return [
        matrices.pieces(starts, tensor)[A.rank]
        for starts, tensor in zip((A.column_starts, A.row_starts), tensors, strict=True)
    ]


def save(mesh, path):
    A = matrices.share(mesh, MATRIX, row_starts=SAVED_STARTS)
    model = Network(A, A.local(VALUES))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    trained(model, optimizer, *cut(A, B, X), 2)
    dcp.save({"A": A, "training": TrainingState(model, optimizer)}, checkpoint_id=path)


def load_and_go_on(mesh, path, row_starts):
    A = RowSharded.from_checkpoint(path, "A", mesh, row_starts=row_starts)
    model = Network(A, torch.zeros(A.nnz, dtype=torch.float64))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.7)
    dcp.load({"A": A, "training": TrainingState(model, optimizer)}, checkpoint_id=path)
    loaded = state_of(model, optimizer)
    loaded = [[tensor.clone() for tensor in tensors] for tensors in loaded]
    trained(model, optimizer, *cut(A, B, X), 1)
    return loaded, state_of(model, optimizer), (A.state_dict(), A.row_starts)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    on_threads(4, save, folder)
    return folder


@pytest.mark.parametrize(
    ("size", "row_starts", "then"),
    [
        (1, None, [0, 26]),
        (3, None, [0, 9, 18, 26]),
        (4, None, SAVED_STARTS),
        (4, [0, 1, 2, 3, 26], [0, 1, 2, 3, 26]),
        (8, None, [0, 4, 8, 12, 16, 20, 24, 26, 26]),
    ],
)
def test_any_number_of_ranks_goes_on_where_four_were(path, size, row_starts, then):
    results = on_threads(size, load_and_go_on, path, row_starts)
    *states, structures = zip(*results, strict=True)
    for ranks, steps in zip(states, (2, 3), strict=True):
        of_entries, of_all = expected(steps)
        for parts, other in zip(
            zip(*(own for own, _ in ranks), strict=True), of_entries, strict=True
        ):
            assert torch.allclose(torch.cat(parts), other, rtol=1e-12)
        for _, shared in ranks:
            assert all(map(functools.partial(torch.allclose, rtol=1e-12), shared, of_all))
    saved, starts = zip(*structures, strict=True)
    assert starts == (tuple(then),) * size
    assert torch.equal(torch.cat([own["row_counts"] for own in saved]), MATRIX.crow_indices.diff())
    assert torch.equal(torch.cat([own["col_indices"] for own in saved]), MATRIX.col_indices)


@pytest.mark.parametrize("bound", [None, 100])
@pytest.mark.parametrize("name", matrices.MATRICES)
def test_structures_of_all_kinds_come_back(name, bound, tmp_path):
    matrix = matrices.MATRICES[name]
    n, m = matrix.shape
    columns = [0, m // 3, m]

    def there_and_back(mesh):
        options = {} if n == m else {"column_starts": columns}
        A = matrices.share(mesh, matrix, max_halo_bytes=bound, **options)
        dcp.save({"A": A}, checkpoint_id=tmp_path)
        again = RowSharded.from_checkpoint(tmp_path, "A", mesh)
        assert again.column_starts == A.column_starts
        again.load_state_dict(A.state_dict())
        return again.state_dict()

    first, second = on_threads(2, there_and_back)
    assert torch.equal(
        torch.cat([first["row_counts"], second["row_counts"]]), matrix.crow_indices.diff()
    )
    assert torch.equal(torch.cat([first["col_indices"], second["col_indices"]]), matrix.col_indices)


def test_another_matrix_or_no_checkpoint_is_an_error_of_all_ranks(path, tmp_path):
    columns = MATRIX.col_indices.clone()
    columns[-1] = (columns[-1] + 1) % 26

    def on_rank(mesh):
        A = matrices.share(mesh, MATRIX._replace(col_indices=columns))
        with pytest.raises(ValueError, match="rank 1: the checkpoint must be of this matrix"):
            dcp.load({"A": A}, checkpoint_id=path)
        with pytest.raises(ValueError, match="rank 0: the checkpoint must be of this matrix"):
            A.load_state_dict(A.state_dict() | {"shape": (26, 27)})
        with pytest.raises(
            ValueError, match=r"rank 0: path must be a checkpoint with .* called 'B'"
        ):
            RowSharded.from_checkpoint(path, "B", mesh)
        with pytest.raises(ValueError, match=r"rank 0: path must be a checkpoint with"):
            RowSharded.from_checkpoint(tmp_path, "A", mesh)
        with pytest.raises(ValueError, match="rank 1: path and name must be"):
            RowSharded.from_checkpoint(path if A.rank == 0 else None, "A", mesh)
        with pytest.raises(ValueError, match="ascend from 0 to 26"):
            RowSharded.from_checkpoint(path, "A", mesh, row_starts=[0, 5, 25])
        with pytest.raises(ValueError, match="rank 1: row_starts must be integers"):
            RowSharded.from_checkpoint(path, "A", mesh, row_starts=[0, 5, 26] if A.rank == 0 else 5)
        array = np.array(5)
        with pytest.raises(ValueError, match="rank 1: row_starts must be integers"):
            RowSharded.from_checkpoint(path, "A", mesh, row_starts=array if A.rank else None)
        starts = (1 // rank for rank in [A.rank])
        with pytest.raises(RuntimeError, match=r"rank 0: integer division .* by zero"):
            RowSharded.from_checkpoint(path, "A", mesh, row_starts=starts)
        for starts in ([0, 5 + A.rank, 26], [None, [0]][A.rank]):
            with pytest.raises(RuntimeError, match="others on rank 1 than on rank 0"):
                RowSharded.from_checkpoint(path, "A", mesh, row_starts=starts)

    on_threads(2, on_rank)


def test_state_of_another_shape_is_refused():
    A = RowSharded.from_local(MATRIX.crow_indices, *MATRIX[1:])
    model = ShardedValues(A, VALUES)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    model(B).sum().backward()
    optimizer.step()
    optimizer.state[model.values]["momentum_buffer"] = torch.ones(3)
    with pytest.raises(RuntimeError, match=r"shape, \(150,\), but received momentum_buffer of val"):
        TrainingState(model, optimizer).state_dict()
