"""The build backend: scikit-build-core, and what this project needs to know about PyTorch.

A build must use the PyTorch that the library will run with, since PyTorch's C++ interface changes
with every version. pip builds in an environment of its own; a build requirement on torch would
install a second one there, of 5 GB and perhaps of another version. So it is required only where the
environment that is installed into has none. The setting cmake.define.LIBTORCH_ROOT names the folder
of another one. The metadata of a built wheel name the series that it needs.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from scikit_build_core import build as _scikit_build
from scikit_build_core.build import *  # noqa: F403 - all other hooks as they are

_SUPPORTED = "torch>=2.11"
# What a hook that makes a wheel is about to write; an sdist may be built with any of them.
_requirement = _SUPPORTED

_PROGRAM = """
import importlib.util, importlib.metadata
print(importlib.metadata.version("torch") if importlib.util.find_spec("torch") else "")
"""


def _torch_version(config_settings: dict[str, Any] | None) -> str:
    """Ask for the PyTorch that the library will run with; empty where there is none."""
    if root := (config_settings or {}).get("cmake.define.LIBTORCH_ROOT"):
        header = Path(root) / "include" / "torch" / "headeronly" / "version.h"
        text = header.read_text(encoding="utf-8") if header.exists() else ""
        return ".".join(re.findall(r"define TORCH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text))
    # pip isolates a build by environment variables, which -E ignores: asked so, Python sees what it
    # will see at run time, be it in the environment's own folder, the system's or the user's.
    for flags in ([], ["-E"]):
        command = [sys.executable, *flags, "-c", _PROGRAM]
        found = subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()  # noqa: S603
        if found:
            return found
    return ""


def _urls() -> dict[str, str]:
    """Name the repository on GitHub whose workflow builds; the project has no other address."""
    repository = os.environ.get("GITHUB_REPOSITORY", "")
    if not repository:
        return {}
    owner, _, name = repository.partition("/")
    address = f"https://github.com/{repository}"
    return {
        "Homepage": f"https://{owner}.github.io/{name}/",
        "Source": address,
        "Issues": f"{address}/issues",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
    }


def dynamic_metadata(
    field: str, _settings: dict[str, Any] | None = None
) -> list[str] | dict[str, str]:
    """Give scikit-build-core the dependencies of the package, and where it is at home."""
    if field == "dependencies":
        return [_requirement]
    if field == "urls":
        return _urls()
    message = f"field must be 'dependencies' or 'urls', but received {field!r}"
    raise ValueError(message)


def _what_is_missing(torch_version: str) -> str:
    """Say in one sentence why nothing can be built here; empty where it can."""
    if sys.platform != "linux":
        return f"spgrad supports Linux, but this is {platform.system() or sys.platform}."
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    chosen_elsewhere = "CMAKE_CXX_COMPILER" in os.environ.get("CMAKE_ARGS", "")
    if not chosen_elsewhere and not any(name and shutil.which(name.split()[0]) for name in names):
        return (
            "spgrad is compiled when it is installed and needs a C++20 compiler "
            "(GCC 12 or Clang 14, or newer), but found none; on Debian, apt install g++."
        )
    if not torch_version:
        return f"spgrad is compiled for the PyTorch at hand, but found none; install {_SUPPORTED}."
    return ""


def _for_torch_at_hand(hook: Any) -> Any:
    """Let a hook write the series of PyTorch that it builds with into the metadata."""

    @functools.wraps(hook)
    def with_series(*arguments: Any, **options: Any) -> Any:
        global _requirement  # noqa: PLW0603 - the hook calls dynamic_metadata
        given = [*options.values(), *arguments]
        version = _torch_version(next((each for each in given if isinstance(each, dict)), None))
        if missing := _what_is_missing(version):
            raise SystemExit(missing)
        major, minor = version.split(".")[:2]
        _requirement = f"torch>={major}.{minor},<{major}.{int(minor) + 1}"
        try:
            return hook(*arguments, **options)
        finally:
            _requirement = _SUPPORTED

    return with_series


build_wheel = _for_torch_at_hand(_scikit_build.build_wheel)
build_editable = _for_torch_at_hand(_scikit_build.build_editable)
prepare_metadata_for_build_wheel = _for_torch_at_hand(
    _scikit_build.prepare_metadata_for_build_wheel
)
prepare_metadata_for_build_editable = _for_torch_at_hand(
    _scikit_build.prepare_metadata_for_build_editable
)


def get_requires_for_build_wheel(
    config_settings: dict[str, str | list[str]] | None = None,
) -> list[str]:
    """Return what scikit-build-core needs, and torch where it is missing."""
    requires = _scikit_build.get_requires_for_build_wheel(config_settings)
    return requires if _torch_version(config_settings) else [*requires, _SUPPORTED]


get_requires_for_build_editable = get_requires_for_build_wheel
