"""The build backend: scikit-build-core, which asks for PyTorch only where there is none yet.

A build must use the PyTorch that the library will run with, since PyTorch's C++ interface changes
with every version. pip builds in an environment of its own; a build requirement on torch would
install a second one there, of 5 GB and perhaps of another version. So it is required only where the
environment that is installed into has none.
"""

from __future__ import annotations

import subprocess
import sys

from scikit_build_core import build as _scikit_build
from scikit_build_core.build import *  # noqa: F403 - all other hooks as they are


def _torch_is_installed() -> bool:
    # pip isolates a build by environment variables, which -E ignores: asked so, Python sees what it
    # will see at run time, be it in the environment's own folder, the system's or the user's.
    program = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    return any(
        subprocess.run([sys.executable, *flags, "-c", program], check=False).returncode == 0  # noqa: S603
        for flags in ([], ["-E"])
    )


def get_requires_for_build_wheel(
    config_settings: dict[str, str | list[str]] | None = None,
) -> list[str]:
    """Return what scikit-build-core needs, and torch where it is missing."""
    requires = _scikit_build.get_requires_for_build_wheel(config_settings)
    return requires if _torch_is_installed() else [*requires, "torch>=2.11"]


get_requires_for_build_editable = get_requires_for_build_wheel
