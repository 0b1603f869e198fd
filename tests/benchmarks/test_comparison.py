"""The demo: that it learns, that it measures, and that its checks can fail."""

import contextlib
import copy
import io

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from rich.console import Console

import spgrad
from demo import comparison_figure, contenders, digits, finite_elements, matrix_market, tables
from demo.__main__ import main
from demo.agreement import Reference
from demo.comparison import Measurement
from demo.contenders import Contender, contenders_for
from demo.problem import Operands, Problem
from demo.timing import Timing
from demo.units import three_digits

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def assert_is_picture(path):
    content = path.read_bytes()
    assert content.startswith(PNG_SIGNATURE)
    assert len(content) > 10_000


def render(*renderables):
    console = Console(file=io.StringIO(), width=200)
    console.print(*renderables)
    return console.file.getvalue()


def random_matrix(n, m, entries_per_row):
    generator = np.random.default_rng(0)
    return scipy.sparse.random_array(
        (n, m), density=entries_per_row / m, rng=generator, format="csr"
    )


@pytest.fixture
def operands():
    return Operands.random(Problem("small", random_matrix(60, 40, 5)), 16)


def test_digits_are_learned_by_sparse_weights(tmp_path):
    digits.run(Console(file=io.StringIO()), tmp_path, epochs=15)
    assert_is_picture(tmp_path / "digits_loss.png")
    assert_is_picture(tmp_path / "digits_patterns.png")


def test_digits_fail_without_enough_training(tmp_path):
    with pytest.raises(SystemExit, match="95%"):
        digits.run(Console(file=io.StringIO()), tmp_path, epochs=1)


def test_training_keeps_the_patterns_and_changes_the_values():
    generator = torch.Generator().manual_seed(0)
    network = digits.SparseNetwork(digits.LAYERS, generator)
    before = copy.deepcopy(network.sparse_layers())
    list(digits.train(network, digits.load(), 1, generator))
    after = network.sparse_layers()
    assert len(after) == len(digits.LAYERS)
    for old, new, (outputs, _, fan_in) in zip(before, after, digits.LAYERS, strict=True):
        assert new.sparsity >= 0.95
        assert new.crow_indices.diff().tolist() == outputs * [fan_in]
        for name, buffer in old.named_buffers():
            assert torch.equal(buffer, new.get_buffer(name))
        assert not torch.equal(old.values, new.values)


@pytest.fixture(scope="module")
def matrix_run(tmp_path_factory):
    """Output and printed text of a comparison on a matrix whose dense gradient takes 36 MB."""
    folder = tmp_path_factory.mktemp("matrix")
    path = folder / "[bold] $mathematics^$.mtx"
    scipy.io.mmwrite(path, random_matrix(3000, 3000, 9))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(["--quick", "--matrix", str(path), "--output", str(folder / "output"), "--p", "64"])
    return folder / "output", printed.getvalue()


def table_rows(printed):
    """Cells of the last row that each contender has, which is that of times and memory."""
    names = ("spgrad CSR", "torch.sparse.mm CSR", "spgrad COO", "torch.sparse.mm COO")
    rows = {}
    for line in printed.splitlines():
        for name in names:
            if line.strip().startswith(name):
                rows[name] = line.strip().removeprefix(name).replace(",", "").split()
    assert set(rows) == set(names)
    return {name: [float(cell) for cell in cells[:4]] for name, cells in rows.items()}


def test_matrix_run_draws_only_the_comparison(matrix_run):
    output, _ = matrix_run
    assert_is_picture(output / "finite_elements.png")
    assert [path.name for path in output.iterdir()] == ["finite_elements.png"]


def test_matrix_run_prints_sane_times(matrix_run):
    _, printed = matrix_run
    assert "[bold] $mathematics^$.mtx" in printed
    rows = table_rows(printed)
    for name, (forward, total, ratio, _) in rows.items():
        assert 0 < forward < total < 60_000
        baseline = rows["spgrad " + name.split()[-1]][1]
        assert ratio == pytest.approx(total / baseline, rel=0.02, abs=0.01)


def test_matrix_run_measures_memory(matrix_run):
    _, printed = matrix_run
    peaks = {name: peak for name, (_, _, _, peak) in table_rows(printed).items()}
    results, dense_gradient = (2 * 3000 * 64 + 27_000) * 4 / 1e6, 3000 * 3000 * 4 / 1e6
    # Memory that was freed earlier may serve for a part.
    assert peaks["torch.sparse.mm COO"] > 0.9 * dense_gradient
    for name in ("spgrad CSR", "spgrad COO"):
        assert 0.5 * results < peaks[name] < dense_gradient / 2


