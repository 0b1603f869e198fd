"""Matrices of one rank and of files, their values, and orders of rows."""

import itertools
import json

import matrices
import numpy as np
import pytest
import torch
from ranks import on_threads

import spgrad
from spgrad.distributed._ranks import Ranks

GRID = matrices.MATRICES["grid"]
RANDOM = matrices.MATRICES["random"]


def tensor_of(matrix, values):
    return torch.sparse_csr_tensor(matrix.crow_indices, matrix.col_indices, values, matrix.shape)


def product(mesh, A, B, values):
    rank = mesh.get_local_rank()
    return A.mm(A.local(values), matrices.pieces(A.column_starts, B)[rank])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("src", [0, 2])
def test_a_matrix_of_one_rank_is_shared_out_with_its_values(src, dtype):
    values, B, *_ = matrices.operands(RANDOM, 3, dtype=dtype)
    whole = tensor_of(RANDOM, values)

    def on_rank(mesh):
        is_source = mesh.get_local_rank() == src
        A = spgrad.distributed.RowSharded.from_rank(whole if is_source else None, src, mesh)
        return product(mesh, A, B, values if is_source else None)

    assert torch.equal(torch.cat(on_threads(3, on_rank)), spgrad.sparse_mm(whole, B))


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.repeat_interleave(2)[::2],
        torch.conj,
        lambda values: torch._neg_view(-values),
    ],
)
def test_values_of_one_rank_are_shared_out_however_they_lie_in_memory(change):
    values = change(matrices.operands(RANDOM, 3, dtype=torch.complex64).values)
    whole = tensor_of(RANDOM, torch.ones(RANDOM.nnz))

    def on_rank(mesh):
        given = (whole, values) if mesh.get_local_rank() == 0 else (None, None)
        return spgrad.distributed.RowSharded.from_rank(given[0], 0, mesh).local(given[1])

    assert torch.equal(torch.cat(on_threads(2, on_rank)), values)


def test_pieces_of_bounded_size_travel(monkeypatch):
    monkeypatch.setattr("spgrad.distributed._scatter._PIECE", 7)
    test_a_matrix_of_one_rank_is_shared_out_with_its_values(1, torch.float64)


# Who cuts, and the package for it.
METHODS = pytest.mark.parametrize(
    ("method", "package"), [("metis", "pymetis"), ("mtkahypar", "mtkahypar")]
)


@METHODS
def test_rows_and_columns_are_put_in_the_order_of_a_partition(method, package):
    pytest.importorskip(package)
    values, B, *_ = matrices.operands(GRID, 3)
    indices = GRID.crow_indices, GRID.col_indices
    permutation, row_starts = spgrad.distributed.partition(*indices, 4, method)
    assert permutation.sort().values.equal(torch.arange(36))
    assert row_starts[0] == 0
    assert row_starts[-1] == 36
    assert list(row_starts) == sorted(row_starts)

    # Within a part, rows that need other parts are the last ones.
    part = torch.bucketize(permutation.argsort(), torch.tensor(row_starts[1:]), right=True)
    dense = GRID.dense(torch.ones(GRID.nnz)) != 0
    needs_others = (dense & (part.view(-1, 1) != part)).any(1)[permutation]
    for rows in matrices.pieces(row_starts, needs_others.int()):
        assert 0 < rows.sum() < len(rows)
        assert rows.equal(rows.sort().values)

    def on_rank(mesh):
        is_source = mesh.get_local_rank() == 0
        options = {"permutation": permutation, "row_starts": row_starts} if is_source else {}
        whole = tensor_of(GRID, values) if is_source else None
        A = spgrad.distributed.RowSharded.from_rank(whole, 0, mesh, **options)
        assert A.row_starts == row_starts
        return product(mesh, A, B[permutation], values if is_source else None), A.halo_rows

    parts, halo_rows = zip(*on_threads(4, on_rank), strict=True)
    expected = GRID.dense(values) @ B
    assert torch.equal(torch.cat(parts), expected[permutation])
    assert sum(halo_rows) < 40  # of four quarters; of four slices 72


def test_metis_cuts_all_at_once_where_halves_have_unequal_entries():
    pytest.importorskip("pymetis")
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.rand(2, 60_000, generator=generator) ** 4 * 8000).long()
    offsets = torch.cat([torch.zeros(1).long(), rows.bincount(minlength=8000).cumsum(0)])
    permutation, row_starts = spgrad.distributed.partition(offsets, columns, 4)
    parts = matrices.pieces(row_starts, offsets.diff()[permutation])
    assert max(map(len, parts)) < 1.08 * 8000 / 4  # halves of halves: 1.13
    assert max(int(part.sum()) for part in parts) < 1.25 * 60_000 / 4  # 1.37


