"""Durations as people type them: 30s, 1m30s, 250ms, or a plain number of seconds."""

import math
import re

from lab.errors import UsageError

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|us|s)")


def seconds(duration: str | float) -> float:
    """Return a duration in seconds.

    Raises UsageError if it is malformed, or not above zero and finite.
    """
    value = duration if isinstance(duration, int | float) else _parse(duration.strip())
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"a duration is above zero, not {duration!r}: write 30s, 1m30s or 250ms")
    return float(value)


def _parse(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        return float(text)
    if not text or _PART.sub("", text):
        raise UsageError(f"malformed duration {text!r}: write 30s, 1m30s or 250ms")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
