"""A C++ project outside this one finds, links and runs what the wheel installed."""

import subprocess
import sys
from pathlib import Path

import pytest

import spgrad

PROJECT = Path(__file__).parents[1] / "package"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    subprocess.run(
        [
            "cmake",
            "-S",
            PROJECT,
            "-B",
            folder,
            "-G",
            "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-Dspgrad_ROOT={Path(spgrad.__file__).parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
        ],
        check=True,
    )
    subprocess.run(["cmake", "--build", folder], check=True)
    return folder


def output_of(program):
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()


def test_a_program_trains_a_sparse_matrix_through_the_operator(build):
    first, last = map(float, output_of(build / "train"))
    assert first == pytest.approx(16)  # four diagonal entries, each 1 where 3 is wanted
    assert last < 1e-3


def test_a_program_calls_the_kernels_without_linking_torch(build):
    assert list(map(float, output_of(build / "multiply"))) == [19, 22, 25, 28, 15, 18, 21, 24]
    libraries = subprocess.run(
        ["readelf", "-d", build / "multiply"], check=True, capture_output=True, text=True
    ).stdout
    assert "libtorch" not in libraries
    assert "libc10" not in libraries
