"""What a step depends on, as a hash, and the last hash with which each step passed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

from checks.outcomes import Counts
from checks.processes import ROOT, lines_of

PASSED = ROOT / "build" / "passed.json"
COMPILERS = (os.environ.get("CXX", "c++"), "clang++", "cmake", "ninja")
VARIABLES = ("SPGRAD", "CXX", "CPATH", "LD_", "OMP_", "PYTEST", "PYTHON")  # first letters


def tools() -> list[str]:
    """List the tools, the machine and the settings that the outcome of a test may depend on."""
    packages = [f"{each.name} {each.version}" for each in importlib.metadata.distributions()]
    versions = [line for tool in COMPILERS for line in lines_of(tool, "--version")]
    settings = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES)]
    return [platform.platform(), platform.python_version(), *sorted(packages), *versions, *settings]


def installed_libraries() -> list[str]:
    """List the libraries that the tests in Python load; none where spgrad is not installed."""
    found = importlib.metadata.distributions(name="spgrad")
    libraries = "spgrad/*.*/lib/libspgrad.so"
    return sorted(
        str(path) for each in found for path in Path(each.locate_file("")).glob(libraries)
    )


def digest(places: tuple[str, ...]) -> str:
    """Hash the files at some places of the project, the installed library, and the tools."""
    found = hashlib.sha256()
    listed = lines_of("git", "ls-files", "-co", "--exclude-standard", "--", *places)
    for name in [*sorted(listed), *installed_libraries()]:
        path = ROOT / name  # which is the name itself where that is absolute
        content = path.read_bytes() if path.is_file() else b"deleted"
        found.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    found.update("\n".join(tools()).encode())
    return found.hexdigest()


def _passed() -> dict[str, dict[str, object]]:
    return json.loads(PASSED.read_text()) if PASSED.exists() else {}


def last_pass(step: str, now: str) -> Counts | None:
    """Give the outcome of the last pass of a step, if its inputs were the same."""
    known = _passed().get(step, {})
    return Counts(**known["counts"]) if known.get("digest") == now else None


def remember(step: str, now: str, counts: Counts) -> None:
    """Write down that a step passed."""
    PASSED.parent.mkdir(exist_ok=True)
    PASSED.write_text(
        json.dumps(_passed() | {step: {"digest": now, "counts": asdict(counts)}}, indent=1)
    )
