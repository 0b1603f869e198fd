"""The pages on performance are what the records give."""

import re
import shutil

import pytest

from benchmarks.operator import pages
from benchmarks.operator.results import (
    PhysicalLimit,
    Results,
    Setting,
    Times,
    WorkloadRecord,
)

SETTING = Setting("fem", "float32", 2, "forward")


@pytest.fixture(scope="module")
def runs():
    return pages.machines(pages.ROOT)


def test_the_pages_are_what_the_records_give(runs):
    for path, text in pages.texts(pages.ROOT, runs).items():
        assert (pages.ROOT / path).read_text(encoding="utf-8") == text, (
            f"{path} is not what the records give: run make performance-pages"
        )


def test_each_machine_has_a_picture(runs):
    assert len(runs) <= 2
    for folder in runs:
        assert (pages.ROOT / folder / "speed.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_records_are_small():
    records = (pages.ROOT / pages.MACHINES).glob("*/results.tsv")
    assert sum(path.stat().st_size for path in records) <= 150_000


def test_everything_is_written_once_and_stays(runs, tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    for path in (pages.README, pages.PERFORMANCE, pages.INDEX):
        shutil.copy(pages.ROOT / path, tmp_path / path)
    folder = next(iter(runs))
    performance = (tmp_path / pages.PERFORMANCE).read_text()
    (tmp_path / folder).mkdir(parents=True)
    shutil.copy(pages.ROOT / folder / "results.tsv", tmp_path / folder)
    pages.main(tmp_path)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path in (tmp_path / folder).iterdir()} == {
        "results.tsv",
        "results.md",
        "speed.png",
    }
    assert (tmp_path / pages.PERFORMANCE).read_text() == performance
    pages.main(tmp_path)
    assert {path: path.read_bytes() for path in written} == written
    assert str(folder / "results.md") in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "<!-- generated: epyc -->\nno end",
        "<!-- end -->\n<!-- generated: epyc -->\n",
        "<!-- generated: epyc -->\n<!-- generated: other -->\n<!-- end -->\n",
    ],
)
def test_a_missing_block_is_named(text):
    message = "page.md needs the lines <!-- generated: epyc --> and <!-- end -->"
    with pytest.raises(SystemExit, match=re.escape(message)):
        pages.filled("page.md", text, "epyc", "content")


def test_only_the_block_changes():
    text = "a\n<!-- generated: one -->\nold\n<!-- end -->\nb\n<!-- generated: two -->\n<!-- end -->"
    filled = pages.filled("page.md", text, "one", "new\n")
    assert filled == text.replace("old\n", "\nnew\n\n")
    assert pages.filled("page.md", filled, "one", "new\n") == filled


def test_records_come_back(tmp_path):
    results = Results(
        machine={"processor": "one"},
        workloads=[
            WorkloadRecord("fem", "a stencil", None, 4, 3, 2, 5),
            WorkloadRecord("batch", "some", 7, 4, 3, 2, 5),
        ],
        times={
            SETTING: {
                "spgrad COO": Times(1.5e-3, 1.5e-3 * 0.8, 1.5e-3 * 2),
                "SciPy": "has no time",
            },
            Setting("fem", "float64", 2, "forward"): {"spgrad COO": Times(1e-3, 1e-3, 1e-3)},
            Setting("fem", "float64", 2, "dA"): {"spgrad COO": Times(1e-3, 1e-3, 1e-3)},
            Setting("batch", "float64", 2, "dA"): {"spgrad COO": Times(1e-3, 1e-3, 1e-3)},
        },
        peaks={SETTING: {"spgrad COO": 12345, "SciPy": "has no time"}},
        limits={SETTING: PhysicalLimit(1000, 2.5e10, 4e-6)},
        errors=["something went wrong"],
    )
    results.write(tmp_path / "results.tsv")
    assert Results.read(tmp_path / "results.tsv") == results


def test_times_are_kept_as_precise_as_they_are(tmp_path):
    results = Results({}, times={SETTING: {"SciPy": Times(1234.56, 1222, 1371)}})
    results.write(tmp_path / "results.tsv")
    assert "\t1230000000 1 11\n" in (tmp_path / "results.tsv").read_text()
