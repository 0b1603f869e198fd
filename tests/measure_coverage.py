"""Measures which lines of the C++ library and of the Python package the tests run.

Builds the library with counters, runs the C++ tests and those in Python that use it, and prints one
table for both languages. The lines themselves are in build/coverage/html/index.html.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from run import OF_COMPOSITE

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "coverage"
SITE = BUILD / "site"
# Tests of times, of sizes beyond 2^31 and of other programs take long and reach no further lines.
LEFT_OUT = ("cpp_project", "limits", "package", "speed", "typing")


def run(*command: str | Path) -> bool:
    """Run a command with the package of this build; whether it succeeds."""
    print("$", *command, flush=True)
    environment = os.environ | {"PYTHONPATH": str(SITE)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def require(*command: str | Path) -> None:
    """Run a command that nothing works without."""
    if not run(*command):
        sys.exit(1)


def build() -> None:
    """Build the library and the C++ tests, and install the package beside them."""
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--upgrade", f"--target={SITE}"]
    settings = [f"build-dir={BUILD}", "cmake.build-type=Debug", "cmake.args=--preset=coverage"]
    options = [word for setting in settings for word in ("-C", setting)]
    require(sys.executable, "-m", "pip", "install", *flags, *options, ".")
    for counters in BUILD.rglob("*.gcda"):
        counters.unlink()


def run_tests() -> bool:
    """Run all tests, also where some fail."""
    programs = (
        "kernels/cpu/spgrad_kernel_tests",
        "kernels/cuda/spgrad_cuda_kernel_tests",
        "torch/spgrad_torch_tests",
        "torch/spgrad_cuda_loader_tests",
    )
    outcomes = [run(BUILD / "tests" / program, "--gtest_brief=1") for program in programs]
    left_out = [f"--ignore=tests/python/test_{name}.py" for name in LEFT_OUT]
    left_out += ["--ignore=tests/benchmarks", "--ignore=tests/examples"]
    coverage = [sys.executable, "-m", "coverage"]
    pytest = [*coverage, "run", "-m", "pytest", "-q", "-m", "not timed"]
    outcomes.append(run(*pytest, *left_out))
    outcomes.append(run(*pytest, "--backend=composite", *OF_COMPOSITE))
    require(*coverage, "combine", "--quiet")
    require(*coverage, "xml", "--quiet")
    return all(outcomes)


def report() -> None:
    """Join both languages in one table."""
    gcovr = [Path(sys.executable).parent / "gcovr", "--root", ROOT]
    # GCC 12 counts some lines of templates below zero.
    sources = ["--filter=src/", "--filter=include/", "--gcov-ignore-parse-errors=all"]
    require(*gcovr, *sources, "--json", BUILD / "cpp.json", BUILD / "src")
    html = BUILD / "html"
    html.mkdir(exist_ok=True)
    tracefiles = ["--add-tracefile", BUILD / "cpp.json"]
    tracefiles += ["--cobertura-add-tracefile", BUILD / "python.xml"]
    require(
        *gcovr, *tracefiles, "--merge-lines", "--txt", "-", "--html-details", html / "index.html"
    )


def main() -> None:
    """Build, run and report."""
    build()
    succeeded = run_tests()
    report()
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main()
