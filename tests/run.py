"""Runs the checks of the project; at the end come their seconds, the failures, and the counts.

lint       clang-format, ruff, mypy
release    the C++ tests of the build that is installed
sanitized  the C++ tests under the sanitizers of addresses and of undefined behaviour, and a minute
           of fuzzing
aarch64    some tests of the kernels for AArch64, where the cross compiler and qemu-user are there
tsan       the C++ tests that share work out to threads, under the thread sanitizer
python     pytest, doctests included
composite  the tests of the products on what devices without kernels get
cuda-quick some tests of the products on CUDA kernels that the CPU runs, thread by thread
docs       the site, without a warning: every link within it leads somewhere
speed      the tests that compare times, with nothing beside them

A step whose inputs (sources, binaries, tools) are those of its last pass is not run again, except
with CI=true.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from checks import inputs
from checks.outcomes import Counts, read_ctest, read_junit
from checks.processes import ROOT, has_libfuzzer, lines_of, run

REPORTS = ROOT / "build" / "reports"
IN_CI = os.environ.get("CI") == "true"

CPP_SOURCES = (
    "CMake*",
    "cmake",
    "include",
    "src",
    "tests/CMakeLists.txt",
    "tests/cuda_emulation",
    "tests/kernels",
    "tests/torch",
)
FORMATTED = ("*.cpp", "*.h", "*.cuh")
# The installed library stands for the C++ sources.
PYTHON_SOURCES = ("pyproject.toml", "python", "tests/python")


def lint() -> Counts:
    """Check formatting, style and types; each tool counts as one test."""
    commands = [
        ["clang-format", "--dry-run", "--Werror", *lines_of("git", "ls-files", *FORMATTED)],
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
    ]
    failures = [" ".join(command[:2]) for command in commands if not run(*command)]
    return Counts(passed=len(commands) - len(failures), failures=failures)


def built(preset: str, *targets: str) -> bool:
    """Build targets of a preset, or all."""
    configure = ("cmake", "--preset", preset, f"-DPython_EXECUTABLE={sys.executable}")
    chosen = ("--target", *targets) if targets else ()
    return run(*configure) and run("cmake", "--build", "--preset", preset, *chosen)


def ctest(preset: str) -> Counts:
    """Build a preset, and run its C++ tests."""
    if not built(preset):
        return Counts(failures=[f"{preset}: build"])
    build, report = ROOT / "build" / preset, REPORTS / f"{preset}.xml"
    report.unlink(missing_ok=True)
    for shard in (build / "reports").glob("*.xml"):
        shard.unlink()
    options = ("--output-on-failure", "--no-tests=error", "--parallel", str(os.cpu_count()))
    succeeded = run("ctest", "--test-dir", str(build), *options, "--output-junit", str(report))
    return read_ctest(report, build / "reports", succeeded=succeeded)


def sanitized() -> Counts:
    """Run what Clang builds; only CI must have what it needs."""
    if not has_libfuzzer():
        needed = "The sanitized tests need Clang with libFuzzer and OpenMP "
        needed += "(on Debian: clang, libclang-rt-dev and libomp-dev)"
        print(needed + ("." if IN_CI else "; they are skipped."))
        return Counts(failures=[needed]) if IN_CI else Counts(skipped=1)
    return ctest("sanitized")


def aarch64(preset: str) -> Counts:
    """Run tests of the kernels for another processor, where they can be compiled and run."""
    if not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64-static")):
        print(
            "The tests for AArch64 need a cross compiler and qemu-user (on Debian: "
            "g++-aarch64-linux-gnu and qemu-user-static); they are skipped."
        )
        return Counts(skipped=1)
    return ctest(preset)


# Most tests are too small to keep two cores busy.
IN_FEW_PROCESSES = ("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile")
IN_FEW_PROCESSES += ("--no-loadscope-reorder",)  # conftest.py has the longest files first


def pytest(name: str, *arguments: str, settings: tuple[str, ...] = ()) -> Counts:
    """Run pytest with these settings of the environment, and name the report."""
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = ("env", *settings, sys.executable, "-m", "pytest", f"--junitxml={report}")
    succeeded = run(*command, *arguments)
    return read_junit(report, succeeded=succeeded)


def files_of(*names: str) -> tuple[str, ...]:
    """Name files of Python tests."""
    return tuple(f"tests/python/test_{name}.py" for name in names)


# The quick ones of the tests that every backend must pass.
OF_COMPOSITE = files_of(
    "product", "gradients", "layouts_and_strides", "errors", "malformed", "memory", "lstsq"
)
# What sees most mistakes in a minute.
QUICK = files_of("product", "gradients", "layouts_and_strides", "errors", "malformed", "operators")

# Each test that needs kernels which others did not have compiles them.
QUICK_OF_CUDA = files_of("later_errors", "product", "pattern_buffer", "symmetric")


def composite() -> Counts:
    """Run tests on what devices without kernels get."""
    return pytest("composite", "--backend=composite", *IN_FEW_PROCESSES, *OF_COMPOSITE)


EMULATED = ROOT / "build" / "cuda-emulation"


def on_emulation(name: str, *tests: str) -> Counts:
    """Run tests with a package in which CUDA kernels serve CPU tensors."""
    settings = (f"PYTHONPATH={EMULATED / 'site'}", f"SPGRAD_CACHE={EMULATED / 'cache'}")
    return pytest(name, "--backend=cuda-emulation", *IN_FEW_PROCESSES, *tests, settings=settings)


def cuda_quick() -> Counts:
    """Run some tests with the installed package, whose library is replaced by one of the tests."""
    if not built("release", "spgrad_on_emulation"):
        return Counts(failures=["cuda-quick: build"])
    installed = list(map(Path, inputs.installed_libraries()))
    if len(installed) != 1:
        return Counts(
            failures=[f"cuda-quick: one library of spgrad has to be installed: {installed}"]
        )
    folder = installed[0].parent
    package = folder.parents[1]
    copy = EMULATED / "site" / package.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(package, copy)
    for library in (ROOT / "build" / "release" / "tests" / "cuda_emulation").glob("*.so"):
        shutil.copy(library, copy / folder.relative_to(package))
    return on_emulation("cuda-quick", *QUICK_OF_CUDA)


def cuda_emulation() -> Counts:
    """Run all tests of the products with the package as others build it."""
    install = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation")
    place = ("--upgrade", "--target", str(EMULATED / "site"), "-C", f"build-dir={EMULATED}/build")
    # Without most kernels for the CPU, which no product uses in this build.
    options = ("-C", "cmake.define.SPGRAD_CUDA_EMULATION=ON")
    options += ("-C", "cmake.define.SPGRAD_INSTRUCTION_SETS=")
    if not run(*install, *place, *options, "."):
        return Counts(failures=["cuda-emulation: build"])
    return on_emulation("cuda-emulation")


def docs() -> Counts:
    """Build the site."""
    output = ROOT / "build" / "docs" / "html"
    command = ("-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet")
    succeeded = run(sys.executable, *command, str(ROOT / "docs"), str(output))
    return Counts(passed=1) if succeeded else Counts(failures=["docs: build"])


def changed_python() -> Counts:
    """Run the files of Python tests that changed, those of what changed, and the quick ones."""
    changed = {line[3:] for line in lines_of("git", "status", "--porcelain", "-uall")}
    changed |= set(lines_of("git", "diff", "--name-only", "HEAD~1"))
    tests = {name for name in changed if Path(name).match("tests/*/test_*.py")}
    chosen = {name for name in tests if (ROOT / name).exists()}  # not those that were removed
    for folder in ("examples", "benchmarks"):
        if any(name.startswith(f"{folder}/") for name in changed):
            chosen.add(f"tests/{folder}")
    options = ("-m", "not timed", *IN_FEW_PROCESSES)
    return pytest("changed", *options, *sorted(chosen | set(QUICK)))


# Each step with the places of its inputs; "." is everything.
STEPS = {
    "lint": (lint, (".",)),
    "release": (lambda: ctest("release"), CPP_SOURCES),
    "sanitized": (sanitized, CPP_SOURCES),
    "tsan": (lambda: ctest("tsan"), CPP_SOURCES),
    "aarch64": (lambda: aarch64("aarch64-quick"), CPP_SOURCES),
    "python": (lambda: pytest("python", "-m", "not timed", *IN_FEW_PROCESSES), (".",)),
    "composite": (composite, PYTHON_SOURCES),
    "cuda-quick": (cuda_quick, (*CPP_SOURCES, *PYTHON_SOURCES)),
    "docs": (docs, (".",)),
    "speed": (lambda: pytest("speed", "-m", "timed", *files_of("speed", "nn")), PYTHON_SOURCES),
}
# What takes hours, before a release, beside all that has a command of its own.
LONG = {
    "asan": (lambda: ctest("asan"), CPP_SOURCES),
    "ubsan": (lambda: ctest("ubsan"), CPP_SOURCES),
    "aarch64-full": (lambda: aarch64("aarch64"), CPP_SOURCES),
    "long": (lambda: pytest("long", "-m", "long"), PYTHON_SOURCES),
    "cuda-emulation": (cuda_emulation, (".",)),
}
# While one works: the steps that are quick, and the Python tests that matter.
CHECK = {
    "lint": STEPS["lint"],
    "release": STEPS["release"],
    "changed": (changed_python, (".",)),
}


def table(rows: list[tuple[str, float | None, Counts]]) -> str:
    """Lay out the steps with their seconds."""
    lines = [f"{'step':<14} {'seconds':>8} {'passed':>7} {'failed':>7} {'skipped':>8}"]
    for name, seconds, counts in rows:
        took = "unchanged" if seconds is None else f"{seconds:.0f}"
        numbers = (counts.passed, len(counts.failures), counts.skipped)
        lines.append("{:<13} {:>9} {:>7} {:>7} {:>8}".format(name, took, *numbers))
    return "\n".join(lines)


def main() -> None:
    """Run the steps and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=STEPS | LONG, help="run one step, in any case")
    parser.add_argument("--check", action="store_true", help="run what one runs while working")
    parser.add_argument("--long", action="store_true", help="run what takes hours")
    options = parser.parse_args()
    # The tools of this Python, whoever started it.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    steps = CHECK if options.check else LONG if options.long else STEPS
    if options.only:
        steps = {options.only: (STEPS | LONG)[options.only]}
    REPORTS.mkdir(parents=True, exist_ok=True)

    total = Counts()
    rows: list[tuple[str, float | None, Counts]] = []
    for name, (step, places) in steps.items():
        started = time.monotonic()
        digest = inputs.digest(places)
        passed = None if IN_CI or options.only else inputs.last_pass(name, digest)
        counts = passed or step()
        rows.append((name, None if passed else time.monotonic() - started, counts))
        if not passed and counts.passed and not counts.failures:  # a step left out has not passed
            inputs.remember(name, digest, counts)
        total.add(counts)
        print(f"{name}: {counts.passed} passed, {len(counts.failures)} failed", flush=True)
    print(table(rows))
    for line in total.failures:
        print("FAILED", line)
    print(f"{total.passed} passed, {len(total.failures)} failed, {total.skipped} skipped")
    sys.exit(1 if total.failures else 0)


if __name__ == "__main__":
    main()
