"""A C++ project outside this one finds, links and runs what the wheel or CMake installed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import spgrad

ROOT = Path(__file__).parents[2]
WHEEL = Path(spgrad.__file__).parent
SERIES = ".".join(torch.__version__.split(".")[:2])


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def numbers_of(*command):
    return list(map(float, output_of(*command).split()))


# What is built against each kind of installation; all of torch/torch.h is compiled only once.
PROGRAMS = {"wheel": ["train", "load", "multiply"], "cmake --install": ["load", "multiply"]}


@pytest.fixture(scope="module", params=PROGRAMS)
def build(request, tmp_path_factory):
    """Build the project against an installation."""
    prefix = WHEEL
    if request.param == "cmake --install":
        prefix = tmp_path_factory.mktemp("prefix")
        # The folder that `make install` builds in, so that the library lies as it does in a wheel.
        output_of("cmake", "--install", ROOT / "build" / "release", "--prefix", prefix)
        assert (prefix / SERIES / "lib" / "libspgrad.so").exists()
    folder = tmp_path_factory.mktemp("build")
    output_of(
        *("cmake", "-S", ROOT / "tests" / "package", "-B", folder, "-G", "Ninja"),
        # The default of some distributions; it drops libraries of which no symbol is used.
        "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--as-needed",
        f"-Dspgrad_ROOT={prefix}",
        f"-DPython_EXECUTABLE={sys.executable}",
    )
    output_of("cmake", "--build", folder, "--target", *PROGRAMS[request.param])
    return folder


@pytest.mark.parametrize("build", ["wheel"], indirect=True)
def test_a_program_trains_a_sparse_matrix_by_torch_optim(build):
    losses = numbers_of(build / "train")
    assert losses[::2] == pytest.approx([16, 16])  # four diagonal entries, each 1 where 3 is wanted
    assert max(losses[1::2]) < 1e-3


def test_a_program_calls_the_kernels_without_linking_torch(build):
    assert numbers_of(build / "multiply") == 3 * [19, 22, 25, 28, 15, 18, 21, 24]
    libraries = output_of("readelf", "-d", build / "multiply")
    assert "libtorch" not in libraries
    assert "libc10" not in libraries


def examples_of(path, opening, closing):
    """Give the examples of a file that have several lines, without indentation."""
    examples, lines = [], None
    for line in path.read_text().splitlines():
        if lines is None and re.fullmatch(opening, line):
            lines = []
        elif lines is not None and re.fullmatch(closing, line):
            examples.append(lines)
            lines = None
        elif lines is not None:
            lines.append(line.removeprefix("///"))
    several = ("\n".join(lines) for lines in examples if len(lines) > 1)
    return [plain(example) for example in several if re.search(r";( *//.*)?$", example)]


def plain(code):
    """Leave out what may differ in a program: white space and the headers."""
    lines = (line for line in code.splitlines() if not line.startswith("#include"))
    return "".join("".join(lines).split())


HEADERS = (
    "cholesky.h",
    "extremum.h",
    "kernels.h",
    "lsmr.h",
    "lstsq.h",
    "products.h",
    "sparse_mm.h",
)
GUIDE = ROOT / "docs" / "guide" / "cpp.md"


@pytest.mark.parametrize(
    ("path", "opening", "closing"),
    [
        *((ROOT / "include" / "spgrad" / name, r"///", r"///( ?\S.*)?|[^/].*") for name in HEADERS),
        (GUIDE, "```cpp", "```"),
    ],
    ids=[*HEADERS, GUIDE.name],
)
def test_examples_are_those_of_the_programs_that_are_built(path, opening, closing):
    programs = [plain(p.read_text()) for p in (ROOT / "tests" / "package").glob("*.cpp")]
    examples = examples_of(path, opening, closing)
    assert examples
    for example in examples:
        if "intmain()" in example:  # a whole program, which is built by itself
            continue
        assert any(example in program for program in programs), example


FIRST = torch.tensor([[0.0, 2, 0], [3, 0, 4]])
SECOND = torch.tensor([[5.0, 0], [-1, 1], [0, 7], [0, 0]])


class Model(torch.nn.Module):
    """One product of plain tensors, then one by a pattern."""

    def __init__(self):
        super().__init__()
        first = FIRST.to_sparse_csr()
        self.register_buffer("crow_indices", first.crow_indices())
        self.register_buffer("col_indices", first.col_indices())
        self.first = torch.nn.Parameter(first.values())
        self.pattern = spgrad.Pattern(SECOND.to_sparse())
        self.second = torch.nn.Parameter(SECOND[SECOND != 0])

    def forward(self, B):
        C = spgrad.csr_mm(self.crow_indices, self.col_indices, self.first, B)
        return self.pattern.mm(self.second, C).relu()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Compile the model ahead of time, with any number of columns."""
    exported = torch.export.export(
        Model(), (torch.ones(3, 2),), dynamic_shapes=({1: torch.export.Dim("p", min=2, max=64)},)
    )
    path = tmp_path_factory.mktemp("model") / "model.pt2"
    return torch._inductor.aoti_compile_and_package(exported, package_path=str(path))


