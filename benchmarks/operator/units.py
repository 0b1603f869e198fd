"""Numbers for tables and pictures."""

from __future__ import annotations

import math


def _digits(number: float, digits: int) -> str:
    if number == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(number))))
    return f"{number:,.{decimals}f}"


def three_digits(number: float) -> str:
    """Write a number with three significant digits, or with all those before the decimal point.

    >>> three_digits(0.01234), three_digits(12.34), three_digits(12345)
    ('0.0123', '12.3', '12,345')
    """
    return _digits(number, 3)


def two_digits(number: float) -> str:
    """Write a ratio, of which a third digit says nothing, with two significant digits.

    >>> two_digits(0.904), two_digits(7.7), two_digits(45.5)
    ('0.90', '7.7', '46')
    """
    return _digits(number, 2)


def _in_units(value: float, units: dict[str, float], digits: int = 3) -> str:
    name, unit = next(
        ((name, unit) for name, unit in units.items() if value >= unit), list(units.items())[-1]
    )
    return f"{_digits(value / unit, digits)} {name}"


def seconds(value: float) -> str:
    """Write a time.

    >>> seconds(1.2345), seconds(0.0123), seconds(4e-7)
    ('1.23 s', '12.3 ms', '0.400 µs')
    """
    return _in_units(value, {"s": 1.0, "ms": 1e-3, "µs": 1e-6})


def size(value: float, digits: int = 3) -> str:
    """Write a number of bytes.

    >>> size(6.0025e10), size(9600), size(3)
    ('60.0 GB', '9.60 kB', '3.00 B')
    """
    return _in_units(value, {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}, digits)


def count(number: int, what: str) -> str:
    """Write a number of things.

    >>> count(1, "thread"), count(2, "thread")
    ('1 thread', '2 threads')
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
