"""The checks that Python makes, of what the operators' schemas have no types for."""

from __future__ import annotations

import numbers
import operator
from typing import SupportsFloat, SupportsIndex

from torch import Tensor

LARGEST = (1 << 63) - 1


def refuse_others_than_tensors(**arguments: object) -> None:
    """Refuse arguments that are no tensors, by their names.

    Raises:
        ValueError: An argument is no tensor.

    """
    for name, value in arguments.items():
        refuse_others_than(Tensor, "a torch.Tensor", name, value)


def refuse_others_than(kind: type, accepted: str, name: str, value: object) -> None:
    """Refuse an argument that is of another class.

    Raises:
        ValueError: It is.

    """
    if not isinstance(value, kind):
        message = f"{name} must be {accepted}, but received {type(value).__name__}"
        raise ValueError(message)  # noqa: TRY004 - the documented type, which callers catch


def integer(value: object) -> int | None:
    """Give what an integer of 64 bits is, or nothing for what is none."""
    if not isinstance(value, SupportsIndex) or getattr(value, "ndim", 0) > 0:
        return None
    try:
        number = value if isinstance(value, int) else operator.index(value)
    except (TypeError, RuntimeError):
        return None
    return number if -LARGEST <= number <= LARGEST else None


def real(value: object) -> float | None:
    """Give what a real number is, or nothing for what is none."""
    if isinstance(value, float):
        return value
    is_complex = isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real)
    if is_complex or getattr(value, "ndim", 0) > 0 or not isinstance(value, SupportsFloat):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def integer_from(least: int, name: str, value: object) -> int:
    """Give an argument as an integer that is not below the least.

    Raises:
        ValueError: It is none.

    """
    number = integer(value)
    if number is None or number < least:
        message = f"{name} must be an integer of at least {least}, but received {value!r}"
        raise ValueError(message)
    return number