@METHODS
def test_a_partition_balances_rows_and_entries(method, package):
    pytest.importorskip(package)
    matrix = matrices.grid(24)
    permutation, row_starts = spgrad.distributed.partition(
        matrix.crow_indices.int(), matrix.col_indices, 5, method
    )
    counts = matrix.crow_indices.diff()[permutation]
    weights = [int((part + 1).sum()) for part in matrices.pieces(row_starts, counts)]
    assert max(weights) < 1.1 * sum(weights) / 5


@METHODS
def test_a_partition_puts_rows_with_halo_and_what_they_need_in_one_run_each(method, package):
    pytest.importorskip(package)
    matrix = matrices.grid(24)
    permutation, row_starts = spgrad.distributed.partition(*matrix[:2], 5, method)
    dense = matrix.dense(torch.ones(matrix.nnz))[permutation][:, permutation] != 0
    for begin, end in itertools.pairwise(row_starts):
        of_part = dense[begin:end]
        has_halo = of_part[:, :begin].any(1) | of_part[:, end:].any(1)
        is_needed = of_part[has_halo][:, begin:end].any(0)
        for rows in (has_halo, is_needed):
            assert len(rows.nonzero()) > 0
            assert rows.nonzero().diff(dim=0).eq(1).all()
        assert not is_needed.all()  # else any order would do


def halo_of(matrix, permutation, row_starts):
    """Count the rows of B that all parts receive, in the dense matrix."""
    dense = matrix.dense(torch.ones(matrix.nnz))[permutation][:, permutation] != 0
    halo = 0
    for begin, end in itertools.pairwise(row_starts):
        needed = dense[begin:end].any(0)
        needed[begin:end] = False
        halo += int(needed.sum())
    return halo


def test_mtkahypar_finds_less_halo():
    pytest.importorskip("pymetis")
    pytest.importorskip("mtkahypar")
    matrix = matrices.random(300, 300, 900)
    halo = [
        halo_of(matrix, *spgrad.distributed.partition(*matrix[:2], 4, method))
        for method in ("metis", "mtkahypar")
    ]
    assert halo[1] < 0.9 * halo[0]


def test_a_partition_of_a_graph_with_hubs_balances_rows_before_entries():
    pytest.importorskip("pymetis")
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.rand(2, 6000, generator=generator) ** 4 * 1000).long()
    matrix = matrices.random(1000, 1000, 0)._replace(
        crow_indices=torch.cat([torch.zeros(1).long(), rows.bincount(minlength=1000).cumsum(0)]),
        col_indices=columns,
    )
    permutation, row_starts = spgrad.distributed.partition(*matrix[:2], 4)
    counts = matrix.crow_indices.diff()[permutation]
    parts = matrices.pieces(row_starts, counts)
    assert max(map(len, parts)) < 1.2 * 250  # 1.32 where a row weighs as much as an entry
    assert max(int(part.sum()) for part in parts) < 2 * 6000 / 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("size", [1, 3])
def test_each_rank_reads_its_rows_of_a_file(tmp_path, dtype, size):
    values, B, *_ = matrices.operands(RANDOM, 3, dtype=dtype)
    whole = tensor_of(RANDOM, values)
    spgrad.distributed.save(tmp_path / "matrix", whole)

    def on_rank(mesh):
        A = spgrad.distributed.RowSharded.from_file(tmp_path / "matrix", mesh)
        assert torch.equal(A.local(values), A.local())
        return product(mesh, A, B, None)

    assert torch.equal(torch.cat(on_threads(size, on_rank)), spgrad.sparse_mm(whole, B))
    saved = {file.name for file in (tmp_path / "matrix").iterdir()}
    assert saved == {"crow_indices.npy", "col_indices.npy", "values.npy", "matrix.json"}


def test_a_bad_file_is_told_on_every_rank(tmp_path):
    def on_rank(mesh):
        with pytest.raises(ValueError, match=r"rank 0: path must be a folder that .*save"):
            spgrad.distributed.RowSharded.from_file(tmp_path, mesh)

    on_threads(2, on_rank)
    with pytest.raises(ValueError, match=r"path must be a folder .* but received 5"):
        spgrad.distributed.RowSharded.from_file(5)


