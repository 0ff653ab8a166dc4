"""A summary for people: laid out like vegeta's report, plus the lines that it lacks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.errors import UsageError, one_line
from lab.units import counted, parse_duration, parse_share, seconds

if TYPE_CHECKING:
    import pandas as pd


_MOST_ERRORS = 10


def report(summary: Mapping[str, Any], slos: "Sequence[Slo]" = ()) -> str:
    """Return the report of a summary: each line has a label, the names of its numbers, and the numbers."""
    sent = summary["sent"]
    rows = [
        ("Requests", "planned, rate, throughput", _numbers(summary, "planned", "rate", "throughput")),
        ("Sent", "count, rate", _numbers(summary, "sent", "sent_rate")),
        ("Duration", "attack, total", _times(summary, "duration_s", "total_s")),
        _quantiles("Latencies", summary["latency_s"]),
        _quantiles("  of ok", summary["latency_ok_s"]),
        _quantiles("Service", summary["service_s"]),
        _quantiles("  of CPU", summary["service_cpu_s"]),
        _quantiles("Send Lag", summary["send_lag_s"]),
        (
            "Bytes In",
            "total, mean",
            f"{summary['bytes_in']}, {summary['bytes_in'] / sent if sent else 0:.2f}",
        ),
        ("Success", "ratio", "-" if summary["success"] is None else f"{summary['success']:.2%}"),
        ("Outcomes", "kind:count", _counts(summary["outcomes"])),
        *_warmup(summary["warmup"]),
        ("Status Codes", "code:count", _counts(summary["status_codes"])),
        ("Workers", "pid:count", _counts(summary["workers"])),
        ("Generator", "cpu, longest stall", _times(summary["generator"], "cpu_s", "stall_longest_s")),
        ("", "real-time priority", "yes" if summary["generator"].get("realtime") else "no"),
        *_unreadable(summary["generator"].get("unreadable")),
        (
            "Valid",
            "yes or why not",
            "yes" if summary["valid"] else "NO: " + "; ".join(summary["invalid_because"]),
        ),
        *(("SLO", str(slo), slo.missed(summary) or "met") for slo in slos),
    ]
    label, what = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{row[0]:<{label}}  {f'[{row[1]}]':<{what + 2}}  {row[2]}".rstrip() for row in rows]
    errors = ["Error Set:", *_errors(summary["errors"])] if summary["errors"] else []
    return "\n".join([*lines, *errors])


def _errors(errors: Mapping[str, int]) -> list[str]:
    """The most frequent errors, safe for a terminal, and a line that sums up the rest."""
    listed = list(errors.items())[:_MOST_ERRORS]
    lines = [f"{count:>7}  {one_line(text)}" for text, count in listed]
    if others := len(errors) - len(listed):
        rest = sum(errors.values()) - sum(count for _, count in listed)
        lines.append(f"{rest:>7}  {counted(others, 'other error')}, see --format json")
    return lines


def histogram(requests: "pd.DataFrame") -> str:
    """Return the latencies of all requests that ended, counted in buckets of 1, 2, 5, 10, 20, ... units."""
    import numpy as np

    latency_s = (requests["end_s"] - requests["due_s"]).dropna().to_numpy()
    if not len(latency_s):
        return "no request ended"
    steps_s = np.array([digit * 10.0**power for power in range(-6, 4) for digit in (1, 2, 5)])
    first, last = np.searchsorted(steps_s, [latency_s.min(), latency_s.max()], side="right")
    edges_s = np.concatenate([[0.0], steps_s, [np.inf]])[first : last + 2]
    counts, _ = np.histogram(latency_s, edges_s)
    return "\n".join(
        f"{seconds(low):>8} to {seconds(high):>8}  {count:>9}  {count / len(latency_s):>7.2%}  {bar}"
        for low, high, count in zip(edges_s, edges_s[1:], counts.tolist(), strict=False)
        for bar in ["#" * math.ceil(40 * count / counts.max())]
    )


def _warmup(warmup: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Say how the warm-up ended, which none of the other numbers include."""
    if not warmup["planned"]:
        return []
    errors = "".join(f"; {one_line(line)}" for line in _errors(warmup["errors"]))
    return [("Warm-up", "kind:count", _counts(warmup["outcomes"]) + errors)]


