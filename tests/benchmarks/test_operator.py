"""The benchmark runs from end to end on tiny matrices and writes what it promises."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.operator import __main__ as command
from benchmarks.operator import check, contenders, modes, timing, workloads

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n"


def run(output, *options):
    command = [sys.executable, "-m", "benchmarks.operator", "--size", "tiny", "--output", output]
    subprocess.run([*command, *options], cwd=ROOT, check=True)
    return json.loads((output / "results.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark-output")


@pytest.fixture(scope="module")
def results(folder):
    return run(folder, "--workloads", "batched_many", "sparse_layer")


def test_what_takes_much_longer_than_the_fastest_has_few_rounds_of_its_own():
    pace = timing.Pace(seconds=1.0, least_rounds=2, most_rounds=5)
    made = []
    calls = {
        "quick": lambda: made.append("quick") or time.sleep(1e-3),
        "slow": lambda: made.append("slow") or time.sleep(0.1),
        "middling": lambda: made.append("middling") or time.sleep(5e-3),
    }
    times = timing.time_rounds(calls, dict.fromkeys(calls, 0.0), pace)
    assert {name: times[name].rounds for name in calls} == {"quick": 5, "middling": 5, "slow": 2}
    assert made[-2:] == ["slow", "slow"]
    assert times["slow"].median >= 0.1


def test_the_size_is_full_unless_told_otherwise():
    assert command.parse([]).size == "full"
    assert command.parse(["--quick"]).size == "quick"


def test_files_are_written(folder, results):
    assert results["errors"] == []
    for name in ("speed.png", "memory.png", "limit.png"):
        assert (folder / name).read_bytes().startswith(PNG)
    report = (folder / "results.md").read_text()
    assert all(name in report for name in ("batched_many", "sparse_layer", "training step"))


def test_every_contender_has_times_or_a_reason(results):
    assert all(
        (record["times"] is None) != (record["reason"] is None) for record in results["times"]
    )
    assert all(
        (record["peak"] is None) != (record["reason"] is None) for record in results["memory"]
    )
    by_setting = {}
    for record in results["times"]:
        by_setting.setdefault(tuple(record["setting"].values()), set()).add(record["contender"])
    contenders = {record["contender"] for record in results["times"]}
    assert len(by_setting) == 2 * 4 + 2 * 5  # dtypes × modes; the layer has training steps too
    assert all(names == contenders for names in by_setting.values())
    ran = {record["contender"] for record in results["times"] if record["times"]}
    assert contenders - ran <= {"torch_sparse"}  # needs a compiler, so it is often not there


def test_times_are_plausible(results):
    for record in results["times"]:
        times = record["times"]
        if times is None:
            continue
        assert 0 < times["lower_quartile"] <= times["median"] <= times["upper_quartile"]
        assert times["first"] > 0
        assert times["rounds"] >= 2
        assert record["ratio_to_fastest_peer"] > 0
        layer = record["setting"]["mode"] == "training step"
        if record["contender"] == ("spgrad csr_mm" if layer else "spgrad CSR int32"):
            assert record["ratio_to_spgrad"] == 1
    assert all(0 < record["limit"]["seconds"] < 1 for record in results["limits"])


def test_workloads_were_checked_against_float64(results):
    assert [record["batch"] for record in results["workloads"]] == [3, None]
    assert all(record["checked_against_float64"] for record in results["workloads"])


def test_a_matrix_market_file_takes_the_place_of_fem(tmp_path):
    matrix = tmp_path / "small.mtx"
    matrix.write_text(
        "%%MatrixMarket matrix coordinate real symmetric\n4 4 5\n"
        "1 1 2\n2 2 2\n3 3 2\n4 4 2\n3 1 -1\n"
    )
    results = run(tmp_path, "--workloads", "fem", "--matrix", matrix, "--no-memory")
    (workload,) = results["workloads"]
    assert (workload["description"], workload["n"], workload["entries"]) == ("small.mtx", 4, 6)
    assert results["memory"] == []


def test_a_wrong_result_is_an_error():
    problem = workloads.workloads("tiny")[0].make()
    case = contenders.find("torch.sparse.mm CSR int64").prepare(problem)
    checker = check.Checker(problem)
    checker.check(modes.make_call(case, problem, modes.Mode.BOTH)(), case)
    wrong = contenders.Case(case.leaves, lambda leaves, B: case.multiply(leaves, B) * (1 + 1e-9))
    with pytest.raises(check.DisagreementError, match="differs from spgrad's"):
        checker.check(modes.make_call(wrong, problem, modes.Mode.FORWARD)(), wrong)
    nan = contenders.Case(case.leaves, lambda leaves, B: case.multiply(leaves, B) * torch.nan)
    with pytest.raises(check.DisagreementError, match="differs from spgrad's"):
        checker.check(modes.make_call(nan, problem, modes.Mode.FORWARD)(), nan)
