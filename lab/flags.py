"""Reasons to doubt a result: data, which become words only where they are shown to people."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from lab.units import percent, seconds


@dataclass(frozen=True)
class Flag:
    """One reason: the `code` of what was checked, its value, and the limit that it exceeded.

    Values are seconds, shares or ratios, as `KINDS` says for the code. A value or limit may be missing.
    """

    code: str
    value: float | None = None
    limit: float | None = None

    def __str__(self) -> str:
        kind = KINDS.get(self.code) or Kind(f"flagged by a later version: {self.code}", "{:g}".format)
        value = "" if self.value is None else f" {_apart(kind.show, self.value, self.limit)}"
        limit = "" if self.limit is None else f" (limit {kind.show(self.limit)})"
        return f"{kind.text}{value}{limit}"

    def to_dict(self) -> dict[str, Any]:
        """Return it in the form that JSON and Parquet keep."""
        return asdict(self)

    @staticmethod
    def from_dict(kept: Mapping[str, Any]) -> "Flag":
        """Return the flag from what `to_dict` gave; one with an unknown code is still a flag."""
        return Flag(kept["code"], kept["value"], kept["limit"])


class Kind(NamedTuple):
    """What a code means, and how its values are written."""

    text: str
    show: Callable[[float], str]


def _apart(show: Callable[[float], str], value: float, limit: float | None) -> str:
    """Write a value so that it can be told from its limit, with more digits if it takes them."""
    shown = show(value)
    if limit is None or value == limit or shown != show(limit):
        return shown
    if show is not percent:
        return f"just beyond {shown}"
    digits = range(2, 18)  # 17 tell any two numbers apart
    return next(f"{100 * value:.{n}g} %" for n in digits if f"{100 * value:.{n}g}" != f"{100 * limit:.{n}g}")


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times"


def _moment(at_s: float) -> str:
    return f"after {seconds(at_s)}" if at_s > 0 else "in the warm-up"


def _change(ratio: float) -> str:
    return f"{ratio:+.0%}"


KINDS = {
    "interrupted": Kind("interrupted", _moment),
    "send_lag": Kind("the generator fell behind: send lag p99", seconds),
    "stall": Kind("the generator's event loop stood still for", seconds),
    "stalled": Kind("share of the time that the generator's event loop stood still", percent),
    "generator_cpu": Kind("the generator was the bottleneck: share of a core that it used", percent),
    "generators_cpu": Kind("the server had no CPU left: share of all CPUs that the generators used", percent),
    "client_errors": Kind("requests that failed in the client itself", percent),
    "steal": Kind("CPU time that the hypervisor took", percent),
    "others_cpu": Kind("CPU time that other processes took", percent),
    "loop_ratio": Kind("time of the loop, relative to what is usual in its run:", _times),
    "loop_drift": Kind("the loop's cost drifted within the block by", _change),
    "earlier_version": Kind("flagged by an earlier version, which kept no codes", str),
}
"""All codes."""


def passed(flags: Iterable[Flag]) -> list[Flag]:
    """Return those whose value is above their limit; one without a value was not checked."""
    return [flag for flag in flags if (flag.value or 0.0) > (flag.limit or 0.0)]


def in_words(flags: Iterable[Flag]) -> str:
    """Return the reasons as one line; "" if there are none."""
    return "; ".join(map(str, flags))
