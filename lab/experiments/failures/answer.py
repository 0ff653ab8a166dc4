"""What failures cost: a table for each, over all blocks and servers; the answer; and the article's claims."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from scipy import stats

from lab.experiments.claims import Verdict, Word, of_parts, told, weighed
from lab.experiments.failures.facts import Scene, facts
from lab.experiments.failures.trials import BLOCK, CRASH, KILL, RECYCLE, SCALE
from lab.units import counted, percent, seconds


def kill_table(scenes: list[Scene]) -> pd.DataFrame:
    """Say, for each server, what a killed worker cost."""
    return _table(
        facts(scenes, KILL),
        lambda of: {
            "lost of those due after it": _part(of["met_lost"], of["met"]),
            "a new worker accepts after": over_blocks(of["full_again_s"]),
            "it has answered after": over_blocks(of["served_again_s"]),
        },
    )


def recycle_table(scenes: list[Scene]) -> pd.DataFrame:
    """Say, for each server, what replacing all workers cost."""
    return _table(
        facts(scenes, RECYCLE),
        lambda of: {
            "all replaced after": over_blocks(of["took_s"]),
            "fewest workers": int(of["fewest"].min()),
            "slowest answer meanwhile": over_blocks(of["slowest_s"]),
        },
    )


def scale_table(scenes: list[Scene]) -> pd.DataFrame:
    """Say, for each server, what another worker was worth, and what its coming and going cost."""
    return _table(
        facts(scenes, SCALE),
        lambda of: {
            "load of one worker": percent(of["load"].median()),
            "scale(2) took": over_blocks(of["grow_s"]),
            "scale(1) took": over_blocks(of["shrink_s"]),
            "latency at last with one": over_blocks(of["one_s"]),
            "with two": over_blocks(of["two_s"]),
            "with one again": over_blocks(of["one_again_s"]),
        },
    )


def block_table(scenes: list[Scene]) -> pd.DataFrame:
    """Say, for each server, who waited for a blocked worker."""
    return _table(
        facts(scenes, BLOCK),
        lambda of: {
            "blocked for": over_blocks(of["blocked_s"]),
            "answered meanwhile": _part(of["answered"], of["due"]),
            "had to wait for it": _part(of["waited"], of["due"]),
        },
    )


def crash_table(scenes: list[Scene]) -> pd.DataFrame:
    """Say, for each server, how long a crash loop was put up with, and how it ended."""
    last = {scene.dispatch: scene.said["event"].iloc[-1] for scene in scenes if scene.scenario == CRASH}
    return _table(
        facts(scenes, CRASH),
        lambda of: {
            "given up after": over_blocks(of["held_s"]),
            "answered until then": _part(of["answered"], of["due"]),
            "the reason it gave": last[of["dispatch"].iloc[0]],
        },
    )


def _table(found: pd.DataFrame, columns: Callable[[pd.DataFrame], dict[str, object]]) -> pd.DataFrame:
    """Make a row for each server, over its blocks."""
    return pd.DataFrame(
        {
            "dispatch": dispatch,
            "connections": connections,
            "blocks": len(mine),
            "lost": _part(mine["lost"], mine["requests"]),
            **columns(mine),
        }
        for (dispatch, connections), mine in _by_server(found)
    )


def _by_server(found: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """Return the trials of each dispatch and kind of connections, in their order."""
    if found.empty:
        return []
    servers = found.groupby(["dispatch", "connections"], sort=False)
    return [((str(dispatch), str(connections)), mine) for (dispatch, connections), mine in servers]


def over_blocks(values_s: "pd.Series[float]") -> str:
    """Write the median of what took so long in each block, and its range; nan is what never came to pass."""
    known = values_s.dropna()
    if known.empty:
        return "not within the trial"
    text = seconds(known.median())
    if len(known) > 1:
        text += f" ({seconds(known.min())} to {seconds(known.max())})"
    if never := len(values_s) - len(known):
        text += f"; not within {never} of {counted(len(values_s), 'trial')}"
    return text


def answer(scenes: list[Scene]) -> str:
    """Say what the failures cost that were measured: of requests, and of time."""
    told = []
    if len(killed := facts(scenes, KILL)):
        told.append(
            f"When a worker is killed its place is taken after **{over_blocks(killed['full_again_s'])}**, "
            f"and {_part(killed['lost'], killed['requests'])} requests are lost."
        )
    if len(recycled := facts(scenes, RECYCLE)):
        told.append(
            f"When all workers are replaced **{_part(recycled['lost'], recycled['requests'])}** are lost."
        )
    if blocked := _by_server(facts(scenes, BLOCK)):
        waited = (f"{_part(mine['waited'], mine['due'])} with {name}" for (name, _), mine in blocked)
        told.append(f"When one is blocked these wait for it, of all that were due: {', '.join(waited)}.")
    return f"**Answer.** {' '.join(told) or 'No failure was measured.'}"


def _part(part: "pd.Series[int]", whole: "pd.Series[int]") -> str:
    return f"{part.sum():,}\u00a0of\u00a0{whole.sum():,}"  # on one line in narrow columns


MOST_LOST = 0.02
"""Up to this share of requests lost, a service goes on, and its downtime is minimal."""

PATIENCE_S = 5.0
"""Who is not replaced within this time is not replaced; in a shorter trial, that is not known."""

_INTERVAL = 0.9
"""The level at which each bound by itself holds with 95 % confidence."""

_HOLDS_IN_SPITE = (6, 7)
"""The claims that hardly anything was lost: contention can only have cost more."""

_ONLY_THAT_ONE = "A request that blocks its worker blocks only that one; others go on"
_REPLACED = "A worker that dies is replaced, and the service goes on"
_RECYCLED = "Workers can be recycled one at a time with minimal or no downtime"

Judged = tuple[str, Word]


def verdicts(scenes: list[Scene]) -> list[Verdict]:
    """Judge claims 5, 6 and 7, each for every dispatch that was measured, whatever its connections."""
    return [
        *_each(facts(scenes, BLOCK), _goes_on, 5, _ONLY_THAT_ONE),
        *_each(facts(scenes, KILL), _comes_back, 6, _REPLACED),
        *_each(facts(scenes, RECYCLE), _unnoticed, 7, _RECYCLED),
    ]


def _each(
    found: pd.DataFrame, judge: Callable[[pd.DataFrame], Judged], number: int, claim: str
) -> list[Verdict]:
    if found.empty:
        return [Verdict(number, claim)]

    servers = found.groupby("dispatch", sort=False)
    return [_weighed(mine, judge, Verdict(number, f"{claim} ({dispatch})")) for dispatch, mine in servers]


def _weighed(found: pd.DataFrame, judge: Callable[[pd.DataFrame], Judged], unknown: Verdict) -> Verdict:
    """Judge a claim so that it does not rest on trials whose counts are in doubt.

    That so little was lost in spite of contention holds all the more without it.
    """

    def judged(mine: pd.DataFrame) -> Verdict:
        evidence, word = judge(mine) if len(mine) else ("", Word.UNTOLD)
        return replace(unknown, evidence=evidence, word=word)

    if unknown.number in _HOLDS_IN_SPITE and judged(found).word is Word.HOLDS:
        found = found.assign(valid=found["in_spite"])
    return replace(weighed(found, judged), flagged=int(found["flagged"].sum()))


def _goes_on(mine: pd.DataFrame) -> Judged:
    least = least_answered(int(mine["workers"].iloc[0]))
    share, holds = _held_to(least, mine["answered"].sum(), mine["due"].sum())
    return f"answered of those due while one was blocked: {share}", told(holds)


def _comes_back(mine: pd.DataFrame) -> Judged:
    share, goes_on = _held_to(1 - MOST_LOST, (mine["met"] - mine["met_lost"]).sum(), mine["met"].sum())
    missing = mine.loc[mine["full_again_s"].isna(), "watched_s"]
    replaced = True if missing.empty else False if missing.max() >= PATIENCE_S else None
    evidence = f"replaced: {over_blocks(mine['full_again_s'])}; answered of those due after it: {share}"
    return evidence, of_parts(replaced, goes_on)


def _unnoticed(mine: pd.DataFrame) -> Judged:
    share, holds = _held_to(1 - MOST_LOST, (mine["met"] - mine["met_lost"]).sum(), mine["met"].sum())
    evidence = f"all replaced: {over_blocks(mine['took_s'])}; answered of those open meanwhile: {share}"
    return evidence, told(holds if mine["took_s"].notna().all() else False)


def least_answered(workers: int) -> float:
    """Return the share that is half-way between all but one worker's, and all but two workers'."""
    return 1 - 1.5 / workers


def _held_to(least: float, answered: float, of: float) -> tuple[str, bool | None]:
    """Write a share with its bounds and the bar, and say whether it is that or more; None: it is not known.

    The bounds are the shares that could well have given these counts (Clopper & Pearson, 1934).
    """
    if not of:
        return "none of 0", None
    low, high = stats.binomtest(int(answered), int(of)).proportion_ci(_INTERVAL, method="exact")
    holds = True if low >= least else False if high < least else None
    return f"{answered:,.0f} of {of:,.0f} ({percent(low)} to {percent(high)}; bar {percent(least)})", holds
