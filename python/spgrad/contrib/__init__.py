"""Modules for other packages; each needs the package that it is for."""

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spgrad.contrib import onnx, pyg

    __all__ = ["onnx", "pyg"]
else:
    _NEEDED = {"onnx": "onnxscript", "pyg": "torch_geometric"}

    def _is_there(package: str) -> bool:
        try:
            return importlib.util.find_spec(package) is not None
        except ValueError:  # a module without a spec stands in for it
            return False

    # What can be imported here, so that `import *` does not fail for want of the others.
    __all__ = [name for name, package in _NEEDED.items() if _is_there(package)]

    def __getattr__(name: str) -> object:
        """Import a module when it is first used, as its package need not be there."""
        if name in _NEEDED:
            return importlib.import_module(f"spgrad.contrib.{name}")
        message = f"module 'spgrad.contrib' has no attribute {name!r}"
        raise AttributeError(message)
