"""The types that users of the installed package see, checked by mypy --strict."""

import subprocess
import sys

import pytest

RIGHT = """
from collections.abc import Callable
from typing_extensions import assert_type

import torch

import spgrad

A = torch.eye(3).to_sparse_csr()
B = torch.ones(3, 2)
assert_type(spgrad.sparse_mm(A, B), torch.Tensor)
assert_type(spgrad.csr_mm(A.crow_indices(), A.col_indices(), A.values(), B), torch.Tensor)
assert_type(spgrad.coo_mm(torch.zeros(2, 1), torch.ones(1), (3, 3), B), torch.Tensor)
assert_type(spgrad.coo_mm(torch.zeros(2, 1), torch.ones(1), [3, 3], B), torch.Tensor)
assert_type(spgrad.coo_mm(torch.zeros(2, 1), torch.ones(1), A.shape, B), torch.Tensor)

pattern = spgrad.Pattern(A)
assert_type(pattern, spgrad.Pattern)
assert_type(pattern.mm(torch.nn.Parameter(A.values()), B), torch.Tensor)
assert_type(pattern.to("cpu").to(0).to(torch.device("cpu")), spgrad.Pattern)
assert_type(pattern.shape, torch.Size)
assert_type(pattern.values_shape, torch.Size)
assert_type(pattern.nnz, int)
assert_type(pattern.device, torch.device)

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
    "spgrad.sparse_mm(A, A, A)": "call-arg",
    "spgrad.csr_mm(A, A, A)": "call-arg",
    "spgrad.coo_mm(A, A, 3, A)": "arg-type",
    "spgrad.coo_mm(A, A, (3.0, 3), A)": "arg-type",
    "spgrad.Pattern([[1.0]])": "arg-type",
    "spgrad.Pattern(A).mm(A)": "call-arg",
    "spgrad.Pattern(A).to(torch.float64)": "arg-type",
    "spgrad.Pattern(A).nnz = 3": "misc",
    "spgrad.use_instruction_set(2)": "arg-type",
    "number: int = spgrad.instruction_set()": "assignment",
    "spgrad.sparse_mul(A, A)": "attr-defined",
}


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """Return a function that checks source code as a user's program, outside this project."""
    folder = tmp_path_factory.mktemp("typing")

    def check(source):
        (folder / "program.py").write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "program.py"]
        return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)

    return check


def test_right_uses_have_the_types_that_are_documented(mypy):
    result = mypy(RIGHT)
    assert (result.returncode, result.stdout) == (
        0,
        "Success: no issues found in 1 source file\n",
    ), result.stdout + result.stderr


def test_wrong_uses_are_refused(mypy):
    head = ["import torch", "import spgrad", "A = torch.eye(3).to_sparse()"]
    result = mypy("\n".join([*head, *WRONG, ""]))
    found = {}
    for line in result.stdout.splitlines():
        place, _, message = line.partition(": error: ")
        if message:
            found[int(place.split(":")[1])] = message.rpartition("[")[2].rstrip("]")
    assert found == dict(enumerate(WRONG.values(), start=len(head) + 1)), result.stdout