def test_a_program_runs_a_model_that_was_compiled_ahead_of_time(build, package):
    B = torch.arange(15.0, dtype=torch.float64).reshape(3, 5)
    expected = (SECOND.double() @ (FIRST.double() @ B)).relu()
    assert numbers_of(build / "load", package) == expected.flatten().tolist()


def fake_pytorch(folder, version):
    """Make what CMake looks at of a PyTorch of another version."""
    header = folder / "include" / "torch" / "headeronly" / "version.h"
    header.parent.mkdir(parents=True)
    parts = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
    header.write_text("".join(f"#define TORCH_VERSION_{name} {number}\n" for name, number in parts))
    (folder / "lib").mkdir()
    for name in ("torch", "torch_cpu", "c10"):
        (folder / "lib" / f"lib{name}.so").touch()
    return folder


def configure_project(project, build, **variables):
    """Configure a project, and return what CMake said."""
    result = subprocess.run(
        [
            *("cmake", "-S", project, "-B", build, "-G", "Ninja"),
            *(f"-D{name}={value}" for name, value in variables.items()),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    return result.returncode, " ".join((result.stdout + result.stderr).split())


def configure(tmp_path, find, **variables):
    """Configure a project that looks for spgrad, and return what CMake said."""
    project = tmp_path / "project"
    project.mkdir()
    lines = [
        "cmake_minimum_required(VERSION 3.25)",
        "project(looks LANGUAGES CXX)",
        find,
        'message(STATUS "found: ${spgrad_FOUND}")',
    ]
    (project / "CMakeLists.txt").write_text("\n".join(lines))
    return configure_project(project, tmp_path / "build", **{"spgrad_ROOT": WHEEL, **variables})


MAJOR, MINOR = map(int, SERIES.split("."))
OTHERS = [f"{MAJOR}.{MINOR - 1}.9", f"{MAJOR}.{MINOR + 1}.0"]


@pytest.mark.parametrize("version", OTHERS)
def test_a_pytorch_of_another_series_than_that_of_the_build_is_refused(tmp_path, version):
    code, said = configure(
        tmp_path,
        "find_package(spgrad REQUIRED)",
        LIBTORCH_ROOT=fake_pytorch(tmp_path / "torch", version),
    )
    assert code != 0
    assert f'"{version}"' in said
    assert f"{SERIES}...<{MAJOR}.{MINOR + 1}" in said
    assert f"spgrad::spgrad needs PyTorch {SERIES}." in said


def test_a_patch_release_of_the_same_series_is_accepted(tmp_path):
    root = fake_pytorch(tmp_path / "torch", f"{SERIES}.99")
    code, said = configure(tmp_path, "find_package(spgrad REQUIRED)", LIBTORCH_ROOT=root)
    assert code == 0
    assert "found: 1" in said


def test_the_library_of_the_series_is_found_where_there_are_several(tmp_path):
    files = Path("share") / "cmake" / "spgrad"
    prefix = tmp_path / "prefix"
    for folder in ("lib", "share", SERIES):
        shutil.copytree(WHEEL / folder, prefix / folder)
    (prefix / "include").mkdir()
    series = ".".join(OTHERS[0].split(".")[:2])
    shutil.copytree(prefix / SERIES, prefix / series)
    shutil.copytree(prefix / files / SERIES, prefix / files / series)
    for path in (prefix / files / series).iterdir():
        path.write_text(path.read_text().replace(f"/{SERIES}/", f"/{series}/"))
    find = """
find_package(spgrad REQUIRED)
get_target_property(library spgrad::spgrad IMPORTED_LOCATION_RELEASE)
message(STATUS "library: ${library}")"""
    for version, folder in ((f"{SERIES}.99", SERIES), (OTHERS[0], series)):
        place = tmp_path / folder
        place.mkdir()
        torch_root = fake_pytorch(place / "torch", version)
        code, said = configure(place, find, spgrad_ROOT=prefix, LIBTORCH_ROOT=torch_root)
        assert code == 0, said
        assert f"library: {prefix / folder / 'lib' / 'libspgrad.so'}" in said


def test_a_search_that_is_not_required_fails_without_an_error(tmp_path):
    code, said = configure(tmp_path, "find_package(spgrad QUIET)", LIBTORCH_ROOT=tmp_path)
    assert code == 0
    assert "found: 0" in said
    assert "LibTorch" not in said


def test_the_kernels_are_found_without_pytorch(tmp_path):
    find = "find_package(spgrad REQUIRED COMPONENTS kernels)"
    code, said = configure(tmp_path, find, LIBTORCH_ROOT=tmp_path)
    assert code == 0
    assert "found: 1" in said


@pytest.mark.parametrize("target", ["spgrad::spgrad", "spgrad::kernels"])
def test_the_project_and_the_programs_of_the_guide_are_built_and_run(tmp_path, target):
    text = GUIDE.read_text(encoding="utf-8")
    (project,) = re.findall(r"```cmake\n(.*?)```", text, re.DOTALL)
    programs = re.findall(r"```cpp\n([^`]*int main[^`]*)```", text)
    (program,) = (p for p in programs if ("torch" in p) == (target == "spgrad::spgrad"))
    (tmp_path / "CMakeLists.txt").write_text(
        project.replace("PRIVATE spgrad::spgrad", f"PRIVATE {target}")
    )
    (tmp_path / "main.cpp").write_text(program)
    variables = {"spgrad_ROOT": WHEEL, "Python_EXECUTABLE": sys.executable}
    code, said = configure_project(tmp_path, tmp_path / "build", **variables)
    assert code == 0, said
    output_of("cmake", "--build", tmp_path / "build")
    printed = output_of(tmp_path / "build" / "program").split("\n")
    if target == "spgrad::spgrad":  # of four values, each of which meets eight ones
        assert [float(line) for line in printed if "[" not in line and line] == [8] * 4
    else:
        assert list(map(float, printed[0].split())) == [19, 22, 25, 28, 15, 18, 21, 24]


@pytest.mark.parametrize(
    ("find", "found"),
    [
        ("spgrad REQUIRED", 1),
        ("spgrad COMPONENTS torch", 0),
        ("spgrad REQUIRED COMPONENTS torch", ""),
    ],
)
def test_where_there_is_no_pytorch_the_kernels_are_found_unless_it_is_asked_for(
    tmp_path, find, found
):
    # A copy, since PyTorch is beside the wheel.
    prefix = tmp_path / "prefix"
    shutil.copytree(WHEEL / "share", prefix / "share")
    shutil.copytree(WHEEL / "lib", prefix / "lib")
    shutil.copytree(WHEEL / SERIES, prefix / SERIES)
    (prefix / "include").mkdir()
    find = f"""
set(before "${{CMAKE_MODULE_PATH}}")
find_package({find})
if(NOT before STREQUAL "${{CMAKE_MODULE_PATH}}" OR (TARGET spgrad::kernels AND NOT spgrad_FOUND))
  message(FATAL_ERROR "something is left")
endif()"""
    code, said = configure(
        tmp_path, find, spgrad_ROOT=prefix, CMAKE_DISABLE_FIND_PACKAGE_Python=True
    )
    assert "something is left" not in said
    assert (f"found: {found}" in said) == (code == 0)
    assert (code == 0) == (found != "")
    assert ("spgrad::spgrad needs PyTorch" in said) == (found != 1)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CMAKE_EXE_LINKER_FLAGS", "-static-libstdc++", "needs a compiler that links libstdc++.so"),
        ("SPGRAD_INSTRUCTION_SETS", "avx2;avx3", "must be a list of avx2 and avx512, or empty"),
    ],
)
def test_a_build_that_could_not_work_is_refused(tmp_path, variable, value, reason):
    variables = {variable: value, "Python_EXECUTABLE": sys.executable}
    code, said = configure_project(ROOT, tmp_path, **variables)
    assert code != 0
    assert reason in said
