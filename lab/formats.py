"""Numbers as readers like them: three significant digits, with the unit that fits."""

import math


def seconds(value_s: float) -> str:
    """Write a time: 8.31 s, 87.2 ms, 140 µs."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value_s) >= size or unit == "µs":
            return f"{digits(value_s / size)} {unit}"
    raise AssertionError("unreachable")


def per_second(rate_rps: float) -> str:
    """Write a rate: 11.4/s."""
    return f"{digits(rate_rps)}/s"


def percent(share: float) -> str:
    """Write a share from 0 to 1: 73.6 %. Whatever is less than all never reads 100 %."""
    if not math.isfinite(share):
        return "–"
    rounded = round(100 * share, 1)
    return "99.9+ %" if rounded == 100 and share < 1 else f"{rounded:g} %"


def digits(value: float) -> str:
    """Write a number with three significant digits, and never with an exponent below a million."""
    if not math.isfinite(value):
        return "–"
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    return f"{round(value, 2 - magnitude):,.{max(0, 2 - magnitude)}f}" if abs(value) < 1e6 else f"{value:.3g}"


def counted(number: int, noun: str) -> str:
    """Write a count with its noun: 1 worker, 2 workers."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
