"""Runs every check of the project; at the end come the failures, and how many passed and failed.

lint       clang-format, ruff, mypy
release    the C++ tests of the build that is installed
asan-ubsan the C++ tests under the sanitizers of addresses and of undefined behaviour
tsan       the C++ tests that share work out to threads, under the thread sanitizer
fuzz       the fuzz targets of the kernels, a minute each
python     pytest, doctests included
speed      the tests that compare times, with nothing beside them
composite  the tests of the products on what devices without kernels get
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "reports"
MESSAGE_LENGTH = 500  # characters of a failure that are repeated at the end


@dataclass
class Counts:
    """Outcomes of tests, with a line for each failure."""

    passed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Add the outcomes of another run."""
        self.passed += other.passed
        self.skipped += other.skipped
        self.failures += other.failures


def run(command: list[str], environment: dict[str, str] | None = None) -> bool:
    """Run a command in the project's folder; its output goes where ours goes."""
    print("$", " ".join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def failure(case: ET.Element) -> str | None:
    """Name a failed test case and its message, or return None."""
    for kind in ("failure", "error"):
        found = case.find(kind)
        if found is not None:
            message = (found.get("message") or found.text or "").strip()
            return f"{case.get('classname', '')} {case.get('name', '')}: {message[:MESSAGE_LENGTH]}"
    return None


def read_report(report: Path, *, succeeded: bool) -> Counts:
    """Count the test cases of a JUnit report; a run that failed without one counts as a failure."""
    counts = Counts()
    if report.exists():
        for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own report
            if (failed := failure(case)) is not None:
                counts.failures.append(failed)
            elif case.find("skipped") is not None or case.get("status") == "disabled":
                counts.skipped += 1
            else:
                counts.passed += 1
    if not succeeded and not counts.failures:
        counts.failures.append(f"{report.stem}: no test is reported as failed, but the run is")
    return counts


def lint() -> Counts:
    """Check formatting, style and types; each tool counts as one test."""
    listed = subprocess.run(
        ["git", "ls-files", "*.cpp", "*.h"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    commands = [
        ["clang-format", "--dry-run", "--Werror", *listed.stdout.split()],
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
    ]
    failures = [" ".join(command[:2]) for command in commands if not run(command)]
    return Counts(passed=len(commands) - len(failures), failures=failures)


def ctest(preset: str, *settings: str, names: str = ".") -> Counts:
    """Build a preset, with further settings for CMake, and run its C++ tests of such names."""
    configured = run(
        ["cmake", "--preset", preset, f"-DPython_EXECUTABLE={sys.executable}", *settings]
    )
    if not (configured and run(["cmake", "--build", "--preset", preset])):
        return Counts(failures=[f"{preset}: build"])
    report = REPORTS / f"{preset}.xml"
    report.unlink(missing_ok=True)
    command = ["ctest", "--test-dir", f"build/{preset}", "--output-on-failure"]
    command += ["--parallel", str(os.cpu_count()), "--no-tests=error", "--tests-regex", names]
    return read_report(report, succeeded=run([*command, "--output-junit", str(report)]))


def has_libfuzzer() -> bool:
    """Whether Clang and its libFuzzer are there."""
    if shutil.which("clang++") is None:
        return False
    target = 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'
    command = ["clang++", "-fsanitize=address,fuzzer", "-x", "c++", "-", "-o", os.devnull]
    return subprocess.run(command, input=target, text=True, check=False).returncode == 0


def fuzz() -> Counts:
    """Run the fuzz targets; only CI must have what they need."""
    if not has_libfuzzer():
        required = os.environ.get("CI") == "true"
        needed = "The fuzz targets need Clang with libFuzzer (on Debian: clang and libclang-rt-dev)"
        print(needed + ("." if required else "; they are skipped."))
        return Counts(failures=[needed]) if required else Counts(skipped=1)
    return ctest("fuzz", "-DSPGRAD_FUZZ_SECONDS=60")


# Most tests are too small to keep two cores busy.
IN_FEW_PROCESSES = ("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile")


def pytest(name: str, *arguments: str) -> Counts:
    """Run pytest, and name the report."""
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"--junitxml={report}", *arguments]
    return read_report(report, succeeded=run(command))


# The quick ones of the tests that every backend must pass.
OF_COMPOSITE = tuple(
    f"tests/python/test_{name}.py"
    for name in ("product", "gradients", "layouts_and_strides", "errors", "malformed", "memory")
)


def composite() -> Counts:
    """Run tests on what devices without kernels get."""
    return pytest("composite", "--backend=composite", *IN_FEW_PROCESSES, *OF_COMPOSITE)


STEPS = {
    "lint": lint,
    "release": lambda: ctest("release"),
    "asan-ubsan": lambda: ctest("asan-ubsan"),
    # Each is a process of its own, so that all take minutes; those of one thread have no race.
    "tsan": lambda: ctest("tsan", names="ManyThreads|Determinism|RunTasks|RunRows"),
    "fuzz": fuzz,
    "python": lambda: pytest("python", "-m", "not timed", *IN_FEW_PROCESSES),
    "speed": lambda: pytest("speed", "-m", "timed"),
    "composite": composite,
}


def main() -> None:
    """Run the steps and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=STEPS, help="run one step")
    chosen = parser.parse_args().only
    REPORTS.mkdir(parents=True, exist_ok=True)

    total = Counts()
    for name, step in STEPS.items():
        if chosen in (None, name):
            counts = step()
            print(f"{name}: {counts.passed} passed, {len(counts.failures)} failed", flush=True)
            total.add(counts)
    for line in total.failures:
        print("FAILED", line)
    print(f"{total.passed} passed, {len(total.failures)} failed, {total.skipped} skipped")
    sys.exit(1 if total.failures else 0)


if __name__ == "__main__":
    main()
