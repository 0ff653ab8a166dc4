"""Numbers as people read and write them: three significant digits, with a fitting unit."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from reprlib import repr

from lab.errors import UsageError

_NONE = "–"
"""What to show where there is no number."""


ANCHOR = "estimate-"
"""How the anchor of an estimate begins, before its key: where a page says what it was computed from."""


@dataclass(frozen=True, eq=False)
class Number:
    """A number as a table shows it: its digits and unit, and where it may lie, with a note on that.

    A table puts a unit that all of a column have into its head, and sets the rest apart. As text it is all in
    one, 1.93 (1.88 to 1.97), which it also equals. `key` is that of the estimate which says where it is from;
    `anchor` is a key of its own, by which links lead here.
    """

    digits: str
    unit: str = ""
    low: "Number | None" = None
    high: "Number | None" = None
    note: str = ""
    key: str = ""
    anchor: str = ""

    def __str__(self) -> str:
        return f"{self._alone} ({self.spread})" if self.spread else self._alone

    @property
    def _alone(self) -> str:
        return self.digits + (self.unit if self.unit.startswith("/") or not self.unit else f" {self.unit}")

    @property
    def spread(self) -> str:
        """Where it may lie, with units: range of 2 blocks: 1.88 to 1.97."""
        return self.spread_in(bare=False)

    def spread_in(self, *, bare: bool) -> str:
        """Where it may lie; `bare` of units, which then stand elsewhere."""
        ends = " to ".join(end.digits if bare else str(end) for end in (self.low, self.high) if end)
        return ": ".join(filter(None, (self.note, ends)))

    @property
    def units(self) -> set[str]:
        """The units of itself and its ends; a number that is not there has none."""
        return {one.unit for one in (self, self.low, self.high) if one and one.digits != _NONE}

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, str | Number) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


@dataclass(frozen=True)
class Fold:
    """Text that a table's cell folds away under a few words."""

    words: str
    text: str

    def __str__(self) -> str:
        return self.words


def in_seconds(value_s: float) -> Number:
    """Return a time: 8.31 s, 87.2 ms, 140 µs."""
    if not math.isfinite(value_s):
        return Number(_NONE)
    rounded_s = abs(float(f"{value_s:.2e}"))
    unit, size_s = ("s", 1.0) if rounded_s >= 1 else ("ms", 1e-3) if rounded_s >= 1e-3 else ("µs", 1e-6)
    return Number(digits(value_s / size_s), unit)


def in_requests(rate_rps: float) -> Number:
    """Return a rate of requests: 11.4/s."""
    return Number(digits(rate_rps), "/s") if math.isfinite(rate_rps) else Number(_NONE)


def in_percent(share: float) -> Number:
    """Return a share from 0 to 1: 73.6 %. Only all reads 100 %, and only nothing reads 0 %."""
    if not math.isfinite(share):
        return Number(_NONE)
    rounded = round(100 * share, 1)
    if rounded == 100 and share < 1:
        return Number("99.9+", "%")
    return Number("<0.1" if rounded == 0 and share > 0 else f"{rounded + 0.0:g}", "%")


def plain(value: float) -> Number:
    """Return a number without a unit, with three significant digits."""
    return Number(digits(value))


def seconds(value_s: float) -> str:
    """Write a time: 8.31 s, 87.2 ms, 140 µs."""
    return str(in_seconds(value_s))


