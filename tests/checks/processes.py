"""Commands in the project's folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*command: str) -> bool:
    """Run a command; its output goes where ours goes."""
    print("$", " ".join(command), flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def lines_of(*command: str) -> list[str]:
    """Run a command that prints lines; none where it fails or is not there."""
    if shutil.which(command[0]) is None:
        return []
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else []


def has_libfuzzer() -> bool:
    """Whether Clang, its libFuzzer and its OpenMP are there."""
    if shutil.which("clang++") is None:
        return False
    target = '#include <omp.h>\nextern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) '
    target += "{ return omp_get_max_threads() > 0 ? 0 : 1; }"
    command = ["clang++", "-fsanitize=address,fuzzer", "-fopenmp=libomp", "-x", "c++", "-"]
    command += ["-o", os.devnull]
    return subprocess.run(command, input=target, text=True, check=False).returncode == 0
