"""Packages that few modules or functions need, and what is said where one is not there."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needed(package: str, text: str) -> Iterator[None]:
    """Say ``text`` where imports in this context find no ``package``; what else is missing stays.

    Raises:
        ModuleNotFoundError: There is no such package.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ModuleNotFoundError(text, name=error.name) from None


def optional(name: str, user: str, install: str) -> Any:
    """Import a package, or tell who needs it and how to get it.

    Raises:
        ModuleNotFoundError: There is no such package.

    """
    with needed(name, f"{user} {name}: pip install {install}"):
        return importlib.import_module(name)
