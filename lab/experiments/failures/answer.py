"""What failures cost, by event: tables with intervals, figures, the answer, and the article's claims."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab import units
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.failures.trials import (
    BLOCK,
    CALM,
    CRASH,
    EXPERIMENT,
    KILL,
    RECYCLE,
    REPLACED_WITHIN_S,
    SCALE,
    around,
)
from lab.figures import BAD, HALO, INK, PALE, SMALL, canvas, reference_line
from lab.figures.timeline import draw_lanes
from lab.models.statistics import Estimate, Interval, estimate, proportion
from lab.study.estimates import Stated, linked, stated
from lab.units import counted, percent, seconds

ENOUGH = 2 / 3
"""The bar of the claims: what is claimed must be true of at least this share of the events."""

MOST_WAITING = 0.1
"""A blocked worker blocks only itself if at most this share of the requests due meanwhile waits for it."""

SILENT_S = 1.0
"""A service goes on if a request that is due after the event is answered well within this time."""

MOST_LOST = 1
"""... and if a kill costs at most this many requests: the one that the worker was busy with."""


def _waited(mine: pd.DataFrame) -> "pd.Series[float]":
    return (mine["waited"] / mine["due"]).where(mine["took_s"].notna() & (mine["due"] > 0))


def _replaced(mine: pd.DataFrame) -> "pd.Series[bool]":
    return mine["took_s"] <= REPLACED_WITHIN_S


def _goes_on(mine: pd.DataFrame) -> "pd.Series[bool]":
    return (mine["next_s"] <= SILENT_S) & (mine["lost"] <= MOST_LOST)


def _unnoticed(mine: pd.DataFrame) -> "pd.Series[bool]":
    return _replaced(mine) & (mine["next_s"] <= SILENT_S) & (mine["lost"] == 0)


def _blocks_only_itself(mine: pd.DataFrame) -> "pd.Series[bool]":
    return _waited(mine) <= MOST_WAITING


@dataclass(frozen=True)
class Part:
    """A part of a claim: what must be true of an event, in words and as a function of the events."""

    words: str
    holds: Callable[[pd.DataFrame], "pd.Series[bool]"]


PARTS: dict[int, tuple[str, tuple[Part, ...]]] = {
    5: (BLOCK, (Part(f"at most {percent(MOST_WAITING)} of the requests had to wait", _blocks_only_itself),)),
    6: (
        KILL,
        (
            Part(f"replaced within {seconds(REPLACED_WITHIN_S)}", _replaced),
            Part(f"next answer within {seconds(SILENT_S)}, at most {MOST_LOST} lost", _goes_on),
        ),
    ),
    7: (RECYCLE, (Part(f"replaced, next answer within {seconds(SILENT_S)}, nothing lost", _unnoticed),)),
}
"""The claims by number: the failure that each is about, and its parts."""


@dataclass(frozen=True)
class Measure:
    """What is stated of failures: a number of each, by its median, or whether it is true, by its share.

    A median of 0 says nothing of rare losses, and an interval of their mean would promise too much: what
    `counts` is stated by its mean, between the least and the most.
    """

    quantity: str
    of: Callable[[pd.DataFrame], "pd.Series[Any]"]
    unit: str = ""
    counts: bool = False

    def known(self, mine: pd.DataFrame) -> pd.DataFrame:
        """Return the events that have it."""
        return mine[self.of(mine).notna()]

    def found(self, mine: pd.DataFrame) -> Estimate | None:
        """Estimate it from events; None if no event has it. The event is the unit, whatever its requests."""
        values = self.of(self.known(mine))
        if values.empty:
            return None
        if values.dtype == bool:
            return proportion(int(values.sum()), len(values))
        if self.counts:
            mean, least, most = (float(found) for found in (values.mean(), values.min(), values.max()))
            return Estimate(mean, least, most, len(values), Interval.EXTREMES)
        return estimate(values.to_numpy(float), within=(0, 1 if self.unit == "share" else math.inf))

    def written(self, mine: pd.DataFrame) -> str:
        """Write it with its interval, or with its range if the events are too few."""
        found = self.found(mine)
        if found is None:
            return "not within the trial"
        if self.counts:
            total, at_most = _in_all(found)
            return f"{units.digits(found.value)}: {total:,} in {counted(found.trials, 'event')}{at_most}"
        write = {"s": seconds, "share": percent}.get(self.unit, units.digits)
        value, low, high = map(write, (found.value, found.low, found.high))
        if found.trials > 1:
            value += f" ({low} to {high}{'' if found.is_interval else ', the range'})"
        never = len(mine) - found.trials
        return f"{value}; not within {never} of {counted(len(mine), 'event')}" if never else value


_LOST = Measure("requests lost per event, on average", lambda mine: mine["lost"], counts=True)
_LOSING = Measure("share of events that lost a request", lambda mine: mine["lost"] > 0, "share")
_FULL = Measure("until all workers served again", lambda mine: mine["took_s"], "s")
_BLOCKED = Measure("blocked for", lambda mine: mine["took_s"], "s")
_NEXT = Measure("until the next good answer", lambda mine: mine["next_s"], "s")
_LATENCY = Measure("latency meanwhile, in loop times", lambda mine: mine["loops"])
_WAITED = Measure("share of the requests due meanwhile that had to wait", _waited, "share")

MEASURES = {
    KILL: (_LOST, _LOSING, _FULL, _NEXT, _LATENCY),
    RECYCLE: (_LOST, _LOSING, _FULL, _NEXT, _LATENCY),
    BLOCK: (_WAITED, _LOST, _BLOCKED, _LATENCY),
    SCALE: (_LOST, _LOSING, _FULL, _LATENCY),
}
"""What is stated of each kind of failure."""


def loads(trials: pd.DataFrame) -> pd.DataFrame:
    """Say what each server was offered: the plan, and the utilisation at the trial's own loop time."""
    return pd.DataFrame(
        {
            "dispatch": trials["dispatch"],
            "connections": trials["keepalive"].map({False: "new", True: "kept"}),
            "block": trials["block"],
            "offered rate": trials["rate"].map(units.in_requests),
            "planned load": trials["load"].map(percent),
            "own utilisation of the workers": trials["utilisation"].map(percent),
        }
    )