def test_dense_gradient_that_does_not_fit_is_not_computed(operands, monkeypatch, tmp_path):
    monkeypatch.setattr(contenders, "available_bytes", lambda: operands.dense_gradient_bytes)
    listed = contenders_for(operands)
    assert [contender.differentiates_matrix for contender in listed] == [True, True, True, False]
    reference = Reference(operands)
    measurements = [
        Measurement(
            contender,
            reference.deviation(contender),
            Timing(0.001, 0.003),
            1.0 if contender.differentiates_matrix else None,
            10**6 if contender.differentiates_matrix else None,
        )
        for contender in listed
    ]
    assert measurements[-1].deviation.matrix_gradient is None
    printed = render(tables.comparison_table(measurements, operands))
    assert "needs 9.6 kB for the dense gradient, not run" in printed
    problem = Problem("small", None)
    comparison_figure.save(tmp_path / "figure.png", problem, measurements, operands)
    assert_is_picture(tmp_path / "figure.png")


def test_dense_gradient_that_fits_is_computed(operands, monkeypatch):
    monkeypatch.setattr(contenders, "available_bytes", lambda: 4 * operands.dense_gradient_bytes)
    assert all(contender.differentiates_matrix for contender in contenders_for(operands))


@pytest.mark.parametrize("layout", ["CSR", "COO"])
def test_right_results_agree(operands, layout):
    for library in ("spgrad", "torch.sparse.mm"):
        assert Reference(operands).deviation(Contender(library, layout)).agrees


def wrong_product(A, B):
    return torch.sparse.mm(A, B) * 1.0001


def wrong_matrix_gradient(A, B):
    return torch.sparse.mm(A * 1.0001, B) + (torch.sparse.mm(A, B) * -0.0001).detach()


def wrong_pattern(A, B):
    return A.to_dense(masked_grad=False) @ B


def not_a_number(A, B):
    return torch.sparse.mm(A, B) * float("nan")


@pytest.mark.parametrize(
    "product", [wrong_product, wrong_matrix_gradient, wrong_pattern, not_a_number]
)
def test_wrong_results_do_not_agree(operands, monkeypatch, product):
    monkeypatch.setattr(spgrad, "sparse_mm", product)
    assert not Reference(operands).deviation(Contender("spgrad", "COO")).agrees


def test_disagreement_ends_the_run(operands, monkeypatch, tmp_path):
    monkeypatch.setattr(spgrad, "sparse_mm", wrong_product)
    contender = Contender("spgrad", "CSR")
    measurement = Measurement(
        contender, Reference(operands).deviation(contender), Timing(0.001, 0.003), 1.0, 10**6
    )
    monkeypatch.setattr(finite_elements, "compare", lambda *_: [measurement])
    problem = Problem("small", random_matrix(60, 40, 5))
    with pytest.raises(SystemExit, match="spgrad CSR does not agree"):
        finite_elements.run(Console(file=io.StringIO()), tmp_path, problem, 16, 1.0)


def test_elastic_ball_is_a_stiffness_matrix():
    problem = finite_elements.elastic_ball(refinements=2)
    stiffness = problem.matrix
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
        (
            "coordinate pattern general",
            ("2 3 2", "1 1", "2 3"),
            [[1, 0, 0], [0, 0, 1]],
        ),
        (
            "coordinate integer symmetric",
            ("2 2 2", "1 1 4", "2 1 -3"),
            [[4, -3], [-3, 0]],
        ),
        (
            "coordinate real skew-symmetric",
            ("2 2 1", "2 1 1.5"),
            [[0, -1.5], [1.5, 0]],
        ),
        (
            "coordinate real general",
            ("3 1 3", "2 1 1", "2 1 2", "3 1 5"),
            [[0], [3], [5]],
        ),
        ("array real general", ("2 2", "1", "2", "0", "4"), [[1, 0], [2, 4]]),
    ],
)
def test_matrix_market_files_are_read(tmp_path, header, lines, expected):
    problem = matrix_market.read(write(tmp_path / "matrix.mtx", header, *lines))
    operands = Operands.random(problem, 2)
    for layout in ("CSR", "COO"):
        assert operands.sparse(layout).to_dense().tolist() == expected


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
        main(["--matrix", str(path), "--output", str(tmp_path)])


def test_missing_matrix_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no file .*missing\.mtx"):
        main(["--matrix", str(tmp_path / "missing.mtx"), "--output", str(tmp_path)])


def test_impossible_number_of_columns_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--p", "0"])
    assert "0 is not positive" in capsys.readouterr().err


def test_output_folder_that_cannot_exist_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="cannot make the folder"):
        main(["--output", str(tmp_path / "file" / "folder")])


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, "0"), (0.012345, "0.0123"), (9.876, "9.88"), (12345.6, "12,346")],
)
def test_three_digits(number, written):
    assert three_digits(number) == written
