"""What failures cost: a table for each, over all blocks and servers; the answer; and the article's claims."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.failures.facts import Scene, facts
from lab.experiments.failures.trials import BLOCK, CRASH, KILL, RECYCLE, SCALE
from lab.units import counted, percent, seconds

_COSTS: dict[str, Callable[[pd.DataFrame], dict[str, Any]]] = {
    KILL: lambda of: {
        "lost of those open or due after it": _part(of["met_lost"], of["met"]),
        "a new worker accepts after": over_blocks(of["full_again_s"]),
        "it has answered after": over_blocks(of["served_again_s"]),
    },
    RECYCLE: lambda of: {
        "all replaced after": over_blocks(of["took_s"]),
        "fewest workers": int(of["fewest"].min()),
        "slowest answer meanwhile": over_blocks(of["slowest_s"]),
    },
    SCALE: lambda of: {
        "load": percent(of["load"].median()),
        "scale(2)": over_blocks(of["grow_s"]),
        "scale(1)": over_blocks(of["shrink_s"]),
        "latency with one": over_blocks(of["one_s"]),
        "with two": over_blocks(of["two_s"]),
        "with one again": over_blocks(of["one_again_s"]),
    },
    BLOCK: lambda of: {
        "blocked for": over_blocks(of["blocked_s"]),
        "answered meanwhile": _part(of["answered"], of["due"]),
        "had to wait for it": _part(of["waited"], of["due"]),
    },
    CRASH: lambda of: {
        "given up after": over_blocks(of["held_s"]),
        "answered until then": _part(of["answered"], of["due"]),
        "the reason it gave": "; ".join(dict.fromkeys(of["reason"])),
    },
}
"""The columns with what a scenario cost one server, over its blocks."""


def table(scenes: list[Scene], scenario: str) -> pd.DataFrame:
    """Say what a scenario cost, a row for each dispatch and kind of connections, over its blocks."""
    found = facts(scenes, scenario)
    servers = found.groupby(["dispatch", "keepalive"], sort=False) if len(found) else ()
    return pd.DataFrame(
        {
            "dispatch": dispatch,
            "connections": "kept" if keepalive else "new",
            "blocks": len(mine),
            "lost": _part(mine["lost"], mine["requests"]),
            **_COSTS[scenario](mine),
        }
        for (dispatch, keepalive), mine in servers
    )


def over_blocks(values_s: "pd.Series[float]") -> str:
    """Write the median of a time over blocks, and its range; nan is what never happened."""
    known = values_s.dropna()
    if known.empty:
        return "not within the trial"
    text = seconds(known.median())
    if len(known) > 1:
        text += f" ({seconds(known.min())} to {seconds(known.max())})"
    if never := len(values_s) - len(known):
        text += f"; not within {never} of {counted(len(values_s), 'trial')}"
    return text


def _part(part: "pd.Series[int]", whole: "pd.Series[int]") -> str:
    return f"{part.sum():,}\u00a0of\u00a0{whole.sum():,}"  # on one line in narrow columns


def answer(scenes: list[Scene]) -> str:
    """Say what the measured failures cost, in requests and in time."""
    killed, recycled, blocked = (facts(scenes, scenario) for scenario in (KILL, RECYCLE, BLOCK))
    told = []
    if len(killed):
        told.append(
            f"A killed worker is **{_replaced(killed['full_again_s'])}**, and "
            f"{_part(killed['lost'], killed['requests'])} requests are lost."
        )
    if len(recycled):
        told.append(
            f"Replacing all workers loses **{_part(recycled['lost'], recycled['requests'])}** requests."
        )
    if len(blocked):
        servers = blocked.groupby("dispatch", sort=False)
        waited = (f"{_part(mine['waited'], mine['due'])} with {dispatch}" for dispatch, mine in servers)
        told.append(f"While one worker is blocked, this many requests wait for it: {', '.join(waited)}.")
    return f"**Answer.** {' '.join(told) or 'No failure was measured.'}"


def _replaced(after_s: "pd.Series[float]") -> str:
    if after_s.isna().all():
        return "not replaced within the trial"
    return f"replaced after {over_blocks(after_s)}"


MOST_LOST = 0.02
"""If at most this share of requests is lost, a service goes on, and its downtime is minimal."""

PATIENCE_S = 5.0
"""A worker not replaced within this time counts as never replaced; a shorter trial cannot tell."""

_INTERVAL = 0.9
"""The level at which each bound alone holds with 95 % confidence."""

_HOLDS_IN_SPITE = (6, 7)
"""The claims that hardly anything was lost: contention can only have increased the loss."""


def verdicts(scenes: list[Scene]) -> list[Verdict]:
    """Judge claims 5, 6 and 7, each for every measured dispatch, whatever its connections."""
    judges = ((5, BLOCK, _goes_on), (6, KILL, _comes_back), (7, RECYCLE, _unnoticed))
    return [
        verdict
        for number, scenario, judge in judges
        for verdict in _each(facts(scenes, scenario), judge, number)
    ]


Judged = tuple[str, Word]


def _each(found: pd.DataFrame, judge: Callable[[pd.DataFrame], Judged], number: int) -> list[Verdict]:
    if found.empty:
        return [Verdict(number)]
    return [
        _weighed(mine, judge, Verdict(number, about=str(dispatch)))
        for dispatch, mine in found.groupby("dispatch", sort=False)
    ]


def _weighed(found: pd.DataFrame, judge: Callable[[pd.DataFrame], Judged], unknown: Verdict) -> Verdict:
    """Judge a claim without relying on trials whose counts are in doubt.

    If little was lost in spite of contention, the claim holds all the more without it.
    """

    def judged(mine: pd.DataFrame) -> Verdict:
        evidence, word = judge(mine) if len(mine) else ("", Word.UNTOLD)
        return replace(unknown, evidence=evidence, word=word)

    if unknown.number in _HOLDS_IN_SPITE and judged(found).word is Word.HOLDS:
        found = found.assign(valid=found["in_spite"])
    return replace(weighed(found, judged), flagged=int(found["flagged"].sum()))


def _goes_on(mine: pd.DataFrame) -> Judged:
    """Compare what was answered while a worker was blocked with shares of what one worker does."""
    only_that_one, others_go_on = bars(int(mine["workers"].iloc[0]))
    answered = Share(mine["answered"].sum(), mine["due"].sum())
    evidence = f"answered of those due while one was blocked: {answered.beside(only_that_one, others_go_on)}"
    return evidence, Word.of(answered.reaches(only_that_one), answered.reaches(others_go_on))


def bars(workers: int) -> tuple[float, float]:
    """Return the shares to answer for claim 5 to hold, and to hold in part, with this many workers.

    Less than half of one worker's part waits, or less than one and a half: its own part is midway.
    """
    return 1 - 0.5 / workers, 1 - 1.5 / workers


def _comes_back(mine: pd.DataFrame) -> Judged:
    answered = Share((mine["met"] - mine["met_lost"]).sum(), mine["met"].sum())
    missing = mine.loc[mine["full_again_s"].isna(), "watched_s"]
    replaced = True if missing.empty else False if missing.max() >= PATIENCE_S else None
    evidence = (
        f"replaced: {over_blocks(mine['full_again_s'])}; "
        f"answered of those open or due after the kill: {answered.beside(1 - MOST_LOST)}"
    )
    return evidence, Word.of(replaced, answered.reaches(1 - MOST_LOST))


def _unnoticed(mine: pd.DataFrame) -> Judged:
    answered = Share((mine["met"] - mine["met_lost"]).sum(), mine["met"].sum())
    evidence = (
        f"all replaced: {over_blocks(mine['took_s'])}; "
        f"answered of those open meanwhile: {answered.beside(1 - MOST_LOST)}"
    )
    replaced = bool(mine["took_s"].notna().all())
    return evidence, Word.of(replaced and answered.reaches(1 - MOST_LOST))


@dataclass(frozen=True)
class Share:
    """A part of a whole, both counted, and the shares that could well have given these counts."""

    part: float
    whole: float

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Return the bounds, each of which holds with 95 % confidence (Clopper & Pearson, 1934)."""
        if not self.whole:
            return 0.0, 1.0
        from scipy import stats  # takes a second to import

        found = stats.binomtest(int(self.part), int(self.whole)).proportion_ci(_INTERVAL, method="exact")
        return float(found.low), float(found.high)

    def reaches(self, bar: float) -> bool | None:
        """Say whether the share is at least the bar; None if the counts cannot tell."""
        low, high = self.interval
        return True if low >= bar else False if high < bar else None

    def beside(self, *bars: float) -> str:
        """Write it with its bounds and the bars to compare it with."""
        low, high = map(percent, self.interval)
        held_against = " and ".join(map(percent, bars))
        return f"{self.part:,.0f} of {self.whole:,.0f} ({low} to {high}; bar {held_against})"
