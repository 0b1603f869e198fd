"""The comparison on one matrix: that it measures, that its checks can fail, and what it refuses."""

import contextlib
import io

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

import spgrad
from benchmarks.comparison import __main__ as command
from benchmarks.comparison.finite_elements import elastic_ball
from benchmarks.operator import matrix_market

NAMES = ("spgrad CSR", "torch.sparse.mm CSR", "spgrad COO", "torch.sparse.mm COO")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small products on two threads wait for whatever else the machine does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_is_picture(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 10_000


def write_matrix(path, size, entries_per_row):
    generator = np.random.default_rng(0)
    density = entries_per_row / size
    matrix = scipy.sparse.random_array((size, size), density=density, rng=generator)
    scipy.io.mmwrite(path, matrix)
    return path


def run(path, output, *options):
    """Run the command on a matrix, and return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        command.main(["--quick", "--matrix", str(path), "--output", str(output), *options])
    return printed.getvalue()


def table_rows(printed):
    """Cells of the last row that each contender has, which is that of times and memory."""
    rows = {}
    for line in printed.splitlines():
        for name in NAMES:
            if line.strip().startswith(name):
                rows[name] = line.strip().removeprefix(name).replace(",", "").split()
    assert set(rows) == set(NAMES)
    return rows


@pytest.fixture(scope="module")
def matrix_run(tmp_path_factory):
    """Output and printed text of a comparison on a matrix whose dense gradient takes 36 MB."""
    folder = tmp_path_factory.mktemp("matrix")
    path = write_matrix(folder / "[bold] $mathematics^$.mtx", 3000, 9)
    return folder / "output", run(path, folder / "output", "--p", "64")


def test_it_draws_a_figure(matrix_run):
    output, _ = matrix_run
    assert_is_picture(output / "comparison.png")
    assert [path.name for path in output.iterdir()] == ["comparison.png"]


def test_it_prints_sane_times(matrix_run):
    _, printed = matrix_run
    assert "[bold] $mathematics^$.mtx" in printed
    rows = {name: [float(cell) for cell in cells] for name, cells in table_rows(printed).items()}
    for name, (*times, total, ratio, _) in rows.items():
        assert all(0 < time < 60_000 for time in (*times, total))
        baseline = rows["spgrad " + name.split()[-1]][3]
        assert ratio == pytest.approx(total / baseline, rel=0.12)  # of numbers of two digits


def test_it_prints_deviations(matrix_run):
    _, printed = matrix_run
    rows = [line.split()[-4:] for line in printed.splitlines() if line.endswith("yes  ")]
    assert len(rows) == len(NAMES)
    assert all(0 < float(cell) < 1e-5 for *cells, _ in rows for cell in cells)


def test_it_measures_memory(matrix_run):
    _, printed = matrix_run
    peaks = {name: float(cells[-1]) for name, cells in table_rows(printed).items()}
    results, dense_gradient = (2 * 3000 * 64 + 27_000) * 4 / 1e6, 3000 * 3000 * 4 / 1e6
    # Memory that was freed earlier may serve for a part.
    assert peaks["torch.sparse.mm COO"] > 0.9 * dense_gradient
    for name in ("spgrad CSR", "spgrad COO"):
        assert peaks[name] < results


def test_dense_gradient_that_does_not_fit_is_not_computed(monkeypatch, tmp_path):
    path = write_matrix(tmp_path / "small.mtx", 60, 5)
    monkeypatch.setattr(command, "available_memory", lambda: 60 * 60 * 4 * 3)
    printed = run(path, tmp_path, "--p", "16")
    rows = table_rows(printed)
    assert [rows["torch.sparse.mm COO"][place] for place in (1, 3, 4, 5)] == ["-"] * 4
    assert all("-" not in rows[name] for name in NAMES[:3])
    for mode in ("forward + backward", "dA"):
        assert (
            f"not run: torch.sparse.mm COO, {mode}: its gradient of A is multiplied out as a dense "
            "matrix of 14 kB"
        ) in printed.replace("\n", " ").replace("  ", " ")
    assert_is_picture(tmp_path / "comparison.png")


def test_a_wrong_result_ends_the_run(monkeypatch, tmp_path):
    path = write_matrix(tmp_path / "small.mtx", 60, 5)
    monkeypatch.setattr(spgrad, "sparse_mm", lambda A, B: torch.sparse.mm(A, B) * 1.0001)
    with pytest.raises(SystemExit, match=r"forward.*spgrad CSR int64: WRONG RESULT"):
        run(path, tmp_path)


def test_a_matrix_without_entries_is_compared(tmp_path):
    path = tmp_path / "empty.mtx"
    path.write_text("%%MatrixMarket matrix coordinate real general\n5 4 0\n")
    assert "0 entries" in run(path, tmp_path)


def test_elastic_ball_is_a_stiffness_matrix():
    stiffness = elastic_ball(refinements=2).matrix
    assert abs(stiffness - stiffness.T).max() < 1e-12
    # Moving the whole ball takes no force.
    for axis in range(3):
        shift = np.zeros(stiffness.shape[0])
        shift[axis::3] = 1
        assert np.abs(stiffness @ shift).max() < 1e-12
    assert stiffness.diagonal().min() > 0


def write(path, header, *lines):
    path.write_text("\n".join((f"%%MatrixMarket matrix {header}", *lines, "")))
    return path


@pytest.mark.parametrize(
    ("header", "lines", "expected"),
    [
        ("coordinate pattern general", ("2 3 2", "1 1", "2 3"), [[1, 0, 0], [0, 0, 1]]),
        ("coordinate integer symmetric", ("2 2 2", "1 1 4", "2 1 -3"), [[4, -3], [-3, 0]]),
        ("coordinate real skew-symmetric", ("2 2 1", "2 1 1.5"), [[0, -1.5], [1.5, 0]]),
        ("coordinate real general", ("3 1 3", "2 1 1", "2 1 2", "3 1 5"), [[0], [3], [5]]),
        ("array real general", ("2 2", "1", "2", "0", "4"), [[1, 0], [2, 4]]),
    ],
)
def test_matrix_market_files_are_read(tmp_path, header, lines, expected):
    problem = matrix_market.read(write(tmp_path / "matrix.mtx", header, *lines)).problem(2)
    for name in command.CONTENDERS:
        (leaf,) = command.find(name).prepare(problem).leaves
        assert leaf.to_dense().tolist() == expected


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ("coordinate complex general", ("1 1 1", "1 1 1 2"), "complex"),
        ("coordinate real general", ("2 2 2", "1 1 1"), "not a valid"),
        ("coordinate real general", ("2 2 1", "3 1 1"), "not a valid"),
        ("coordinate real general", ("1 1 1", "1 1 1e300"), "not finite in float32"),
    ],
)
def test_unusable_matrices_are_refused(tmp_path, header, lines, message):
    path = write(tmp_path / "matrix.mtx", header, *lines)
    with pytest.raises(SystemExit, match=message):
        command.main(["--matrix", str(path), "--output", str(tmp_path)])


def test_missing_matrix_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no file .*missing\.mtx"):
        command.main(["--matrix", str(tmp_path / "missing.mtx"), "--output", str(tmp_path)])


def test_impossible_number_of_columns_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--p", "0"])
    assert "0 is not positive" in capsys.readouterr().err


def test_output_folder_that_cannot_exist_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="cannot make the folder"):
        command.main(["--output", str(tmp_path / "file" / "folder")])
