"""The benchmark for devices runs from end to end on the CPU, and keeps what it measured."""

import json
import re
import shutil

import pytest
import torch

from benchmarks.operator import check, contenders, cuda, cuda_page, modes, pages, workloads


def run(folder, *options):
    output = folder / "times.json"
    cuda.main(["--size", "tiny", "--device", "cpu", "--output", str(output), *map(str, options)])
    return json.loads(output.read_text())


def test_what_matters_most_comes_first():
    names = [workload.name for workload in workloads.workloads("full")]
    listed = cuda.rows(names)
    forward, both = modes.Mode.FORWARD, modes.Mode.BOTH
    first = [(row.workload, row.modes) for row in listed[:4]]
    assert first == [
        ("fem", (forward,)),
        ("power_law", (forward,)),
        ("fem", (both,)),
        ("power_law", (both,)),
    ]
    assert {row.dtype for row in listed if row.workload == "fem"} == {
        torch.float32,
        *cuda.OTHER_DTYPES,
    }
    assert {row.columns for row in listed if row.workload == "power_law"} == {
        None,
        *cuda.OTHER_COLUMNS,
    }


def test_every_contender_has_times_or_a_reason(tmp_path, capsys):
    report = run(tmp_path, "--workloads", "random_small")
    assert (report["skipped"], report["errors"]) == ([], [])
    assert [setting["mode"] for setting in report["settings"]] == [
        mode.value for mode in (*cuda.WHOLE, *cuda.PARTS)
    ]
    names = [contender.name for contender in contenders.ON_DEVICES]
    printed = capsys.readouterr().out
    for setting in report["settings"]:
        assert list(setting["contenders"]) == names
        for name, found in setting["contenders"].items():
            assert found["seconds"]["median"] > 0, name
            assert name in printed


def test_a_run_whose_time_is_over_says_what_it_left_out(tmp_path):
    report = run(tmp_path, "--seconds", 0)
    assert report["settings"] == []
    assert len(report["skipped"]) == len(cuda.rows([w.name for w in workloads.workloads("tiny")]))


def problem(dtype):
    return workloads.stencil((4, 3, 3), 8).to(dtype)


@pytest.mark.parametrize("mode", [mode for mode in modes.Mode if mode is not modes.Mode.STEP])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_composite_agrees(dtype, mode):
    item = problem(dtype)
    prepared = contenders.SpgradComposite().prepare(item)
    checker = check.Checker(item)
    found = checker.deviations(modes.make_call(prepared, item, mode)(), prepared)
    assert found
    assert all(deviation <= checker.tolerance for deviation in found.values())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicit")
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_both_ways_to_the_exact_products_agree(dtype):
    item = problem(dtype)
    for one, other in zip(
        check._products_by_scipy(item), check._products_on_device(item), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_other_numbers_of_columns_have_the_same_matrix():
    item = problem(torch.float32)
    for columns in (3, 8, 20):
        other = item.with_columns(columns)
        assert other.B.shape == (36, columns)
        assert other.G.shape == (36, columns)
        assert other.values is item.values


@pytest.fixture
def documents(tmp_path):
    (tmp_path / pages.MACHINES).mkdir(parents=True)
    for path in (pages.README, pages.PERFORMANCE):
        shutil.copy(pages.ROOT / path, tmp_path / path)
    return tmp_path


def contender(median, peak=1_000_000):
    return {"seconds": {"median": median}, "bytes_above_results": peak}


REPORT = {
    "device": "a device",
    "versions": {"torch": "2"},
    "copy_bytes_per_second": 3e12,
    "skipped": ["hub, float32"],
    "settings": [
        {
            "workload": workload,
            "dtype": "float32",
            "mode": mode.value,
            "p": p,
            "seconds_of_compulsory_bytes": limit,
            "contenders": {
                "spgrad CSR int32": contender(1e-4),
                "spgrad COO": {"reason": "none"},
                "spgrad Pattern": contender(5e-5, None),
                "spgrad composite": contender(1e-6),
                "torch.sparse.mm CSR int32": contender(4e-4),
                "torch.sparse.mm COO": contender(2e-4, 3_000_000),
            },
        }
        for workload, p, mode, limit in [
            ("fem, p = 3", 3, modes.Mode.FORWARD, 1e-5),
            ("fem", 128, modes.Mode.BOTH, None),
            ("fem", 128, modes.Mode.FORWARD, 2e-5),
        ]
    ],
}


def test_the_page_has_times_and_ratios_to_the_fastest_other(documents, tmp_path):
    file = tmp_path / "cuda.json"
    file.write_text(json.dumps(REPORT))
    cuda_page.main([str(file), "--name", "h200"], documents)
    page = (documents / pages.MACHINES / "h200.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| fem")]
    assert rows == [
        f"| fem, {p}, float32, {mode} | 200 torch.sparse.mm COO | 100 (2.0) | - (-) | 50 (4.0) "
        f"| {limit} | 1.0 / - / - / 3.0 |"
        for p, mode, limit in [
            (3, "forward", "10"),
            (128, "forward", "20"),
            (128, "forward + backward", "-"),
        ]
    ]
    assert "hub, float32" in page
    performance = (documents / pages.PERFORMANCE).read_text()
    assert "| fem | 128 | 100 | 2.0 torch.sparse.mm COO | 4.0 | 100 |" in performance
    readme = (documents / pages.README).read_text()
    assert "2.0 × for the finite elements (4.0 × with a `Pattern`)" in readme
    assert "graph (" not in readme.partition("The same on an H200")[2].partition("\n")[0]


def test_the_sentence_in_readme_is_that_of_the_page():
    readme = (pages.ROOT / pages.README).read_text(encoding="utf-8")
    sentence = readme.partition("<!-- generated: cuda -->")[2].partition("<!-- end -->")[0]
    page = (pages.ROOT / pages.MACHINES / "h200.md").read_text(encoding="utf-8")
    ratios = re.findall(r"([\d.]+) ×", sentence)
    assert ratios
    assert all(f"({ratio})" in page for ratio in ratios)
