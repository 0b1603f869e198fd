"""What connects spgrad to other packages, which are needed for the module of their name alone."""

import importlib
from typing import TYPE_CHECKING

__all__ = ["onnx", "pyg"]

if TYPE_CHECKING:
    from spgrad.contrib import onnx, pyg
else:

    def __getattr__(name: str) -> object:
        """Import a module when it is first used, as its package need not be there."""
        if name in __all__:
            return importlib.import_module(f"spgrad.contrib.{name}")
        message = f"module 'spgrad.contrib' has no attribute {name!r}"
        raise AttributeError(message)