def _unreadable(answers: int | None) -> list[tuple[str, str, str]]:
    """Say how many of the server's numbers were left out as unreadable, if any."""
    return [("", "answers with unreadable numbers", str(answers))] if answers else []


def _numbers(values: Mapping[str, Any], *names: str) -> str:
    return ", ".join(
        f"{values[name]:.2f}" if isinstance(values[name], float) else str(values[name]) for name in names
    )


def _times(values: Mapping[str, float | None], *names: str) -> str:
    return ", ".join("-" if (value := values.get(name)) is None else seconds(value) for name in names)


def _quantiles(label: str, values: Mapping[str, float | None]) -> tuple[str, str, str]:
    return label, ", ".join(name.removeprefix("p") for name in values), _times(values, *values)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}:{count}" for name, count in counts.items() if count) or "-"


_LATENCIES = ("mean", "p50", "p90", "p95", "p99", "max")


LEAST_SUCCESS = 0.99
"""The success that a latency objective implies, unless one asks for success: failures can be fast."""


@dataclass(frozen=True)
class Slo:
    """A latency over all requests of at most `limit` seconds, or a success of at least `limit`."""

    name: str
    limit: float
    implied: bool = False

    def __str__(self) -> str:
        limit = f">= {_share_text(self.limit)}" if self.name == "success" else f"<= {seconds(self.limit)}"
        return f"{self.name} {limit}{', implied' if self.implied else ''}"

    @staticmethod
    def parse(text: str) -> "Slo":
        """Return the objective in a text like p99=250ms. Raises UsageError if it is malformed."""
        name, separator, value = (part.strip() for part in text.partition("="))
        if name in _LATENCIES and separator:
            if value[-1:] in tuple("0123456789."):
                raise UsageError(f"malformed SLO {text!r}: say the unit, {name}={value}ms or {name}={value}s")
            return Slo(name, parse_duration(value))
        if name == "success" and separator:
            return Slo(name, _share(value))
        raise UsageError(
            f"malformed SLO {text!r}: write p99=250ms, {'=..., '.join(_LATENCIES)}=... or success=99.9%"
        )

    @staticmethod
    def parse_all(texts: Sequence[str]) -> "list[Slo]":
        """Return the objectives in texts; without one for success, those for latency imply it."""
        slos = [Slo.parse(text) for text in texts]
        if slos and all(slo.name != "success" for slo in slos):
            slos.append(Slo("success", LEAST_SUCCESS, implied=True))
        return slos

    def to_dict(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Return the objective and whether a summary meets it, as JSON says it."""
        kept = {"name": self.name, "limit": self.limit, "implied": self.implied}
        return {**kept, "value": self._value(summary), "met": self.missed(summary) is None}

    def missed(self, summary: Mapping[str, Any]) -> str | None:
        """Return in words how a summary misses this objective; None if it meets it."""
        value = self._value(summary)
        if value is None:
            return f"{self.name} is unknown: no request ended"
        if self.name == "success":
            implied = ", which a latency SLO implies" if self.implied else ""
            under = f"success is {_share_text(value)}, under {_share_text(self.limit)}{implied}"
            return under if value < self.limit else None
        return f"{self.name} is {seconds(value)}, over {seconds(self.limit)}" if value > self.limit else None

    def _value(self, summary: Mapping[str, Any]) -> float | None:
        value: float | None = (
            summary["success"] if self.name == "success" else summary["latency_s"][self.name]
        )
        return value


def _share_text(share: float) -> str:
    return f"{100 * share:.6g} %"


def _share(text: str) -> float:
    if not 0 < (value := parse_share(text)) <= 1:
        raise UsageError(f"malformed share {text!r}: write 99.9% or 0.999")
    return value
