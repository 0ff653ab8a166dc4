"""A service level objective, such as p99=250ms or success=99.9%, and whether a summary meets it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.durations import seconds
from lab.errors import UsageError
from lab.formats import seconds as written

_LATENCIES = ("mean", "p50", "p90", "p95", "p99", "max")


@dataclass(frozen=True)
class Slo:
    """A latency over all requests of at most `limit` seconds, or a success of at least that."""

    name: str
    limit: float

    @staticmethod
    def parse(text: str) -> "Slo":
        """Return the objective that a text like p99=250ms states. Raises UsageError if it is malformed."""
        name, separator, value = (part.strip() for part in text.partition("="))
        if name in _LATENCIES and separator:
            return Slo(name, seconds(value))
        if name == "success" and separator:
            return Slo(name, _share(value))
        raise UsageError(
            f"malformed SLO {text!r}: write p99=250ms, {'=..., '.join(_LATENCIES)}=... or success=99.9%"
        )

    def missed(self, summary: Mapping[str, Any]) -> str | None:
        """Return in words how a summary misses this objective, None if it is met."""
        value = summary["success"] if self.name == "success" else summary["latency_s"][self.name]
        if value is None:
            return f"{self.name} is unknown: no request came to an end"
        if self.name == "success":
            return f"success is {value:.2%}, under {self.limit:.2%}" if value < self.limit else None
        return f"{self.name} is {written(value)}, over {written(self.limit)}" if value > self.limit else None


def _share(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise UsageError(f"malformed share {text!r}: write 99.9% or 0.999")
    return value
