"""The benchmark runs from end to end on tiny matrices, keeps what it measured, and finds errors."""

import types

import pytest
import torch

import spgrad
from benchmarks.operator import __main__ as command
from benchmarks.operator import case, check, contenders, machine, modes, timing, units, workloads
from benchmarks.operator.results import Results, Times

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module", autouse=True)
def _idle():
    """Leave out the two seconds in which the benchmark looks at what else the machine does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine.psutil, "cpu_percent", lambda interval: 0.0 * interval)
        yield


def run(folder, *options):
    command.main(["--size", "tiny", "--output", str(folder), *map(str, options)])
    return Results.read(folder / "results.tsv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark-output")


@pytest.fixture(scope="module")
def results(folder):
    return run(folder, "--workloads", "batched_many", "sparse_layer", "--threads", 1, 2)


def test_what_takes_much_longer_than_the_fastest_has_few_rounds_of_its_own(monkeypatch):
    clock = types.SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(timing, "time", clock)
    made = []

    def call(name, seconds):
        made.append(name)
        clock.now += seconds

    calls = {
        "quick": lambda: call("quick", 1e-3),
        "slow": lambda: call("slow", 0.1),
        "middling": lambda: call("middling", 5e-3),
    }
    pace = timing.Pace(seconds=1.0, least_rounds=2, most_rounds=5)
    times = timing.time_rounds(calls, pace)
    # One call more than there are rounds says how long each takes.
    assert {name: made.count(name) for name in calls} == {"quick": 6, "middling": 6, "slow": 3}
    assert made[-2:] == ["slow", "slow"]
    assert times["slow"].median == pytest.approx(0.1)


def test_the_size_is_full_unless_told_otherwise():
    assert command.parse([]).size == "full"
    assert command.parse(["--quick"]).size == "quick"


def test_files_are_written(folder, results):
    assert results.errors == []
    assert {path.name for path in folder.iterdir()} == {"results.tsv", "results.md", "speed.png"}
    picture = (folder / "speed.png").read_bytes()
    assert picture.startswith(PNG)
    assert picture[25] == 3  # a palette: a third of the size
    report = (folder / "results.md").read_text()
    assert all(name in report for name in ("batched_many", "sparse_layer", "Training step"))


def test_every_contender_has_times_or_a_reason(results):
    names = {contender.name for contender in contenders.CONTENDERS}
    # Modes, of which the layer has training steps too; float32 on one and two threads, float64.
    assert len(results.times) == (4 + 5) * 3
    assert {s.threads for s in results.times if s.dtype == "float64"} == {2}
    assert len(results.peaks) == 2
    for table, kind in ((results.times, Times), (results.peaks, int)):
        for row in table.values():
            assert set(row) == names
            assert all(isinstance(measured, (kind, str)) for measured in row.values())
        ran = {
            name
            for row in table.values()
            for name, measured in row.items()
            if isinstance(measured, kind)
        }
        # torch_sparse needs a compiler, so it is often not there; SciPy has no whole passes.
        assert names - ran <= {"torch_sparse"} | ({"SciPy"} if kind is int else set())


def test_times_are_plausible(results):
    for setting, row in results.times.items():
        for times in row.values():
            if isinstance(times, Times):
                assert 0 < times.lower_quartile <= times.median <= times.upper_quartile < 60
        assert results.median(setting) > 0
        name, median = results.fastest_peer(setting)
        assert not contenders.is_ours(name)
        assert median == results.median(setting, name) > 0
    assert len(results.limits) == 2 * 2
    for limit in results.limits.values():
        assert 0 < limit.seconds < 1
        assert 0 < limit.mapped < 60


def test_workloads_are_described(results):
    assert [record.batch for record in results.workloads] == [3, None]


def test_a_matrix_market_file_takes_the_place_of_fem(tmp_path):
    matrix = tmp_path / "small.mtx"
    matrix.write_text(
        "%%MatrixMarket matrix coordinate real symmetric\n4 4 5\n"
        "1 1 2\n2 2 2\n3 3 2\n4 4 2\n3 1 -1\n"
    )
    results = run(tmp_path, "--workloads", "fem", "--matrix", matrix, "--no-memory")
    (workload,) = results.workloads
    assert (workload.description, workload.n, workload.entries) == (
        "small.mtx, real symmetric, 4 × 4",
        4,
        6,
    )
    assert (results.peaks, results.limits) == ({}, {})


def test_a_run_with_a_wrong_result_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(spgrad, "sparse_mm", lambda A, B: torch.sparse.mm(A, B) * 1.001)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "--workloads", "hub", "--no-memory", "--dtypes", "float32")
    assert ended.value.code == 1
    assert "WRONG RESULT" in capsys.readouterr().err
    results = Results.read(tmp_path / "results.tsv")
    assert all("WRONG RESULT" in row["spgrad CSR int32"] for row in results.times.values())
    assert len(results.errors) == 3 * 4  # forms of sparse_mm × modes
    assert "WRONG RESULT" in (tmp_path / "results.md").read_text()


def problem(dtype=torch.float32):
    return workloads.stencil((4, 3, 3), 16).to(dtype)


def deviations(name, problem, multiply=None):
    prepared = contenders.find(name).prepare(problem)
    if multiply is not None:
        prepared = case.Case(prepared.leaves, lambda leaves, B: multiply(leaves[0], B))
    checker = check.Checker(problem)
    call = modes.make_call(prepared, problem, modes.Mode.BOTH)
    return checker.deviations(call(), prepared), checker.tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name", [c.name for c in contenders.CONTENDERS if c.name not in {"SciPy", "torch_sparse"}]
)
def test_right_results_agree(name, dtype):
    found, tolerance = deviations(name, problem(dtype))
    assert found.keys() == {"C", "dA", "dB"}
    assert all(deviation <= tolerance for deviation in found.values())


def wrong_product(A, B):
    return torch.sparse.mm(A, B) * 1.0001


def wrong_matrix_gradient(A, B):
    return torch.sparse.mm(A * 1.0001, B) + (torch.sparse.mm(A, B) * -0.0001).detach()


def wrong_pattern(A, B):
    return A.to_dense(masked_grad=False) @ B


def not_a_number(A, B):
    return torch.sparse.mm(A, B) * float("nan")


@pytest.mark.parametrize(
    "multiply", [wrong_product, wrong_matrix_gradient, wrong_pattern, not_a_number]
)
def test_wrong_results_do_not_agree(multiply):
    found, tolerance = deviations("spgrad COO", problem(), multiply)
    assert not all(deviation <= tolerance for deviation in found.values())


def test_small_errors_in_float64_are_found():
    found, tolerance = deviations(
        "torch.sparse.mm CSR int64",
        problem(torch.float64),
        lambda A, B: torch.sparse.mm(A, B) * (1 + 1e-9),
    )
    assert all(deviation > tolerance for deviation in found.values())


def test_a_gradient_with_entries_at_other_places_does_not_agree():
    item = problem()
    prepared = contenders.find("spgrad COO").prepare(item)
    outcome = modes.make_call(prepared, item, modes.Mode.BOTH)()
    (gradient,) = outcome.dA
    shifted = torch.sparse_coo_tensor(
        gradient.indices().flip(0), gradient.values(), gradient.shape, is_coalesced=True
    )
    moved = modes.Outcome(outcome.C, (shifted,), outcome.dB)
    assert check.Checker(item).deviations(moved, prepared)["dA"] == float("inf")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.012345, "0.012"),
        (9.876, "9.9"),
        (9.96, "10"),
        (99.96, "100"),
        (12345.6, "12,000"),
    ],
)
def test_numbers_have_two_digits(number, text):
    assert units.two_digits(number) == text
