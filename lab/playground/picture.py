"""A moment, as text and lines that are ready to be drawn."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.load.live import Report
from lab.playground.engine import Moment, Worker
from lab.playground.theory import Theory
from lab.units import digits, per_second, percent, seconds

SHOWN_S = 60.0
_NONE = "–"

Lines = dict[str, list[float | None]]
Write = Callable[[float], str]

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
        moments, theories = self.moments, [moment.theory for moment in self.moments]
        rates: Lines = {
            "offered": [moment.rate_rps for moment in moments],
            "theory": [theory.throughput_rps if theory else None for theory in theories],
            "measured": [moment.numbers.throughput_rps for moment in moments],
        }
        tails: Lines = {
            "theory": [theory.p99_s if theory else None for theory in theories],
            "measured": [moment.numbers.p99_s for moment in moments],
        }
        return [
            self._chart("Throughput, requests/s", rates, per_second, log=False),
            self._chart("p99 of latency", tails, seconds, log=True),
        ]

    def _chart(self, title: str, lines: Lines, write: Write, *, log: bool) -> dict[str, Any]:
        at = [round(moment.at_s, 3) for moment in self.moments]
        now = {name: write(ys[-1]) for name, ys in lines.items() if ys and ys[-1] is not None}
        said = ", ".join(f"{name} {text}" for name, text in now.items()) or "nothing yet"
        return {
            "title": title,
            "alt": f"{title}, over the last minute; now: {said}",
            "log": log,
            "now": at[-1] if at else 0.0,
            "events": [[round(t, 3), text] for t, text in self.events],
            "lines": [
                {"name": name, "points": [[t, y and round(y, 6)] for t, y in zip(at, ys, strict=True)]}
                for name, ys in lines.items()
            ],
        }


def tiles(moment: Moment | None) -> list[dict[str, Any]]:
    """Return the numbers to show, each beside what theory predicts."""
    if moment is None:
        return [_tile(name, _NONE, "") for name in ("p50", "p99", "throughput", "in flight", "utilisation")]
    numbers, theory = moment.numbers, moment.theory
    used = theory.utilisation if theory else None
    loops = "" if numbers.service_s is None else f"a loop takes {seconds(numbers.service_s)}"
    shown = [
        _tile("p50", _time(numbers.p50_s), _settled(theory, theory.p50_s, seconds) if theory else ""),
        _tile("p99", _time(numbers.p99_s), _settled(theory, theory.p99_s, seconds) if theory else ""),
        _throughput(moment),
        _tile("in flight", f"{numbers.in_flight:,}", _in_flight(theory) if theory else ""),
        _tile("utilisation", _NONE if used is None else _used(used), loops, bad=(used or 0.0) >= 1),
    ]
    if numbers.failures:
        ways = ", ".join(name.replace("_", " ") for name in numbers.failures)
        shown.append(_tile("failed", per_second(numbers.failed_rps), ways, bad=True))
    if (numbers.lag_p99_s or 0.0) > _LATE_S:
        shown.append(_tile("sent late", _time(numbers.lag_p99_s), "distrust these numbers", bad=True))
    return shown


def _tile(name: str, value: str, theory: str, *, bad: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "theory": theory, "bad": bad}


def _time(value_s: float | None) -> str:
    return _NONE if value_s is None else seconds(value_s)


def _used(utilisation: float) -> str:
    return percent(utilisation) if utilisation < 1 else f"{100 * utilisation:,.0f} %"


def _throughput(moment: Moment) -> dict[str, Any]:
    predicted = f"theory {per_second(moment.theory.throughput_rps)}" if moment.theory else ""
    short = moment.theory is not None and moment.theory.grows_rps > 0
    return _tile("throughput", per_second(moment.numbers.throughput_rps), predicted, bad=short)


def _settled(theory: Theory, value: float | None, write: Write) -> str:
    if value is None:
        return "theory: grows without end" if theory.grows_rps else "theory: never settles"
    return f"theory {write(value)}"


def _in_flight(theory: Theory) -> str:
    if theory.grows_rps:
        return f"theory: grows by {per_second(theory.grows_rps)}"
    return _settled(theory, theory.in_flight, digits)


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
    title: str, found: Sequence[Worker], central: bool, recent: Report, places: Iterable[int | None]
) -> dict[str, Any]:
    """Return the requests as `replay.js` draws them live: those that ended, and those that have not.

    places: of each that ended, the place of its worker among those that were found.
    """
    count = 1 + max((one.index for one in found), default=0)
    ended: list[dict[str, Any]] = [
        {"due": row.due_s, "start": row.end_s - row.service_s, "end": row.end_s, "worker": worker}
        for row, worker in zip(recent.rows, places, strict=True)
        if row.end_s is not None and row.service_s is not None and worker is not None and worker < count
    ]
    left = [{"due": due_s, "start": None, "end": None, "worker": None} for due_s in recent.waiting_due_s]
    return {
        "title": title,
        "workers": count,
        "requests": sorted([*ended, *left], key=lambda one: one["due"]),
        "now": recent.now_s,
        "busy": [one.index for one in found if one.is_busy],
        "more": recent.waiting - len(left),
    } | ({"queue": "shared"} if central else {})
