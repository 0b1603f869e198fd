"""What a rank keeps: its share of A, and little beside it."""

import subprocess
import sys

import matrices
import pytest
import torch
from ranks import on_threads

from benchmarks.distributed import memory
from spgrad._pattern import Pattern
from spgrad.distributed import _places, _plan
from spgrad.distributed._places import Places


def tensors_of(thing):
    """List the tensors that a plan, or a part of one, has."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, Pattern):
        return list(thing._tensors)
    if isinstance(thing, _plan.Plan):
        return tensors_of(list(vars(thing).values()))
    if isinstance(thing, dict):
        return tensors_of(list(thing.values()))
    if isinstance(thing, (list, tuple)):
        return [tensor for each in thing for tensor in tensors_of(each)]
    return []


def bytes_of(plan):
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors_of(plan)}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


@pytest.mark.parametrize(("order", "of_entry"), [("grid", 12), ("any", 16)])
def test_a_plan_has_twelve_bytes_an_entry_and_four_where_rows_are_in_any_order(order, of_entry):
    # Rows with 40 entries of their own neighbourhood; every third has one of the other rank.
    n, k = 600, 40
    rows = torch.arange(n)
    columns = (rows // 300 * 300).view(-1, 1) + (rows.view(-1, 1) + torch.arange(k)) % 300
    chosen = rows % 3 == 0 if order == "any" else (rows // 50) % 6 == 0
    columns[chosen, 0] = 599 - rows[chosen]
    matrix = matrices.Matrix(torch.arange(n + 1) * k, columns.flatten(), (n, n))

    def count(mesh):
        A = matrices.share(mesh, matrix)
        return bytes_of(A._built.plan), A.nnz, A.halo_rows

    for kept, nnz, halo_rows in on_threads(2, count):
        of_rows = kept - of_entry * nnz
        # Offsets of rows and columns, and which rows are sent and received.
        assert 0 < of_rows <= 40 * (300 + halo_rows)


@pytest.mark.parametrize(
    "places",
    [
        [],
        [4],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [2, 3, 4, 8, 9],
        [0, 2, 4, 6, 8],
        list(range(0, 400, 2)),
    ],
)
@pytest.mark.parametrize("rows_of_run", [1, 256])
def test_entries_and_rows_are_taken_and_put_where_they_are(monkeypatch, places, rows_of_run):
    monkeypatch.setattr(_places, "_ROWS_OF_RUN", rows_of_run)
    total = 400
    places = torch.tensor(places, dtype=torch.int64)
    entries = Places.of(places, total)
    is_one_run = bool((places.diff() == 1).all())
    assert (entries.places is None) == (is_one_run or (rows_of_run == 1 and len(places) < 100))
    assert entries.places is None or entries.places.dtype == torch.int32
    values = torch.rand(2 * total)[::2]
    assert torch.equal(entries.take(values), values[places])
    out = torch.zeros(total)
    entries.put(values[places], out)
    assert torch.equal(out, torch.zeros(total).index_copy_(0, places, values[places]))
    rows, few = torch.rand(total, 3), torch.rand(len(places), 3)
    assert torch.equal(entries.take(rows), rows[places])
    copy = torch.empty(len(places), 3)
    entries.copy(rows, copy)
    assert torch.equal(copy, rows[places])
    put = torch.zeros(total, 3)
    entries.put_rows(few, put)
    assert torch.equal(put, torch.zeros(total, 3).index_copy_(0, places, few))
    expected = rows.index_add(0, places, few)
    entries.add(few, rows)
    assert torch.equal(rows, expected)


def test_one_run_is_a_view():
    values = torch.rand(9)
    taken = Places.of(torch.arange(2, 7), 9).take(values)
    assert taken.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()


def test_the_fit_tells_factors_and_deviation():
    runs = [
        [memory.Measured(1, 1000, 0, 500, 2000)],
        [memory.Measured(2, 500, 10, 300, 1030), memory.Measured(2, 500, 20, 250, 1060)],
    ]
    (of_share, of_halo), deviation = memory.fit([each for run in runs for each in run])
    assert (of_share, of_halo) == pytest.approx((2, 3))
    assert deviation < 1e-9
    assert "1.200" in memory.report(runs)


MEASURE = """
from benchmarks.distributed.memory import fit, measure
runs = [measure(size) for size in (1, 8)]
(alone,), others = runs
print(max(each.held / each.share for each in others) / (alone.held / alone.share))
print(fit([alone, *others])[1])
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_of_eight_ranks_has_an_eighth():
    command = [sys.executable, "-c", MEASURE]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=400)
    over_share, deviation = map(float, told.stdout.split())
    assert over_share < 1.1
    assert deviation < 0.15