def servers(events: pd.DataFrame, kind: str) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """Yield each server that met such failures: its dispatch, its connections, the failures, and its calm."""
    each = events.groupby(["dispatch", "keepalive"], sort=False) if len(events) else ()
    for (dispatch, keepalive), mine in each:
        if len(met := mine[mine["kind"] == kind]):
            yield str(dispatch), "kept" if keepalive else "new", met, mine[mine["kind"] == CALM]


def table(events: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Say what a kind of failure cost: a column for each server, a row for each measure."""
    columns = {}
    for dispatch, connections, mine, calm in servers(events, kind):
        rows = {
            "events": f"{len(mine)}",
            "requests of these, lost, refused": " / ".join(
                f"{mine[name].sum():,}" for name in ("met", "lost", "refused")
            ),
            **{measure.quantity: measure.written(mine) for measure in MEASURES.get(kind, ())},
            "latency before the first, in loop times": _LATENCY.written(calm),
        }
        if kind == BLOCK:
            rows["share expected to wait"] = expected(mine)
        if kind == CRASH:
            rows["how it ended"] = "; ".join(dict.fromkeys(mine["detail"]))
        columns[f"{dispatch}, {connections} connections"] = rows
    if not columns:
        return pd.DataFrame({"": ["not measured in this run"]})
    return pd.DataFrame(columns).rename_axis("").reset_index()


def expected(mine: pd.DataFrame) -> str:
    """Say which share should wait for a blocked worker, with what chance does to the share of one block.

    A hash sends it one connection in as many as there are workers. By round robin it holds one at most that
    it cannot acknowledge. A worker that accepts or is chosen when free gets none. Where kept connections go
    depends on which are free.
    """
    dispatch, due, workers = mine["dispatch"].iloc[0], mine["due"].median(), int(mine["workers"].iloc[0])
    if mine["keepalive"].iloc[0] or not due:
        return "–"
    if dispatch == "round-robin":
        return percent(1 / due)
    if dispatch != "reuseport":
        return percent(0)
    from scipy.special import bdtrik  # takes a moment to import

    low, high = (math.ceil(bdtrik(tail, int(due), 1 / workers)) for tail in (0.025, 0.975))
    return f"{percent(1 / workers)} (chance alone: {percent(low / due)} to {percent(high / due)} of a block)"


def estimates(events: pd.DataFrame) -> list[Stated]:
    """State every measure of every kind of failure and server."""
    return [
        stated(
            EXPERIMENT, f"{kind}: {measure.quantity}", found, "s" if measure.unit == "s" else "",
            sources=measure.known(mine)["trial_id"], dispatch=dispatch, connections=connections,
        )
        for kind, measures in MEASURES.items()
        for dispatch, connections, mine, _ in servers(events, kind)
        for measure in measures
        if (found := measure.found(mine)) is not None
    ]  # fmt: skip


def answer(events: pd.DataFrame) -> str:
    """Say what failures cost with the first dispatch and new connections, each from all of its events."""
    told = []
    for kind, tell in _TOLD.items():
        for dispatch, connections, mine, _ in servers(events, kind):
            if connections == "new":
                told.append(tell(mine, {"dispatch": dispatch, "connections": connections}))
                break
    return f"**Answer.** {' '.join(told) or 'No failure was measured.'}"


def _in_all(found: Estimate) -> tuple[int, str]:
    """Return how many a mean of counts is in all, and in words how many at most of one event."""
    total = round(found.value * found.trials)
    return total, f", at most {found.high:.0f} in one" if total and found.trials > 1 else ""


def _lost(kind: str, mine: pd.DataFrame, of: Mapping[str, Any]) -> str:
    """Say how many requests all failures of a kind lost, with a link to the estimate."""
    if (found := _LOST.found(mine)) is None:
        return "no request met it"
    total, at_most = _in_all(found)
    lost = linked(counted(total, "request"), f"{kind}: {_LOST.quantity}", **of)
    return f"{counted(len(mine), _TITLES[kind][0])} lost {lost} of {mine['met'].sum():,}{at_most}"


def _leading(measure: Measure, kind: str, mine: pd.DataFrame, of: Mapping[str, Any]) -> str:
    """Write a measure, with a link from its number to its estimate, if it has one."""
    if measure.found(mine) is None:
        return measure.written(mine)
    value, bracket, rest = measure.written(mine).partition(" (")
    return linked(value, f"{kind}: {measure.quantity}", **of) + bracket + rest


_TOLD: dict[str, Callable[[pd.DataFrame, Mapping[str, Any]], str]] = {
    KILL: lambda mine, of: (
        f"{_lost(KILL, mine, of)}; time until all workers served again: {_leading(_FULL, KILL, mine, of)}."
    ),
    RECYCLE: lambda mine, of: f"{_lost(RECYCLE, mine, of)}.",
    BLOCK: lambda mine, of: (
        f"Of the requests due while a worker was blocked, this share had to wait for it: "
        f"{_leading(_WAITED, BLOCK, mine, of)}."
    ),
}


def verdicts(events: pd.DataFrame) -> list[Verdict]:
    """Judge claims 5, 6 and 7, each for every dispatch that met its failure, whatever the connections."""
    found = []
    for number, (kind, _) in PARTS.items():
        mine = events[(events["kind"] == kind) & (events["due"] > 0)] if len(events) else events
        each = mine.groupby("dispatch", sort=False) if len(mine) else ()
        found += [_judged(number, str(dispatch), rows) for dispatch, rows in each] or [Verdict(number)]
    return found


_SPOILS = {"interrupted", "stalled", "generator_cpu", "generators_cpu", "client_errors", "earlier_version"}
"""Flags of a load that was not the planned one: no verdict rests on such a trial."""

_DISTURBS = _SPOILS | {"steal", "others_cpu", "stall"}
"""Flags that may be why a request was lost or late, and not why one was answered in time."""


def _judged(number: int, dispatch: str, mine: pd.DataFrame) -> Verdict:
    def judge(rows: pd.DataFrame) -> Verdict:
        parts = [_held(part, rows) for part in PARTS[number][1]] if len(rows) else []
        word = Word.of(*(holds for _, holds in parts)) if parts else Word.UNTOLD
        return Verdict(number, "; ".join(words for words, _ in parts), word, about=dispatch)

    against = _SPOILS if judge(mine).word is Word.HOLDS else _DISTURBS
    codes = mine["flags"].map(lambda flags: {flag.code for flag in flags})
    verdict = weighed(mine.assign(valid=[not found & against for found in codes]), judge)
    trials = mine.assign(flagged=codes.map(bool)).groupby("trial_id")["flagged"].first()
    return replace(verdict, trials=len(trials), flagged=int(trials.sum()))


def _held(part: Part, mine: pd.DataFrame) -> tuple[str, bool | None]:
    """Compare the share of events of which a part is true with the bar; None if the interval holds that."""
    true = int(part.holds(mine).sum())
    found = proportion(true, len(mine))
    holds = True if found.low >= ENOUGH else False if found.high < ENOUGH else None
    low, high, bar = map(percent, (found.low, found.high, ENOUGH))
    return f"{part.words}: {true} of {len(mine)} ({low} to {high}; bar {bar})", holds


_MARGIN_S = 0.1
_TITLES: dict[str, tuple[str, str, str]] = {
    KILL: ("kill", "kill -9", "the killed worker, then its successor"),
    RECYCLE: ("recycle", "a worker is asked to leave", "the leaving worker, then its successor"),
    BLOCK: ("blocked worker", "a long request arrives", "the blocked worker"),
    SCALE: ("change of number", "one worker more, then less", "the new worker"),
}
"""Of each kind that is drawn: the noun, what happens at 0, and which worker has a lane of its own."""


def figure(events: pd.DataFrame, requests: pd.DataFrame, kind: str) -> Figure | None:
    """Lay the failures of the first dispatch over each other, new connections; None if there are none.

    A heat map with two lanes: one for the worker that failed and its successor, one for the others.
    """
    found = next((each for each in servers(events, kind) if each[1] == "new"), None)
    if found is None:
        return None
    dispatch, _, mine, calm = found
    noun, happens, its = _TITLES[kind]
    near = around(requests, events, mine, _MARGIN_S)
    answered, lost = near[near["outcome"] == "ok"], near[near["outcome"] != "ok"]
    owns = answered["by_its_worker"] | answered["by_ended"]
    full_s, before_s = mine["took_s"].median(), float(calm["latency_s"].median())
    grid: dict[str, Any] = {"rows": 2, "sharex": True, "sharey": True}
    with canvas(f"{_title(kind, noun, mine)} ({dispatch})", height=4.0, **grid) as (figure, panels):
        draw_lanes(
            panels, [(its, answered[owns]), ("the other workers", answered[~owns])], x="since_s", log=True
        )
        if before_s > 0:
            lowest, highest = panels[0].get_ylim()  # after a slow event, all answers may be far above
            panels[0].set_ylim(min(lowest, before_s / 2), max(highest, before_s * 2))
        for axes in panels:
            if full_s > 0:
                axes.axvspan(0, full_s, color=PALE, alpha=0.25, linewidth=0, zorder=0)
            if before_s > 0:
                reference_line(axes, y=before_s, text="" if axes is panels[0] else "before the first")
            reference_line(axes, x=0, text="")
            axes.set_ylabel("latency")
        panels[0].annotate(
            happens, (0, 0), xycoords=("data", "axes fraction"), xytext=(3, 3), textcoords="offset points",
            fontsize=SMALL,
        )  # fmt: skip
        _losses(panels[0], lost)
        panels[-1].set_xlabel("time at which the request was due, from the event, s")
        panels[-1].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return figure


def _title(kind: str, noun: str, mine: pd.DataFrame) -> str:
    if kind == BLOCK:
        return f"{counted(len(mine), noun)}: {percent(_waited(mine).median())} of requests had to wait"
    again_s = mine["took_s"].median()
    again = f"all workers again after {seconds(again_s)}" if again_s > 0 else "not all workers again"
    return f"{counted(len(mine), noun)} lost {counted(mine['lost'].sum(), 'request')}; {again}"


def _losses(axes: Axes, lost: pd.DataFrame) -> None:
    """Cross the requests that were lost, at the foot of the lane of the worker that failed."""
    if len(lost):
        axes.plot(
            lost["since_s"], [0.2] * len(lost), "X", color=BAD, markersize=8, markeredgecolor=INK,
            markeredgewidth=0.5, transform=axes.get_xaxis_transform(), zorder=5, label="lost",
        )  # fmt: skip
        axes.annotate(f"lost: {len(lost)}", (float(lost["since_s"].max()), 0.2), xytext=(8, 0), va="center",
                      xycoords=axes.get_xaxis_transform(), textcoords="offset points", fontsize=SMALL,
                      fontweight="bold", color=BAD, bbox=HALO)  # fmt: skip
