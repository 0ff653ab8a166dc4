"""A timeline for each failure: one of its trials, with a title that says what became of the requests."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lab import figures
from lab.experiments import failure_facts as facts
from lab.experiments.failure_scene import Scene
from lab.experiments.failures import BLOCK, CRASH, KILL, RECYCLE, SCALE
from lab.figures import Span
from lab.formats import counted, seconds

_TYPICAL_BY = {
    KILL: ("full_again_s", "time until full strength"),
    RECYCLE: ("took_s", "time until all were replaced"),
    SCALE: ("grow_s", "time until the second worker accepts"),
    BLOCK: ("answered", "number answered meanwhile"),
    CRASH: ("held_s", "time until it is given up"),
}
"""What tells which block is drawn, and its name."""


def figure(scenes: list[Scene], scenario: str) -> Figure | None:
    """Draw the typical trial of a scenario, if there is one."""
    scene = typical(scenes, scenario)
    if scene is None:
        return None
    said, spans = _TOLD[scenario](scene)
    lost = f"{scene.lost} of {counted(len(scene.requests), 'request')}" if scene.lost else "nothing"
    kind, kinds = _kinds(scene)
    requests = scene.requests.assign(kind=kind)
    return figures.timeline(requests, scene.events, spans, kinds, f"{said}; {lost} lost")


def typical(scenes: list[Scene], scenario: str) -> Scene | None:
    """Return the trial with the median cost of those that figures are about, if there is one."""
    mine = _alike(scenes, scenario)
    if not mine:
        return None
    by, _ = _TYPICAL_BY[scenario]
    order = facts.facts(mine, scenario)[by].to_numpy().argsort()  # nan, which never came to pass, is last
    return mine[int(order[(len(mine) - 1) // 2])]


def _alike(scenes: list[Scene], scenario: str) -> list[Scene]:
    """Return the trials with the first dispatch and new connections, one of each block."""
    new = [scene for scene in scenes if scene.scenario == scenario and not scene.keepalive]
    return [scene for scene in new if scene.dispatch == new[0].dispatch]


def caption(scenes: list[Scene], scenario: str, text: str) -> str:
    """Add to what a figure shows which of the trials it is, and what was lost in all like it."""
    scene, mine = typical(scenes, scenario), _alike(scenes, scenario)
    if scene is None:
        return text
    shown = f"{text} Dispatch: {scene.dispatch}, a connection per request"
    if len(mine) == 1:
        return f"{shown}."
    median = "median" if len(mine) % 2 else "lower median"
    lost, requests = sum(other.lost for other in mine), sum(len(other.requests) for other in mine)
    return (
        f"{shown}; block {scene.block} of {len(mine)}, chosen by the {median} {_TYPICAL_BY[scenario][1]}. "
        f"Lost in all {len(mine)} blocks: {lost:,} of {requests:,}."
    )


def _kinds(scene: Scene) -> tuple["pd.Series[int]", tuple[str, str]]:
    """Return which of two kinds of workers each request was for, and their names."""
    if scene.scenario == BLOCK:
        return facts.blocked(scene).astype(int), ("another worker", "the blocked worker")
    came_later = ~scene.requests["worker"].isin(scene.answered_by(0, scene.began_s))
    return came_later.astype(int), ("a worker from the start", "one that came later")


Told = tuple[str, list[Span]]


def _kill(scene: Scene) -> Told:
    took_s = facts.kill(scene)["full_again_s"]
    if np.isnan(took_s):
        return "Not at full strength again", [Span(scene.began_s, scene.duration_s, "kill -9 of a worker")]
    text = f"kill -9: a worker is missing for {seconds(took_s)}"
    return f"Full strength {seconds(took_s)} after kill -9", [
        Span(scene.began_s, scene.began_s + took_s, text)
    ]


def _recycle(scene: Scene) -> Told:
    took_s = facts.recycle(scene)["took_s"]
    span = Span(scene.began_s, scene.ended_s, "recycle(): one worker after the other")
    if np.isnan(took_s):
        return "Not every worker could be replaced", [span]
    return f"Every worker replaced in {seconds(took_s)}", [span]


def _scale(scene: Scene) -> Told:
    fact = facts.scale(scene)
    up_s, grown_s, down_s, shrunk_s = scene.said["at_s"]
    latencies = ", ".join(seconds(fact[part]) for part in ("one_s", "two_s", "one_again_s"))
    spans = [
        Span(up_s, grown_s, f"scale(2): {seconds(fact['grow_s'])}"),
        Span(down_s, shrunk_s, f"scale(1): {seconds(fact['shrink_s'])}"),
    ]
    return f"With 1, 2, 1 workers latency ends at {latencies}", spans


def _block(scene: Scene) -> Told:
    fact = facts.block(scene)
    blocked = f"One worker blocked for {seconds(fact['blocked_s'])}"
    waited = f"{int(fact['waited'])} of {counted(int(fact['due']), 'request')} had to wait"
    return f"{blocked}: {waited}", [Span(scene.began_s, scene.ended_s, "one worker is blocked")]


def _crash(scene: Scene) -> Told:
    fact = facts.crash(scene)
    text = "each new worker is killed as soon as it accepts"
    if np.isnan(fact["held_s"]):
        return "A crash loop, never given up", [Span(scene.began_s, scene.ended_s, text)]
    over_s = scene.began_s + fact["held_s"]
    spans = [Span(scene.began_s, over_s, text), Span(over_s, max(over_s, scene.duration_s), "given up")]
    return f"A crash loop, given up after {seconds(fact['held_s'])}", spans


_TOLD: dict[str, Callable[[Scene], Told]] = {
    KILL: _kill,
    RECYCLE: _recycle,
    SCALE: _scale,
    BLOCK: _block,
    CRASH: _crash,
}
"""What a title says of a trial, and the stretches of time to shade."""
