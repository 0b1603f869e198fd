"""Packages that few functions need."""

from __future__ import annotations

import importlib
from typing import Any


def optional(name: str, user: str, install: str) -> Any:
    """Import a package, or tell who needs it and how to get it.

    Raises:
        ImportError: It is not there.

    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"{user} {name}: pip install {install}"
        raise ImportError(message) from error
