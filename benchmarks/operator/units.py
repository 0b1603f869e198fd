"""Numbers for tables and figures."""

import math


def three_digits(number: float) -> str:
    """Write a number with three significant digits, or with all those before the decimal point.

    >>> three_digits(0.01234), three_digits(12.34), three_digits(12345)
    ('0.0123', '12.3', '12,345')
    """
    if number == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:,.{decimals}f}"
