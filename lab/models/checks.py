"""The checks that every model makes of its input, so that a wrong number is refused by name."""

import math

from lab.errors import UsageError


def above_zero(**numbers: float) -> None:
    """Raise UsageError for the first of the named numbers that is not finite and above zero."""
    for name, number in numbers.items():
        if not (math.isfinite(number) and number > 0):
            raise UsageError(f"{name} must be a finite number above zero, not {number!r}")


def at_least_one(**counts: int) -> None:
    """Raise UsageError for the first of the named counts that is not a whole number from 1."""
    for name, count in counts.items():
        if count != int(count) or count < 1:
            raise UsageError(f"{name} must be a whole number, 1 or more, not {count!r}")


def share(**numbers: float) -> None:
    """Raise UsageError for the first of the named numbers that is not between 0 and 1, both left out."""
    for name, number in numbers.items():
        if not 0 < number < 1:
            raise UsageError(f"{name} must be above 0 and below 1, not {number!r}")
