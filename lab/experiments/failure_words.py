"""What failures cost, in words: titles of figures, tables over all dispatches, verdicts, and the answer."""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from lab import figures
from lab.experiments import failure_facts as facts
from lab.experiments.claims import Verdict
from lab.experiments.failure_facts import Scene
from lab.experiments.failures import BLOCK, CRASH, KILL, RECYCLE, SCALE
from lab.formats import counted, percent, seconds

_OTHERS_PART = 0.8
"""While one worker is blocked, the others go on if so much of their part is answered meanwhile."""


def figure(scenes: list[Scene], scenario: str) -> Figure | None:
    """Draw the first trial of a scenario, if there is one."""
    mine = _of(scenes, scenario)
    if not mine:
        return None
    return figures.timeline(mine[0].requests, mine[0].events, _TITLES[scenario](mine[0]))


def _of(scenes: list[Scene], scenario: str) -> list[Scene]:
    return [scene for scene in scenes if scene.scenario == scenario]


def _kill_title(scene: Scene) -> str:
    fact = facts.kill(scene)
    return f"kill -9: {_lost(scene)}, full strength again after {seconds(fact['full_again_s'])}"


def _recycle_title(scene: Scene) -> str:
    return f"Every worker replaced in {seconds(facts.recycle(scene)['took_s'])}: {_lost(scene)}"


def _scale_title(scene: Scene) -> str:
    fact = facts.scale(scene)
    return (
        f"1, 2, 1 workers: {_lost(scene)}; median latency {seconds(fact['one_s'])}, "
        f"{seconds(fact['two_s'])}, {seconds(fact['one_again_s'])}"
    )


def _block_title(scene: Scene) -> str:
    fact = facts.block(scene)
    return (
        f"One worker blocked for {seconds(fact['blocked_s'])}: "
        f"{int(fact['waited'])} of {counted(int(fact['due']), 'request')} had to wait for it"
    )


def _crash_title(scene: Scene) -> str:
    fact = facts.crash(scene)
    return (
        f"A crash loop is given up after {seconds(fact['held_s'])}; "
        f"until then {percent(fact['answered'])} was answered"
    )


_TITLES: dict[str, Callable[[Scene], str]] = {
    KILL: _kill_title,
    RECYCLE: _recycle_title,
    SCALE: _scale_title,
    BLOCK: _block_title,
    CRASH: _crash_title,
}


def _lost(scene: Scene) -> str:
    return f"{scene.lost} of {counted(len(scene.requests), 'request')} lost"


def kill_table(scenes: list[Scene]) -> pd.DataFrame:
    """Say, for each dispatch, what a killed worker cost."""
    return _table(
        _of(scenes, KILL), facts.kill,
        lambda fact: {
            "new worker accepts after": seconds(fact["full_again_s"]),
            "it has answered after": seconds(fact["served_again_s"]),
            "lost once it accepts": int(fact["lost_after"]),
        },
    )  # fmt: skip


def recycle_table(scenes: list[Scene]) -> pd.DataFrame:
    """Say, for each dispatch, what replacing all workers cost."""
    return _table(
        _of(scenes, RECYCLE), facts.recycle,
        lambda fact: {
            "all replaced after": seconds(fact["took_s"]),
            "fewest workers": int(fact["fewest"]),
            "slowest answer": seconds(fact["slowest_s"]),
        },
    )  # fmt: skip


def block_table(scenes: list[Scene]) -> pd.DataFrame:
    """Say, for each dispatch, who waited for a blocked worker."""
    return _table(
        _of(scenes, BLOCK), facts.block,
        lambda fact: {
            "blocked for": seconds(fact["blocked_s"]),
            "due meanwhile": int(fact["due"]),
            "answered meanwhile": percent(fact["answered"]),
            "had to wait for it": int(fact["waited"]),
        },
    )  # fmt: skip


