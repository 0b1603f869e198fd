"""Loads the C++ library, which registers the operators with PyTorch."""

from pathlib import Path

import torch

from spgrad import _build

_FOLDER = Path(_build.__file__).parent


def supported_series() -> list[str]:
    """List the minor versions of PyTorch that this installation has a library for."""
    found = [path.parents[1].name for path in _FOLDER.glob("*.*/lib/libspgrad.so")]
    return sorted(found, key=lambda series: [int(number) for number in series.split(".")])


def library_path() -> Path:
    """Give the library for the PyTorch that is running.

    PyTorch's C++ interface changes with every minor version: a library built for another one fails
    with missing symbols at best.

    Raises:
        ImportError: this installation has no library for the minor version of PyTorch.

    """
    series = ".".join(torch.__version__.split(".")[:2])
    supported = supported_series()
    if series not in supported:
        message = (
            f"this installation of spgrad was built for PyTorch {', '.join(supported)}, but found "
            f"PyTorch {torch.__version__}; pip uninstall spgrad, then "
            "pip install --no-cache-dir --no-binary spgrad spgrad builds it for this one"
        )
        raise ImportError(message)
    return _FOLDER / series / "lib" / "libspgrad.so"


def load_library() -> None:
    """Load libspgrad.

    Raises:
        ImportError: this installation has no library for the minor version of PyTorch.
        ValueError: SPGRAD_INSTRUCTION_SET names no instruction set of this CPU.

    """
    torch.ops.load_library(library_path())
    torch.ops.spgrad.instruction_set()  # says now what is wrong with SPGRAD_INSTRUCTION_SET


load_library()
