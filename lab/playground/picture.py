"""A moment, as text and lines that are ready to be drawn."""

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lab.load.live import Row
from lab.playground.engine import Moment, Worker
from lab.playground.theory import Theory
from lab.playground.window import Numbers
from lab.units import digits, per_second, percent, seconds

SHOWN_S = 60.0
_NONE = "–"

_LATE_S = 0.01
"""Requests that leave later than this say more of the generator than of the server."""


@dataclass
class History:
    """The last minute, a point for each moment, and what was done meanwhile."""

    moments: deque[Moment] = field(default_factory=deque)
    events: deque[tuple[float, str]] = field(default_factory=deque)

    def add(self, moment: Moment) -> None:
        """Add a moment, and forget what is out of sight."""
        self.moments.append(moment)
        while self.moments[0].at_s < moment.at_s - SHOWN_S:
            self.moments.popleft()
        while self.events and self.events[0][0] < moment.at_s - SHOWN_S:
            self.events.popleft()

    def note(self, text: str) -> None:
        """Mark something that is done now."""
        if self.moments:
            self.events.append((self.moments[-1].at_s, text))

    def charts(self) -> list[dict[str, Any]]:
        """Return the two charts: throughput beside the offered rate, and the p99, both beside theory."""
        at = [moment.at_s for moment in self.moments]
        theories = [moment.theory for moment in self.moments]
        now = at[-1] if at else 0.0
        rates = {
            "offered": [moment.rate_rps for moment in self.moments],
            "theory": [theory and theory.throughput_rps for theory in theories],
            "measured": [moment.numbers.throughput_rps for moment in self.moments],
        }
        tails = {
            "theory": [theory and theory.p99_s for theory in theories],
            "measured": [moment.numbers.p99_s for moment in self.moments],
        }
        return [
            self._chart("Throughput, requests/s", at, rates, now, log=False),
            self._chart("p99 of latency", at, tails, now, log=True),
        ]

    def _chart(
        self, title: str, at: list[float], lines: dict[str, list[float | None]], now: float, *, log: bool
    ) -> dict[str, Any]:
        write = seconds if log else per_second
        last = {kind: ys[-1] for kind, ys in lines.items() if ys and ys[-1] is not None}
        said = ", ".join(f"{kind} {write(y)}" for kind, y in last.items() if y is not None)
        return {
            "title": title,
            "alt": f"{title}, over the last minute; now: {said or 'nothing yet'}",
            "log": log,
            "now": round(now, 3),
            "events": [[round(t, 3), text] for t, text in self.events] if at else [],
            "lines": [
                {"name": kind, "kind": kind, "points": [[round(t, 3), y and round(y, 6)] for t, y in zip(at, ys, strict=True)]}
                for kind, ys in lines.items()
            ],
        }  # fmt: skip


def tiles(moment: Moment | None) -> list[dict[str, Any]]:
    """Return the numbers to show, each beside what theory predicts."""
    if moment is None:
        names = ("p50", "p99", "throughput", "in flight", "utilisation")
        return [{"name": name, "value": _NONE, "theory": "", "bad": False} for name in names]
    numbers, theory = moment.numbers, moment.theory
    late = numbers.lag_p99_s is not None and numbers.lag_p99_s > _LATE_S
    shown = [
        ("p50", _time(numbers.p50_s), _settled(theory, theory and theory.p50_s, seconds), False),
        ("p99", _time(numbers.p99_s), _settled(theory, theory and theory.p99_s, seconds), False),
        _throughput(moment),
        ("in flight", f"{numbers.in_flight:,}", _in_flight(theory), False),
        ("utilisation", percent(theory.utilisation) if theory else _NONE, _service(numbers), bool(theory and theory.utilisation >= 1)),
    ]  # fmt: skip
    if numbers.failures:
        ways = ", ".join(name.replace("_", " ") for name in numbers.failures)
        shown.append(("failed", per_second(numbers.failed_rps), ways, True))
    if late and numbers.lag_p99_s is not None:
        shown.append(("generator late", seconds(numbers.lag_p99_s), "distrust these numbers", True))
    return [{"name": n, "value": value, "theory": text, "bad": bad} for n, value, text, bad in shown]


def _time(value_s: float | None) -> str:
    return _NONE if value_s is None else seconds(value_s)


def _throughput(moment: Moment) -> tuple[str, str, str, bool]:
    predicted = f"theory {per_second(moment.theory.throughput_rps)}" if moment.theory else ""
    short = moment.theory is not None and moment.theory.grows_rps > 0
    return "throughput", per_second(moment.numbers.throughput_rps), predicted, short


def _settled(theory: Theory | None, value_s: float | None, write: Any) -> str:
    if theory is None:
        return ""
    if value_s is None:
        return "theory: grows without end" if theory.grows_rps else "theory: never settles"
    return f"theory {write(value_s)}"


def _in_flight(theory: Theory | None) -> str:
    if theory is None:
        return ""
    if theory.grows_rps:
        return f"theory: grows by {per_second(theory.grows_rps)}"
    return _settled(theory, theory.in_flight, digits)


def _service(numbers: Numbers) -> str:
    return "" if numbers.service_s is None else f"a loop takes {seconds(numbers.service_s)}"


def workers(found: Iterable[Worker]) -> list[dict[str, Any]]:
    """Return a line for each worker: its name, its process, and its share of the answers."""
    return [
        {
            "name": f"worker {one.index + 1}",
            "about": f"process {one.pid}" + (f", restarts {one.restarts}" if one.restarts else ""),
            "share": round(one.share, 4),
            "text": percent(one.share),
        }
        for one in found
    ]


def scene(
    title: str, count: int, central: bool, rows: Iterable[tuple[Row, int | None]], waiting: Iterable[float]
) -> dict[str, Any]:
    """Return the requests as `replay.js` draws them: those that ended, and those that wait."""
    ended = [
        {"due": row.due_s, "start": row.end_s - row.service_s, "end": row.end_s, "worker": worker}
        for row, worker in rows
        if row.end_s is not None and row.service_s is not None and worker is not None and worker < count
    ]
    left = [{"due": due_s, "start": None, "end": None, "worker": None} for due_s in waiting]
    requests = sorted(itertools.chain(ended, left), key=lambda one: float(one["due"] or 0.0))
    return {"title": title, "workers": count, "requests": requests} | ({"queue": "shared"} if central else {})