# What becomes of a file, and what is said.
BROKEN_ARRAYS = {
    "crow_indices other length": (lambda a: a[:7], r"shape \(51,\), .* of shape \(7,\)"),
    "crow_indices shifted": (lambda a: a + 5, "begin with 0, but received 5"),
    "crow_indices early end": (lambda a: a.clip(max=200), r"col.* of shape \(200,\), .*\(300,\)"),
    "crow_indices floats": (lambda a: a.astype(float), r"be int32 or int64 .* received float64"),
    "crow_indices descending": (lambda a: np.r_[a[:9], a[20], a[10:]], "must not decrease"),
    "col_indices short": (lambda a: a[:-1], r"col.* of shape \(300,\), .* of shape \(299,\)"),
    "col_indices outside": (lambda a: a + 30, r"must be in \[0, 37\)"),
    "col_indices a number": (lambda a: a[0], r"received int64 of shape \(\)"),
    "values short": (lambda a: a[:-1], r"values\.npy must be float32 of shape \(300,\)"),
    "values of another dtype": (lambda a: a.astype(np.int32), "be float32 .* received int32"),
}


@pytest.mark.parametrize("name", BROKEN_ARRAYS)
def test_files_that_are_of_no_matrix_are_refused_before_numbers_go_wrong(tmp_path, name):
    spgrad.distributed.save(tmp_path, tensor_of(RANDOM, torch.zeros(RANDOM.nnz)))
    change, text = BROKEN_ARRAYS[name]
    file = tmp_path / f"{name.split()[0]}.npy"
    np.save(file, change(np.load(file)))

    def on_rank(mesh):
        with pytest.raises((ValueError, RuntimeError), match=r"rank [01]: .*" + text):
            spgrad.distributed.RowSharded.from_file(tmp_path, mesh)

    on_threads(2, on_rank)


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"shape": [50.5, 37]}, "shape must be .n, m., two integers"),
        ({"values": "float8"}, "path must be a folder .*float8"),
        ({"format": 2}, "format must be 1, but received 2"),
    ],
)
def test_a_folder_with_another_description_is_refused(tmp_path, about, text):
    spgrad.distributed.save(tmp_path, tensor_of(RANDOM, torch.zeros(RANDOM.nnz)))
    file = tmp_path / "matrix.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | about))
    with pytest.raises(ValueError, match=text):
        spgrad.distributed.RowSharded.from_file(tmp_path)


def test_one_process_needs_no_mesh():
    values, B, *_ = matrices.operands(RANDOM, 3)
    A = spgrad.distributed.RowSharded.from_local(RANDOM.crow_indices, *RANDOM[1:])
    assert A.halo_rows == 0
    assert A.shape == RANDOM.shape
    assert torch.equal(A.mm(A.local(values), B), RANDOM.dense(values) @ B)


OFFSETS, COLUMNS = torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2])
BAD_STRUCTURES = {
    "an index": ((OFFSETS, torch.tensor([1, 7, 2]), (2, 3)), r"\[0, 3\).*received 7 at position 1"),
    "an offset": ((torch.tensor([0, 4, 3]), COLUMNS, (2, 3)), "crow_indices"),
    "no tensor": (([0, 1, 3], COLUMNS, (2, 3)), r"crow_indices must be a torch.Tensor"),
    "dimensions": ((OFFSETS[None], COLUMNS, (2, 3)), "one dimension"),
    "rows": ((OFFSETS, COLUMNS, (3, 3)), r"rows of all ranks must add up to 3, but received 2"),
    "shape": ((OFFSETS, COLUMNS, (2, 3, 1)), r"shape must be \(n, m\)"),
    "no shape": ((OFFSETS, COLUMNS, 3), r"shape must be \(n, m\), .* but received 3"),
    "a broken size": ((OFFSETS, COLUMNS, (2.5, 3)), r"two integers .* received \(2\.5, 3\)"),
    "a large size": ((OFFSETS, COLUMNS, (2, 1 << 70)), "two integers"),
    "a mesh": ((OFFSETS, COLUMNS, (2, 3), torch.ones(1)), "None or a DeviceMesh, but .* Tensor"),
}


@pytest.mark.parametrize("name", BAD_STRUCTURES)
def test_bad_structures_are_refused(name):
    arguments, text = BAD_STRUCTURES[name]
    with pytest.raises((ValueError, RuntimeError), match=text):
        spgrad.distributed.RowSharded.from_local(*arguments)


