"""Loads the C++ library, which registers the operators with PyTorch."""

from pathlib import Path

import torch

from spgrad import _build
from spgrad._build import TORCH_VERSION


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])


def load_library() -> None:
    """Load libspgrad, after a check that it was built for the PyTorch that is running.

    PyTorch's C++ interface changes with every minor version: a library built for another one fails
    with missing symbols at best.

    Raises:
        ImportError: PyTorch has another minor version than the one spgrad was built with.
        ValueError: SPGRAD_INSTRUCTION_SET names no instruction set of this CPU.

    """
    if _series(torch.__version__) != _series(TORCH_VERSION):
        message = (
            f"this installation of spgrad needs PyTorch {_series(TORCH_VERSION)}, which it was "
            f"built with, but found PyTorch {torch.__version__}; install spgrad again"
        )
        raise ImportError(message)
    torch.ops.load_library(Path(_build.__file__).parent / "lib" / "libspgrad.so")
    torch.ops.spgrad.instruction_set()  # says now what is wrong with SPGRAD_INSTRUCTION_SET


load_library()