def clock(value_s: float) -> str:
    """Write how long something lasts, as a clock would: 45 s, 1 min 30 s, 2 h 5 min."""
    minutes, rest_s = divmod(round(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest_s} s" if minutes else f"{rest_s} s"


def per_second(rate_rps: float) -> str:
    """Write a rate: 11.4/s."""
    return str(in_requests(rate_rps))


def percent(share: float) -> str:
    """Write a share from 0 to 1: 73.6 %. Only all reads 100 %, and only nothing reads 0 %."""
    return str(in_percent(share))


def between(low: float | None, high: float | None, write: Callable[[float], Number]) -> Number:
    """Return what lies between two bounds, as `bounds` writes it, with the unit apart if both have one."""
    ends = [write(end) for end in (low, high) if end is not None and not math.isnan(end)]
    if not ends or len({end.unit for end in ends}) > 1:
        return Number(bounds(low, high, lambda end: str(write(end))))
    return Number(bounds(low, high, lambda end: write(end).digits), ends[0].unit)


def bounds(low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    """Write what lies between two bounds, either of which may be None or nan: 9.00/s to 9.50/s."""
    if low is None or math.isnan(low):
        return "none found" if high is None or math.isnan(high) else f"less than {write(high)}"
    return f"at least {write(low)}" if high is None or math.isnan(high) else f"{write(low)} to {write(high)}"


def digits(value: float) -> str:
    """Write a number with three significant digits, and with an exponent only from a million on."""
    if not math.isfinite(value):
        return _NONE
    scientific = f"{value:.2e}"
    rounded, magnitude = float(scientific), int(scientific.partition("e")[2])
    return f"{rounded:,.{max(0, 2 - magnitude)}f}" if magnitude < 6 else f"{rounded:.3g}"


def counted(number: float, noun: str) -> str:
    """Write a count with its noun: 1 worker, 2,000 workers, 1.5 loop times."""
    written = f"{number:,.0f}" if number == number // 1 else f"{number:g}"
    return f"{written} {noun}" if number == 1 else f"{written} {noun}s"


_UNITS_S = {"h": 3600.0, "min": 60.0, "ms": 1e-3, "m": 60.0, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "s": 1.0}
"""In the order in which they are looked for, as ms begins with m."""

_NUMBER = r"(\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_UNIT = f"({'|'.join(_UNITS_S)})"
_PART = re.compile(rf"{_NUMBER} ?{_UNIT} *", re.ASCII)
_BARE = re.compile(_NUMBER, re.ASCII)
_RATE = re.compile(rf"({_NUMBER}(?:e\d+)?) ?(?:/ ?1?{_UNIT})?", re.ASCII)
_DURATIONS = "30s, 1m30s or 250ms"
_RATES = "50/s or 30/m"


def parse_duration(duration: str | float, *, zero: bool = False) -> float:
    """Return a duration in seconds: 30s, 1m30s, 87.2 ms. A number without a unit is seconds.

    Raises UsageError if it is malformed, infinite, or not above 0; with `zero`, 0 is allowed.
    """
    value_s = _parsed(duration, _parse_parts, "duration", _DURATIONS)
    if not (0 < value_s < math.inf or (zero and value_s == 0)):
        limit = "at least" if zero else "above"
        raise UsageError(f"a duration must be {limit} 0 and finite, got {repr(duration)}: write {_DURATIONS}")
    return value_s


def parse_rate(rate: str | float) -> float:
    """Return a rate per second: 50/s, 30/m, 1,500/s. A number without a unit is per second.

    Raises UsageError if it is malformed, negative or infinite.
    """
    value_rps = _parsed(rate, _parse_ratio, "rate", _RATES)
    if not 0 <= value_rps < math.inf:
        raise UsageError(f"a rate must be at least 0 and finite, got {repr(rate)}: write {_RATES}")
    return value_rps


def parse_share(share: str | float) -> float:
    """Return a share of 1: 99.9%, 0.999. A number is taken as it is. Raises UsageError if it is malformed."""
    if not isinstance(share, str):
        return share
    try:
        return float(share.removesuffix("%")) / (100 if share.endswith("%") else 1)
    except ValueError:
        raise UsageError(f"malformed share {share!r}: write 99.9% or 0.999") from None


def _parsed(value: object, parse: Callable[[str], float | None], what: str, example: str) -> float:
    """Take a number as it is, and parse a text. True is neither."""
    parsed = parse(value.strip()) if isinstance(value, str) else value
    if isinstance(parsed, bool) or not isinstance(parsed, Real):
        raise UsageError(f"malformed {what} {repr(value)}: write {example}")
    return float(parsed)


def _parse_parts(text: str) -> float | None:
    """Add up the parts of a duration such as 1m30s."""
    if _BARE.fullmatch(text):
        return _plain(text)
    if not text or _PART.sub("", text):
        return None
    return sum(_plain(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def _parse_ratio(text: str) -> float | None:
    """Do the division in a rate such as 30/m."""
    found = _RATE.fullmatch(text)
    return _plain(found[1]) / _UNITS_S[found[3] or "s"] if found else None


def _plain(number: str) -> float:
    return float(number.replace(",", ""))