WHOLE = torch.eye(3).to_sparse_csr()
BAD_CALLS = {
    "from_rank(None)": r"but received None \(without a mesh, each process is alone\)",
    "from_rank(WHOLE.to_dense())": "must be a sparse CSR tensor",
    "from_rank(WHOLE, 1)": r"src must be an integer in \[0, 1\), but received 1",
    "from_rank(WHOLE, row_starts=[0, 2])": r"ascend from 0 to 3, but received \(0, 2\)",
    "from_rank(WHOLE, row_starts=[1, 3])": r"ascend from 0 to 3, but received \(1, 3\)",
    "from_rank(WHOLE, '0')": r"src must be an integer in \[0, 1\), but received '0'",
    "from_rank(WHOLE, row_starts=3)": "row_starts must be integers, .* received 3",
    "from_rank(WHOLE, row_starts=[0, 2.9])": r"integers, .* received \[0, 2\.9\]",
    "from_rank(WHOLE, permutation=torch.tensor([0, 0, 2]))": "each of .* that lacks 1",
    "from_rank(WHOLE, permutation=torch.tensor([-1, 0, 2]))": "each of .* that lacks 1",
    "from_rank(WHOLE, permutation=torch.ones(3))": "int32 or int64 .* received torch.float32",
    "from_rank(WHOLE, permutation=torch.arange(2))": r"shape \(2,\) for A of shape \(3, 3\)",
    "from_rank(WHOLE, max_halo_bytes=0)": "an integer of at least 1, but received 0",
    "from_rank(WHOLE, max_halo_bytes=1.5)": "an integer of at least 1, but received 1.5",
    "from_rank(WHOLE).report(-1)": "p must be an integer of at least 0, but received -1",
    "from_rank(WHOLE).report(4.0)": "p must be an integer of at least 0, but received 4.0",
    "from_rank(WHOLE).report(4, np.ones(2))": "dtype must be float32, .* received array",
    "from_rank(WHOLE).report(4, torch.int64)": "dtype must be float32, .* received torch.int64",
    "from_rank(WHOLE).local(torch.ones(4))": r"values must be dense and have shape \(3,\)",
    "from_rank(WHOLE).local(torch.ones(3).int())": "values must be float32, .* torch.int32",
    "from_rank(WHOLE).local(torch.ones(3, device='meta'))": "on a device with memory",
    "from_rank(WHOLE).local()": "but received NoneType",
    "from_rank(WHOLE).mm(torch.ones(4), torch.ones(3, 2))": r"values must be dense .* \(3,\)",
    "from_rank(WHOLE).mm(torch.ones(3), torch.ones(2, 2))": r"B must be dense .* shape \(3, p\)",
    "from_rank(WHOLE).mm(torch.ones(3), torch.ones(3, 2).double())": "the same dtype",
    "from_rank(WHOLE).mm(torch.ones(3).int(), torch.ones(3, 2))": "values must be float32",
    "from_rank(WHOLE).sddmm(torch.ones(3, 2), torch.ones(3, 4))": "received 2 and 4",
    "from_local(OFFSETS, COLUMNS, (2, 3), own_columns=-2)": "at least 0, but received -2",
    "from_local(OFFSETS, COLUMNS, (2, 3), own_columns='3')": "at least 0, but received '3'",
    "from_local(OFFSETS, COLUMNS, (2, 3), own_columns=2)": "own_columns of all ranks",
}


@pytest.mark.parametrize("call", BAD_CALLS)
def test_bad_arguments_are_refused(call):
    with pytest.raises((ValueError, RuntimeError), match=BAD_CALLS[call]):
        eval(f"spgrad.distributed.RowSharded.{call}")  # noqa: S307 - the texts above


def test_other_bad_arguments_are_refused(tmp_path):
    for method in ("chance", ["metis"]):
        with pytest.raises(ValueError, match="method must be one of"):
            spgrad.distributed.partition(OFFSETS, COLUMNS % 2, 2, method=method)
    with pytest.raises(
        ValueError, match=r"parts must be an integer of at least 1, .* received 2\.5"
    ):
        spgrad.distributed.partition(OFFSETS, COLUMNS % 2, 2.5)
    with pytest.raises(ValueError, match="sparse CSR tensor of shape"):
        spgrad.distributed.save(tmp_path, torch.eye(3))
    with pytest.raises(TypeError, match="must be made by from_local"):
        spgrad.distributed.RowSharded(WHOLE)


def test_a_matrix_without_entries_is_balanced():
    A = spgrad.distributed.RowSharded.from_rank(torch.zeros(4, 3).to_sparse_csr())
    assert A.report(2).balance == 1


def test_without_a_mesh_a_matrix_is_where_its_indices_are():
    assert Ranks(None).device == torch.device("cpu")
    assert Ranks(None, torch.empty(1, device="meta")).device == torch.device("meta")
    assert Ranks(None, [1]).device == torch.device("cpu")
