"""What a report of a bug needs to tell: ``python -m spgrad.info`` prints it.

It names versions, processor, GPUs, build and settings, but no user and no host.
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import torch

from spgrad import _build, _library, cuda, instruction_set, instruction_sets

__all__ = ["report"]

_PACKAGES = ("torch", "numpy", "scipy")
_SETTINGS = ("SPGRAD_", "OMP_", "MKL_", "CUDA_LAUNCH_BLOCKING")  # first letters


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _without_names(text: str) -> str:
    """Write paths without the home directory, the user and the host."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - raises nothing where there is none
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # of a number without a name, as in containers
        user = ""
    folders = {str(home), str(home.resolve())} - {"/"} if home.is_absolute() else set()
    for folder in folders:
        text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", "~", text)
    for name, instead in ((user, "USER"), (platform.node(), "HOST")):
        if name:
            text = re.sub(rf"/{re.escape(name)}(?![\w.-])", f"/{instead}", text)
    return text


def report() -> str:
    """Tell versions, processor, GPUs, build and settings, in lines that are safe to paste.

    >>> from spgrad import info
    >>> print(info.report())  # doctest: +ELLIPSIS
    spgrad            ...

    Returns:
        One line for each thing. In paths, the home directory is written as ``~``, and the names of
        user and host as ``USER`` and ``HOST``.

    """
    folder = Path(_build.__file__).parent
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    best, *others = instruction_sets()
    sets = f"{best}, also {', '.join(others)}" if others else best
    settings = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(_SETTINGS)]
    facts = {
        "spgrad": f"{_build.__version__} in {folder}",
        "built": f"for PyTorch {', '.join(_library.supported_series())} by {_build.COMPILER}",
        "Python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "processor": f"{_processor()}, {os.cpu_count()} logical cores",
        "instruction sets": f"{sets}; in use: {instruction_set()}",
        "threads": str(torch.get_num_threads()),
        "CUDA of PyTorch": str(torch.version.cuda),
        "GPUs": ", ".join(gpus) or "none",
        **dict(line.split(None, 1) for line in str(cuda.info()).splitlines()[:1]),
        "settings": ", ".join(settings) or "none",
    }
    return _without_names("\n".join(f"{name:<17} {fact}" for name, fact in facts.items()))


if __name__ == "__main__":
    sys.stdout.write(report() + "\n")
