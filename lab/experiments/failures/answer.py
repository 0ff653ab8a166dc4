"""What failures cost, in words: a table for each failure, over all blocks and servers, and the answer."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from scipy import stats

from lab.experiments.claims import Verdict, weighed
from lab.experiments.failures.facts import Scene, facts
from lab.experiments.failures.trials import BLOCK, CRASH, KILL, RECYCLE, SCALE
from lab.units import counted, percent, seconds

_NAME = {"new": "{}", "kept": "{} on kept connections"}
"""How sentences call a dispatch and the connections that it met."""


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
            "scale(2) took": over_blocks(of["grow_s"]),
            "scale(1) took": over_blocks(of["shrink_s"]),
            "latency at last with one": over_blocks(of["one_s"]),
            "with two": over_blocks(of["two_s"]),
            "with one again": over_blocks(of["one_again_s"]),
        },
    )


def scale_reading(scenes: list[Scene]) -> str:
    """Say what the load was, for one worker and for two."""
    load = facts(scenes, SCALE)["load"].median()
    return f"The load was {percent(load)} of what one worker could do, and {percent(load / 2)} of two."


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


def _table(found: pd.DataFrame, words: Callable[[pd.DataFrame], dict[str, object]]) -> pd.DataFrame:
    """Make a row for each server, over its blocks."""
    return pd.DataFrame(
        {
            "dispatch": mine["dispatch"].iloc[0],
            "connections": mine["connections"].iloc[0],
            "lost": _part(mine["lost"], mine["requests"]),
            **words(mine),
        }
        for _, mine in by_server(found)
    )


def by_server(found: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the trials of each server, in their order, by its name in sentences."""
    if found.empty:
        return []
    servers = found.groupby(["dispatch", "connections"], sort=False)
    return [
        (_NAME[str(mine["connections"].iloc[0])].format(mine["dispatch"].iloc[0]), mine)
        for _, mine in servers
    ]


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


def blocks_said(scenes: list[Scene], text: str) -> str:
    """Add to a table's caption over how many blocks it is."""
    blocks = len({scene.block for scene in scenes})
    if blocks <= 1:
        return text
    return f"{text}; counts over {blocks} blocks, times as their median (lowest to highest)"


def ending(scenes: list[Scene]) -> str:
    """Say with which reason the crash loop was given up, and what became of the requests after it."""
    crashed = [scene for scene in scenes if scene.scenario == CRASH]
    if not crashed:
        return "No crash loop was measured."
    after = pd.concat(scene.requests[scene.requests["due_s"] > scene.ended_s] for scene in crashed)
    outcomes = ", ".join(
        f"{count} {name}" for name, count in after["outcome"].value_counts().items() if count
    )
    crash = facts(scenes, CRASH)
    answered = _part(crash["answered"], crash["due"])
    return (
        f"Until it was given up: {over_blocks(crash['held_s'])}, in which {answered} requests were answered. "
        f"The last word: “{crashed[0].said['event'].iloc[-1]}”. "
        f"Requests due after it: {outcomes or 'none'}."
    )


def answer(scenes: list[Scene]) -> str:
    """Say what each failure that was measured cost."""
    said = []
    if killed := by_server(facts(scenes, KILL)):
        name, first = killed[0]
        back = f"until its place is taken: **{over_blocks(first['full_again_s'])}** with {name}"
        said.append(f"A worker is killed; {back}; lost: {_lost(killed)}.")
    if recycled := by_server(facts(scenes, RECYCLE)):
        said.append(f"All workers are replaced; lost: {_lost(recycled)}.")
    if scaled := by_server(facts(scenes, SCALE)):
        said.append(f"A second worker comes and goes; lost: {_lost(scaled)}.")
    if blocked := by_server(facts(scenes, BLOCK)):
        waited = [f"**{_part(mine['waited'], mine['due'])}** with {name}" for name, mine in blocked]
        said.append(f"One worker is blocked; requests due meanwhile that wait for it: {'; '.join(waited)}.")
    if len(crashed := facts(scenes, CRASH)):
        said.append(f"A worker crashes again and again; until given up: {over_blocks(crashed['held_s'])}.")
    return "\n".join(["**Answer.** What each failure cost under load:", "", *(f"- {line}" for line in said)])


