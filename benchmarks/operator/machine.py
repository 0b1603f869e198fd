"""What the figures depend on: processor, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import psutil
import torch

import spgrad

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("spgrad", "torch", "torchsparsegradutils", "torch_sparse", "scipy", "numpy")


def processor() -> str:
    """Name the processor as the system does."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    command = [program, "-C", str(ROOT), *arguments]
    result = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    return result.stdout.strip() if result.returncode == 0 else None


def commit() -> str:
    """Name the commit, and say if files differ from it."""
    name = _git("rev-parse", "--short=12", "HEAD")
    if name is None:
        return "unknown"
    return f"{name} with changes" if _git("status", "--porcelain") else name


def available_memory() -> int:
    """Read how many bytes are available."""
    return int(psutil.virtual_memory().available)


def _busy_cores() -> float:
    """Measure, in two seconds of doing nothing, how many cores other programs keep busy."""
    return float(psutil.cpu_percent(interval=2)) / 100 * (psutil.cpu_count() or 1)


def describe() -> dict[str, str]:
    """Describe the machine and the software, as pairs of what and which."""
    described = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "cores busy before the run": f"{_busy_cores():.2f}",
        "instruction set": spgrad.instruction_set(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        "commit": commit(),
    }
    return (
        described
        | {package: _version(package) for package in PACKAGES}
        | {"threads of PyTorch": str(torch.get_num_threads())}
    )


def busy(described: dict[str, str]) -> bool:
    """Say whether other programs took so much that times of several threads mean little."""
    return float(described["cores busy before the run"]) > 0.25 * int(described["cores"])
