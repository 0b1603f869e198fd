"""The types that users of the installed package see, checked by mypy --strict."""

import subprocess
import sys
from pathlib import Path

import pytest

# The cache, and the options that belong to it, of the project's own check, which has read PyTorch.
CACHE = Path(__file__).parents[2] / ".mypy_cache"
OPTIONS = ("--strict", "--config-file=", f"--cache-dir={CACHE}", "--untyped-calls-exclude=torch")

RIGHT = """
from collections.abc import Callable
from typing_extensions import assert_type

import torch

import spgrad

A = torch.eye(3).to_sparse_csr()
B = torch.ones(3, 2)
assert_type(spgrad.sparse_mm(A, B), torch.Tensor)
assert_type(spgrad.sparse_mm(A, B, reduce="amax"), torch.Tensor)
assert_type(spgrad.csr_mm(A.crow_indices(), A.col_indices(), A.values(), B), torch.Tensor)
assert_type(spgrad.coo_mm(torch.zeros(2, 1), torch.ones(1), (3, 3), B), torch.Tensor)
assert_type(spgrad.coo_mm(torch.zeros(2, 1), torch.ones(1), [3, 3], B), torch.Tensor)
assert_type(spgrad.coo_mm(torch.zeros(2, 1), torch.ones(1), A.shape, B), torch.Tensor)

assert_type(spgrad.sddmm(A, B, B), torch.Tensor)
assert_type(spgrad.csr_sddmm(A.crow_indices(), A.col_indices(), B, B), torch.Tensor)
assert_type(spgrad.coo_sddmm(torch.zeros(2, 1), (3, 3), B, B), torch.Tensor)
assert_type(spgrad.from_scipy(spgrad.to_scipy(A)), torch.Tensor)

pattern = spgrad.Pattern(A)
assert_type(pattern, spgrad.Pattern)
assert_type(spgrad.Pattern.from_csr(A.crow_indices(), A.col_indices(), (3, 3)), spgrad.Pattern)
assert_type(spgrad.Pattern.from_coo(torch.zeros(2, 1), A.shape).T, spgrad.Pattern)
assert_type(pattern.mm_transposed(A.values(), B), torch.Tensor)
assert_type(pattern.sddmm(B, B), torch.Tensor)
assert_type(pattern.indices(), torch.Tensor)
assert_type(pattern.mm(torch.nn.Parameter(A.values()), B), torch.Tensor)
assert_type(pattern.to("cpu").to(0).to(torch.device("cpu")), spgrad.Pattern)
assert_type(pattern.shape, torch.Size)
assert_type(pattern.values_shape, torch.Size)
assert_type(pattern.nnz, int)
assert_type(pattern.device, torch.device)

solution, report = spgrad.sparse_lstsq(A, B, return_report=True, damp=0.1, tol=1e-6)
assert_type(report.backward, tuple[spgrad.LstsqReport, ...])
assert_type(spgrad.sparse_lstsq(A, B, method="direct", scale="columns"), torch.Tensor)
assert_type(pattern.lstsq(A.values(), B), torch.Tensor)
flag = bool(torch.rand(()) > 0.5)
Either = torch.Tensor | tuple[torch.Tensor, spgrad.LstsqReport]
crow_indices, col_indices, values = A.crow_indices(), A.col_indices(), A.values()
assert_type(spgrad.sparse_lstsq(A, B, return_report=flag), Either)
assert_type(spgrad.csr_lstsq(crow_indices, col_indices, values, B, 3, return_report=flag), Either)
assert_type(spgrad.coo_lstsq(pattern.indices(), values, (3, 3), B, return_report=flag), Either)
assert_type(pattern.lstsq(values, B, return_report=flag), Either)
assert_type(spgrad.sparse_generic_solve(A, B, lambda A, B: B), torch.Tensor)
assert_type(pattern.softmax(A.values(), dim=-2), torch.Tensor)
assert_type(spgrad.csr_softmax(crow_indices, col_indices, values, (3, 3)), torch.Tensor)
assert_type(spgrad.matmul(A, B), torch.Tensor)
assert_type(spgrad.cuda.check_at_once(True), bool)
assert_type(spgrad.nn.PatternBuffer(pattern).pattern, spgrad.Pattern)
permutation, row_starts = spgrad.distributed.partition(crow_indices, col_indices, 2, "mtkahypar")
assert_type(row_starts, tuple[int, ...])
assert_type(spgrad.cuda.info().devices[0].unavailable, str | None)

layer = spgrad.nn.SparseLinear.from_dense(torch.nn.Linear(3, 2), sparsity=0.5)
assert_type(layer, spgrad.nn.SparseLinear)
assert_type(layer.to_dense(), torch.nn.Linear)
optimizer = torch.optim.Adam(layer.parameters())
assert_type(layer.weight, torch.nn.Parameter)
assert_type(layer.values, torch.Tensor)
assert_type(layer.mask, torch.Tensor)
assert_type(layer.absent_gradient(B, B, 3), tuple[torch.Tensor, torch.Tensor])
layer.change_pattern_(layer.mask, values=torch.zeros(0), optimizer=optimizer)

assert_type(spgrad.instruction_sets(), list[str])
assert_type(spgrad.instruction_set(), str)
assert_type(spgrad.__version__, str)
spgrad.use_instruction_set("baseline")
product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = spgrad.sparse_mm
"""

