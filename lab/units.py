"""Numbers as readers like them: three significant digits, with the unit that fits."""

import math
import re

from lab.errors import UsageError

_NONE = "–"
"""What stands where there is no number."""


def seconds(value_s: float) -> str:
    """Write a time: 8.31 s, 87.2 ms, 140 µs."""
    if not math.isfinite(value_s):
        return _NONE
    rounded_s = abs(float(f"{value_s:.2e}"))
    unit, size_s = ("s", 1.0) if rounded_s >= 1 else ("ms", 1e-3) if rounded_s >= 1e-3 else ("µs", 1e-6)
    return f"{digits(value_s / size_s)} {unit}"


def per_second(rate_rps: float) -> str:
    """Write a rate: 11.4/s."""
    return f"{digits(rate_rps)}/s" if math.isfinite(rate_rps) else _NONE


def percent(share: float) -> str:
    """Write a share from 0 to 1: 73.6 %. Whatever is less than all never reads 100 %."""
    if not math.isfinite(share):
        return _NONE
    rounded = round(100 * share, 1)
    return "99.9+ %" if rounded == 100 and share < 1 else f"{rounded:g} %"


def digits(value: float) -> str:
    """Write a number with three significant digits, and never with an exponent below a million."""
    if not math.isfinite(value):
        return _NONE
    scientific = f"{value:.2e}"
    rounded, magnitude = float(scientific), int(scientific.partition("e")[2])
    return f"{rounded:,.{max(0, 2 - magnitude)}f}" if magnitude < 6 else f"{rounded:.3g}"


def counted(number: float, noun: str) -> str:
    """Write a count with its noun: 1 worker, 2 workers, 1.5 loop times."""
    written = f"{number:.0f}" if number == number // 1 else f"{number:g}"
    return f"{written} {noun}" if number == 1 else f"{written} {noun}s"


_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|us|s)")


def parse_duration(duration: str | float) -> float:
    """Return a duration in seconds.

    Raises UsageError if it is malformed, or not above zero and finite.
    """
    value = duration if isinstance(duration, int | float) else _parsed(duration.strip())
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"a duration is above zero, not {duration!r}: write 30s, 1m30s or 250ms")
    return float(value)


def _parsed(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        return float(text)
    if not text or _PART.sub("", text):
        raise UsageError(f"malformed duration {text!r}: write 30s, 1m30s or 250ms")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
