"""Numbers for tables and pictures."""

from __future__ import annotations

import math


def two_digits(number: float) -> str:
    """Write a number with two significant digits: a third of what is measured says nothing.

    >>> two_digits(0.904), two_digits(7.7), two_digits(9.97), two_digits(12345)
    ('0.90', '7.7', '10', '12,000')
    """
    if number == 0:
        return "0"
    rounded = float(f"{number:.1e}")  # 9.97 has a digit less behind the point than 9.7
    decimals = max(0, 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def _in_units(value: float, units: dict[str, float]) -> str:
    name, unit = next(
        ((name, unit) for name, unit in units.items() if value >= unit), list(units.items())[-1]
    )
    return f"{two_digits(value / unit)} {name}"


def seconds(value: float) -> str:
    """Write a time.

    >>> seconds(1.2345), seconds(0.0123), seconds(4e-7)
    ('1.2 s', '12 ms', '0.40 µs')
    """
    return _in_units(value, {"s": 1.0, "ms": 1e-3, "µs": 1e-6})


def size(value: float) -> str:
    """Write a number of bytes.

    >>> size(6.0025e10), size(9600), size(3)
    ('60 GB', '9.6 kB', '3.0 B')
    """
    return _in_units(value, {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0})


def count(number: int, what: str) -> str:
    """Write a number of things.

    >>> count(1, "thread"), count(2, "thread")
    ('1 thread', '2 threads')
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
