"""What travels between ranks: the rows that are needed, and nothing else."""

import collections
import threading

import matrices
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ranks import on_threads
from sharded import on_ranks

from spgrad.distributed import _agreement, _exchange, _places, _products, _ranks

P = 6
ROW_BYTES = P * 8


@pytest.fixture
def received(monkeypatch):
    """Count the bytes that ranks receive from others, by what is called while they are counted."""
    counts = collections.Counter()
    exchange = torch.distributed.all_to_all_single

    def count(out, rows, received, sent, group, **options):
        rank = torch.distributed.get_rank(group)
        others = sum(received) - received[rank]
        counts[rank] += others * out[:1].nbytes
        counts["calls"] += 1
        counts["largest"] = max(counts["largest"], others * out[:1].nbytes)
        return exchange(out, rows, received, sent, group=group, **options)

    monkeypatch.setattr(torch.distributed, "all_to_all_single", count)
    return counts


def outside_columns(matrix, size):
    """Count the distinct columns that each rank needs from others."""
    row_starts, column_starts = (
        (torch.arange(size + 1) * -(-count // size)).clamp(max=count) for count in matrix.shape
    )
    for rank in range(size):
        first, last = matrix.crow_indices[row_starts[rank : rank + 2]].tolist()
        needed = matrix.col_indices[first:last].unique()
        begin, end = column_starts[rank : rank + 2].tolist()
        yield int(((needed < begin) | (needed >= end)).sum())


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("name", ["grid", "random", "no halo"])
def test_each_needed_row_travels_once_each_way(name, size, received):
    matrix = matrices.MATRICES[name]
    operands = matrices.operands(matrix, P)

    def step(mesh):
        A = matrices.share(mesh, matrix)
        mine = matrices.of_rank(A, operands)
        values, B = mine.values.requires_grad_(), mine.B.requires_grad_()
        torch.distributed.barrier()
        if mesh.get_local_rank() == 0:
            received.clear()
        torch.distributed.barrier()
        C = A.mm(values, B)
        torch.distributed.barrier()
        forward = received[mesh.get_local_rank()]
        torch.distributed.barrier()
        C.sum().backward()
        return A.halo_rows, forward, A.report(P, torch.float64), A.nnz

    needed = list(outside_columns(matrix, size))
    results = on_threads(size, step)
    assert [halo_rows for halo_rows, *_ in results] == needed
    assert [forward for _, forward, *_ in results] == [rows * ROW_BYTES for rows in needed]
    assert sum(received[rank] for rank in range(size)) == 2 * sum(needed) * ROW_BYTES
    assert received["calls"] == 2 * size
    for _, _, report, _ in results:
        assert report.halo_rows == tuple(needed)
        assert report.bytes_received == tuple(rows * ROW_BYTES for rows in needed)
        assert report.entries == tuple(nnz for *_, nnz in results)
        assert sum(report.rows) == matrix.shape[0]
        assert report.balance == max(report.entries) * size / matrix.nnz


@pytest.mark.parametrize("product", ["mm", "sddmm"])
def test_the_gradient_beside_the_halo_moves_no_rows(product, received):
    matrix = matrices.MATRICES["random"]
    operands = matrices.operands(matrix, P)

    def step(mesh):
        A = matrices.share(mesh, matrix)
        mine = matrices.of_rank(A, operands)
        if product == "mm":
            result = A.mm(mine.values.requires_grad_(), mine.B)
        else:
            result = A.sddmm(mine.X.requires_grad_(), mine.B)
        torch.distributed.barrier()
        received.clear()
        torch.distributed.barrier()
        result.sum().backward()

    on_threads(3, step)
    assert received["calls"] == 0


def test_a_bounded_halo_comes_in_rounds(received):
    matrix = matrices.random(40, 40, 600)
    operands = matrices.operands(matrix, P)
    size, most = 5, 9 * ROW_BYTES  # of 32 rows of halo, 8 from each of the others

    def product(mesh):
        A = matrices.share(mesh, matrix, max_halo_bytes=most)
        torch.distributed.barrier()
        received.clear()
        torch.distributed.barrier()
        mine = matrices.of_rank(A, operands)
        return A.mm(mine.values, mine.B)

    C = torch.cat(on_threads(size, product))
    assert torch.equal(C, matrix.dense(operands.values) @ operands.B)
    assert received["calls"] == 4 * size
    assert 0 < received["largest"] <= most


@pytest.mark.parametrize(("name", "puts"), [("grid", []), ("grid in any order", ["puts", "puts"])])
def test_ranks_work_while_they_agree_and_while_rows_are_under_way(monkeypatch, name, puts):
    events = collections.defaultdict(list)  # of each rank, which is a thread

    def record(name, owner, attribute):
        function = getattr(owner, attribute)

        def recorded(*arguments):
            events[threading.get_ident()].append(name)
            return function(*arguments)

        monkeypatch.setattr(owner, attribute, recorded)

    record("asks", _agreement, "_start_to_gather")
    record("hears", _agreement, "_compared")
    record("packs", _exchange.Exchange, "pack")
    record("sends", _ranks.Ranks, "send_rows")
    record("receives", _exchange.Arrival, "wait")
    for operator in ("_pattern_mm_into", "_pattern_mm_backward_into"):
        record("multiplies", _products, operator)
    record("puts", _places.Places, "put")
    matrix = matrices.MATRICES[name]
    operands = matrices.operands(matrix, P)

    def step(mesh):
        A = matrices.share(mesh, matrix)
        mine = matrices.of_rank(A, operands)
        of_rank = events[threading.get_ident()]
        of_rank.clear()
        A.mm(mine.values.requires_grad_(), mine.B.requires_grad_()).sum().backward()
        return of_rank

    forward = ["asks", "packs", "hears", "sends", "multiplies", "receives", "multiplies"]
    backward = ["asks", "multiplies", "hears", "sends", "multiplies", *puts, "receives"]
    assert on_threads(2, step) == [forward + backward] * 2


@st.composite
def cuts(draw, count, parts):
    """Draw where each of so many parts of `count` rows begins."""
    inner = draw(st.lists(st.integers(0, count), min_size=parts - 1, max_size=parts - 1))
    return [0, *sorted(inner), count]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_rows_on_any_rank_and_any_bound_give_the_same_derivatives(data):
    size = data.draw(st.integers(2, 6))
    n, m = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 20))
    nnz = data.draw(st.integers(0, 80)) if n > 0 else 0
    matrix = matrices.random(n, m, nnz, seed=data.draw(st.integers(0, 99)))
    operands = matrices.operands(matrix, 3)
    options = {
        "row_starts": data.draw(cuts(n, size)),
        "column_starts": data.draw(cuts(m, size)),
        "max_halo_bytes": data.draw(st.none() | st.integers(1, 300)),
    }
    results = on_ranks(size, matrix, operands, **options)
    expected = matrices.derivatives_of_dense(matrix, operands)
    for result, other in zip(results, expected, strict=True):
        assert torch.equal(result, other)