def _table(
    scenes: list[Scene],
    fact: Callable[[Scene], dict[str, float]],
    words: Callable[[dict[str, float]], dict[str, object]],
) -> pd.DataFrame:
    return pd.DataFrame(
        {"dispatch": scene.dispatch, "requests": len(scene.requests), "lost": scene.lost} | words(fact(scene))
        for scene in scenes
    )


def ending(scenes: list[Scene]) -> str:
    """Say with which reason the crash loop was given up, and what became of the requests after it."""
    said = []
    for scene in _of(scenes, CRASH):
        after = scene.requests[scene.requests["due_s"] > scene.ended_s]
        outcomes = ", ".join(
            f"{count} {name}" for name, count in after["outcome"].value_counts().items() if count
        )
        said.append(
            f"The last word: “{scene.said['event'].iloc[-1]}”. Requests after it: {outcomes or 'none'}."
        )
    return " ".join(said) or "No crash loop was measured."


def verdicts(scenes: list[Scene]) -> list[Verdict]:
    """Judge claims 5, 6 and 7, each for every dispatch that was measured."""
    return [
        *_judged(
            scenes, BLOCK, 5, "A request that blocks its worker blocks only that one; others go on", _on
        ),
        *_judged(scenes, KILL, 6, "A worker that dies is replaced, and the service goes on", _back),
        *_judged(scenes, RECYCLE, 7, "Workers can be recycled one at a time without downtime", _unnoticed),
    ]


def _judged(
    scenes: list[Scene], scenario: str, number: int, claim: str, judge: Callable[[Scene], tuple[str, bool]]
) -> list[Verdict]:
    found = [Verdict(number, f"{claim} ({scene.dispatch})", *judge(scene)) for scene in _of(scenes, scenario)]
    return found or [Verdict(number, claim)]


def _on(scene: Scene) -> tuple[str, bool]:
    fact = facts.block(scene)
    evidence = (
        f"{percent(fact['answered'])} of what was due during {seconds(fact['blocked_s'])} was answered; "
        f"{int(fact['waited'])} of {int(fact['due'])} had to wait"
    )
    return evidence, bool(fact["answered"] >= _OTHERS_PART * (1 - 1 / scene.workers))


def _back(scene: Scene) -> tuple[str, bool]:
    fact = facts.kill(scene)
    evidence = (
        f"{_lost(scene)}; a new worker accepts after {seconds(fact['full_again_s'])}, "
        f"and from then on {int(fact['lost_after'])} are lost"
    )
    return evidence, bool(fact["full_again_s"] >= 0 and fact["lost_after"] == 0)


def _unnoticed(scene: Scene) -> tuple[str, bool]:
    fact = facts.recycle(scene)
    evidence = f"{_lost(scene)}; never fewer than {counted(int(fact['fewest']), 'worker')}"
    return evidence, scene.lost == 0


def answer(scenes: list[Scene]) -> str:
    """Say what failures cost with the first dispatch."""
    said = []
    if mine := _of(scenes, KILL):
        fact = facts.kill(mine[0])
        said.append(
            f"With {mine[0].dispatch}, a worker killed under load costs **{_lost(mine[0])}**; its place is "
            f"taken after **{seconds(fact['full_again_s'])}**."
        )
    if mine := _of(scenes, RECYCLE):
        said.append(f"Replacing every worker: **{_lost(mine[0])}**.")
    if mine := _of(scenes, SCALE):
        said.append(f"Scaling 1, 2, 1: **{_lost(mine[0])}**.")
    if mine := _of(scenes, BLOCK):
        parts = [f"{scene.dispatch} {percent(1 - facts.block(scene)['answered'])}" for scene in mine]
        said.append(
            f"While one worker is blocked, so much of the load has to wait for it: {', '.join(parts)}."
        )
    if mine := _of(scenes, CRASH):
        said.append(f"A crash loop is given up after {seconds(facts.crash(mine[0])['held_s'])}.")
    return f"**Answer.** {' '.join(said)}"
