"""A timeline of each failure: one of its trials, with a title that says what became of the requests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab import units
from lab.experiments.failures import facts
from lab.experiments.failures.facts import Scene
from lab.experiments.failures.trials import BLOCK, CRASH, KILL, RECYCLE, SCALE
from lab.figures.style import DARK_TO_LIGHT, GRID, INK, QUIET, canvas, plain_log_ticks
from lab.units import counted, seconds

_TYPICAL_BY = {KILL: "full_again_s", RECYCLE: "took_s", SCALE: "grow_s", BLOCK: "answered", CRASH: "held_s"}
"""The cost whose median decides which block is drawn."""


def figure(scenes: list[Scene], scenario: str) -> Figure | None:
    """Draw the typical trial of a scenario, or return None if there is none."""
    scene = typical(scenes, scenario)
    if scene is None:
        return None
    said, spans = _TOLD[scenario](scene)
    lost = f"{scene.lost} of {counted(len(scene.requests), 'request')}" if scene.lost else "nothing"
    kind, kinds = _kinds(scene)
    requests = scene.requests.assign(kind=kind)
    return timeline(requests, scene.events, spans, kinds, f"{said}; {lost} lost")


def typical(scenes: list[Scene], scenario: str) -> Scene | None:
    """Return the trial to draw: with the first dispatch and new connections, the one of median cost."""
    new = [scene for scene in scenes if scene.scenario == scenario and not scene.keepalive]
    mine = [scene for scene in new if scene.dispatch == new[0].dispatch]
    if not mine:
        return None
    cost = facts.facts(mine, scenario)[_TYPICAL_BY[scenario]]
    order = cost.to_numpy().argsort()  # nan, which never happened, is last
    return mine[int(order[(len(mine) - 1) // 2])]


def _kinds(scene: Scene) -> tuple["pd.Series[int]", tuple[str, str]]:
    """Return which of two kinds of workers each request went to, and the names of both kinds."""
    if scene.scenario == BLOCK:
        return facts.blocked(scene).astype(int), ("another worker", "the blocked worker")
    came_later = ~scene.requests["worker"].isin(scene.answered_by(0, scene.began_s))
    return came_later.astype(int), ("a worker from the start", "one that came later")


@dataclass(frozen=True)
class Span:
    """A stretch of time, in seconds from the first request, and what happened during it."""

    from_s: float
    to_s: float
    text: str


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
    span = Span(scene.began_s, scene.ended_s, "recycle(): one worker at a time")
    if np.isnan(took_s):
        return "Some workers could not be replaced", [span]
    return f"Every worker replaced in {seconds(took_s)}", [span]


def _scale(scene: Scene) -> Told:
    fact = facts.scale(scene)
    up_s, grown_s, down_s, shrunk_s = scene.actions["at_s"]
    latencies = ", ".join(seconds(fact[part]) for part in ("one_s", "two_s", "one_again_s"))
    spans = [
        Span(up_s, grown_s, f"scale(2): {seconds(fact['grow_s'])}"),
        Span(down_s, shrunk_s, f"scale(1): {seconds(fact['shrink_s'])}"),
    ]
    return f"With 1, 2, 1 workers, latency ends at {latencies}", spans


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
"""What a title says about a trial, and the stretches of time to shade."""

_LOST = DARK_TO_LIGHT[1].color
_LOOKS = (DARK_TO_LIGHT[0], DARK_TO_LIGHT[2])


def timeline(
    requests: pd.DataFrame, events: pd.DataFrame, spans: Sequence[Span], kinds: tuple[str, str], title: str
) -> Figure:
    """Draw a trial: `requests` has due_s, latency_s, outcome and kind; `events` has at_s and workers.

    A mark is an answer; `kind`, 0 or 1, says which of the `kinds` of workers gave it. Crosses along the
    bottom are failed requests, where they were due: how long a failure takes means nothing here.
    """
    with canvas(title, rows=2, size=(8.6, 4.8), sharex=True, height_ratios=(4, 1)) as (figure, (top, bottom)):
        last_s = 1.02 * float(max(requests["due_s"].max(), *(span.to_s for span in spans)))
        _answers(top, requests[requests["outcome"] == "ok"], kinds)
        _losses(top, requests[requests["outcome"] != "ok"])
        _latency_axis(top, requests)
        figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
        _workers(bottom, events, last_s)
        bottom.set_xlabel("time from the first request, s")
        bottom.set_xlim(0, last_s)
        for span in spans:
            _shade(top, bottom, span, last_s)
    return figure


def _answers(axes: Axes, answered: pd.DataFrame, kinds: tuple[str, str]) -> None:
    for number, (look, kind) in enumerate(zip(_LOOKS, kinds, strict=True)):
        mine = answered[answered["kind"] == number]
        axes.plot(mine["due_s"], mine["latency_s"], look.marker, color=look.color, markersize=4.5, alpha=0.8,
                  label=f"answered by {kind}", rasterized=True)  # fmt: skip


def _losses(axes: Axes, lost: pd.DataFrame) -> None:
    if len(lost):
        axes.plot(lost["due_s"], [0.05] * len(lost), "X", color=_LOST, markersize=8, markeredgewidth=0,
                  transform=axes.get_xaxis_transform(), label=f"lost: {len(lost)}", zorder=5)  # fmt: skip


def _latency_axis(axes: Axes, requests: pd.DataFrame) -> None:
    answered = requests[requests["outcome"] == "ok"]
    latency_s = (answered if len(answered) else requests)["latency_s"]
    axes.set_yscale("log")
    axes.set_ylim(latency_s.min() / 2.2, latency_s.max() * 2.5)  # room for losses below and words above
    plain_log_ticks(axes.yaxis, units.seconds)
    axes.set_ylabel("latency")


def _workers(axes: Axes, events: pd.DataFrame, last_s: float) -> None:
    at_s = [*events["at_s"].clip(lower=0), last_s]
    workers = [*events["workers"], events["workers"].iloc[-1]]
    axes.fill_between(at_s, workers, step="post", color=GRID)
    axes.step(at_s, workers, where="post", color=INK, linewidth=1.6)
    axes.set_ylim(0, max(workers) + 0.6)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    axes.set_ylabel("workers")


def _shade(top: Axes, bottom: Axes, span: Span, last_s: float) -> None:
    for axes in (top, bottom):
        axes.axvspan(span.from_s, span.to_s, color=QUIET, alpha=0.16, linewidth=0, zorder=0)
        axes.axvline(span.from_s, color=QUIET, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    at_s, shift, side = (span.to_s, -4, "right") if span.from_s > 0.6 * last_s else (span.from_s, 4, "left")
    top.annotate(
        span.text, (at_s, 1), xycoords=("data", "axes fraction"), textcoords="offset points",
        xytext=(shift, -5), ha=side, va="top", fontsize=9.5, color=INK,
    )  # fmt: skip
