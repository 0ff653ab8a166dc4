"""What failures cost, in words: a table for each failure, over all blocks and servers, and the answer."""

from collections.abc import Callable

import pandas as pd

from lab.experiments.failure_facts import facts
from lab.experiments.failure_scene import Scene
from lab.experiments.failures import BLOCK, CRASH, KILL, RECYCLE, SCALE
from lab.formats import counted, percent, seconds

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