def _lost(servers: list[tuple[str, pd.DataFrame]]) -> str:
    """Say who lost nothing, and then who lost how many."""
    nothing = [name for name, mine in servers if not mine["lost"].sum()]
    lossy = [
        f"**{_part(mine['lost'], mine['requests'])}** with {name}"
        for name, mine in servers
        if mine["lost"].sum()
    ]
    return "; ".join([*([f"**nothing** with {', '.join(nothing)}"] if nothing else []), *lossy])


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

Judged = tuple[str, bool | None]


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
        evidence, holds = judge(mine) if len(mine) else ("", None)
        return replace(unknown, evidence=evidence, holds=holds)

    if unknown.number in _HOLDS_IN_SPITE and judged(found).holds:
        found = found.assign(valid=found["in_spite"])
    return replace(weighed(found, judged), flagged=int(found["flagged"].sum()))


def _goes_on(mine: pd.DataFrame) -> Judged:
    least = least_answered(int(mine["workers"].iloc[0]))
    share, holds = _held_to(least, mine["answered"].sum(), mine["due"].sum())
    return f"{share} due while one was blocked were answered meanwhile", holds


def _comes_back(mine: pd.DataFrame) -> Judged:
    share, holds = _held_to(1 - MOST_LOST, (mine["met"] - mine["met_lost"]).sum(), mine["met"].sum())
    evidence = f"{share} due after the kill were answered; replaced: {over_blocks(mine['full_again_s'])}"
    missing = mine.loc[mine["full_again_s"].isna(), "watched_s"]
    if len(missing) and holds is not False:
        holds = False if missing.max() >= PATIENCE_S else None
    return evidence, holds


def _unnoticed(mine: pd.DataFrame) -> Judged:
    share, holds = _held_to(1 - MOST_LOST, (mine["met"] - mine["met_lost"]).sum(), mine["met"].sum())
    evidence = f"{share} open meanwhile were answered; at least {counted(mine['fewest'].min(), 'worker')}"
    if mine["took_s"].isna().any():
        return f"{evidence}; not every worker could be replaced", False
    return evidence, holds


def least_answered(workers: int) -> float:
    """Return the share that is half-way between all but one worker's, and all but two workers'."""
    return 1 - 1.5 / workers


def _held_to(least: float, answered: float, of: float) -> Judged:
    """Write a share with its bounds, and say whether it is `least` or more: None if they do not tell."""
    if not of:
        return "none of 0", None
    low, high = stats.binomtest(int(answered), int(of)).proportion_ci(_INTERVAL, method="exact")
    holds = True if low >= least else False if high < least else None
    return f"{answered:,.0f} of {of:,.0f} ({percent(low)} to {percent(high)})", holds


def rules(workers: int) -> str:
    """Say when a claim holds here."""
    nearly_all = percent(1 - MOST_LOST)
    return (
        f"- Claim 5 holds where **{percent(least_answered(workers))}** or more of what was due was answered "
        f"meanwhile. With {counted(workers, 'worker')}, this is midway between the part of all "
        "but the blocked one, and what would be left if one more were blocked.\n"
        f"- Claim 6 holds where the worker was replaced, and **{nearly_all}** or more of what was due after "
        "the kill was answered.\n"
        f"- Claim 7 holds where every worker was replaced, and **{nearly_all}** or more of what was open "
        "meanwhile was answered.\n\n"
        "In brackets stand the shares that could well have given these counts (Clopper-Pearson, each bound "
        "with 95 % confidence). Where the bar lies between them, the data cannot tell. Requests are taken as "
        "independent; losses that come in bursts are not, and need more blocks. A flag because the generator "
        "fell behind, or the machine changed its speed, speaks against times, not against these counts. "
        "Where other processes or the hypervisor took CPU time, claims 6 and 7 hold all the more if they "
        "hold in spite of it; if they do not, it may be why, and the data cannot tell."
    )