# Each line and the error code that mypy gives for it.
WRONG = {
    "spgrad.sparse_mm(A)": "call-arg",
    "spgrad.sparse_mm(A, [[1.0]])": "arg-type",
    "spgrad.sparse_mm(A, A, A)": "arg-type",
    'spgrad.sparse_mm(A, A, reduce="max")': "arg-type",
    "spgrad.csr_mm(A, A, A)": "call-arg",
    "spgrad.coo_mm(A, A, 3, A)": "arg-type",
    "spgrad.coo_mm(A, A, (3.0, 3), A)": "arg-type",
    "spgrad.Pattern([[1.0]])": "arg-type",
    "spgrad.Pattern(A).mm(A)": "call-arg",
    "spgrad.Pattern(A).to(torch.float64)": "arg-type",
    "spgrad.Pattern(A).nnz = 3": "misc",
    "spgrad.Pattern(A).T.mm(A)": "call-arg",
    "spgrad.Pattern.from_coo(A, 3)": "arg-type",
    "spgrad.sddmm(A, A)": "call-arg",
    "spgrad.sparse_lstsq(A, A, damping=3)": "call-overload",
    'spgrad.sparse_lstsq(A, A, method="qr")': "call-overload",
    "spgrad.sparse_generic_solve(A, A, 3)": "arg-type",
    "spgrad.nn.SparseLinear(3, 4, 0.9)": "arg-type",
    'spgrad.distributed.partition(A, A, 2, method="scotch")': "arg-type",
    "spgrad.use_instruction_set(2)": "arg-type",
    "number: int = spgrad.instruction_set()": "assignment",
    "spgrad.sparse_mul(A, A)": "attr-defined",
}


HEAD = ("import torch", "import spgrad", "A = torch.eye(3).to_sparse()")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Check both as programs of a user outside this project: the errors of each file, by line."""
    folder = tmp_path_factory.mktemp("typing")
    (folder / "right.py").write_text(RIGHT, encoding="utf-8")
    (folder / "wrong.py").write_text("\n".join([*HEAD, *WRONG, ""]), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", *OPTIONS, "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].endswith("(checked 2 source files)"), done.stdout
    errors = {"right.py": {}, "wrong.py": {}}
    for line in done.stdout.splitlines():
        place, _, message = line.partition(": error: ")
        if message:
            file, number = place.split(":")[:2]
            errors[file][int(number)] = message
    return errors


def test_right_uses_have_the_types_that_are_documented(found):
    assert found["right.py"] == {}


def test_wrong_uses_are_refused(found):
    codes = {line: message.rpartition("[")[2][:-1] for line, message in found["wrong.py"].items()}
    assert codes == dict(enumerate(WRONG.values(), start=len(HEAD) + 1)), found
