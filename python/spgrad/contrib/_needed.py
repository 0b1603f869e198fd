"""What a module says where the package that it connects to is not there."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needed(package: str, text: str) -> Iterator[None]:
    """Say ``text`` where imports in this context find no ``package``; what else is missing stays.

    Raises:
        ModuleNotFoundError: there is no such package.

    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise ModuleNotFoundError(text, name=error.name) from None
