"""What each failure cost, read off the requests and events of its trial."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lab.experiments.failures.trials import BLOCK, CRASH, KILL, RECYCLE, SCALE, SCENARIOS
from lab.flags import Flag
from lab.study.plan import Event

_ABOUT_TIMES = {"send_lag", "loop_ratio", "loop_drift"}
"""Flags that cast doubt on times, not on counts of what was lost."""

_CONTENTION = {"steal", "others_cpu"}
"""Flags that may explain why a request was lost, but not why it was answered."""


@dataclass(frozen=True)
class Scene:
    """A trial of `failures`: its requests, and what was done to its server; times are from its start."""

    scenario: str
    dispatch: str
    keepalive: bool
    block: int
    workers: int
    duration_s: float
    flags: tuple[Flag, ...]
    requests: pd.DataFrame
    events: pd.DataFrame

    @property
    def counts_hold(self) -> bool:
        """Whether no flag casts doubt on its counts of requests."""
        return self._only(_ABOUT_TIMES)

    @property
    def answers_hold(self) -> bool:
        """Whether only contention does: what was answered in spite of it is right."""
        return self._only(_ABOUT_TIMES | _CONTENTION)

    def _only(self, codes: set[str]) -> bool:
        return {flag.code for flag in self.flags} <= codes

    @property
    def actions(self) -> pd.DataFrame:
        """The beginnings and ends of actions, without changes in the number of workers."""
        return self.events[self.events["event"] != Event.WORKERS]

    @property
    def began_s(self) -> float:
        """When the first action began."""
        return float(self.actions["at_s"].iloc[0])

    @property
    def ended_s(self) -> float:
        """When the last action ended."""
        return float(self.actions["at_s"].iloc[-1])

    @cached_property
    def answered(self) -> pd.DataFrame:
        """The requests that were answered well."""
        return self.requests[self.requests["outcome"] == "ok"]

    @property
    def lost(self) -> int:
        """How many requests were not answered well."""
        return len(self.requests) - len(self.answered)

    def answered_by(self, from_s: float, to_s: float) -> set[float]:
        """Return the workers that gave an answer between these times."""
        return set(self.answered.loc[self.answered["end_s"].between(from_s, to_s), "worker"])


def scenes(trials: pd.DataFrame, requests: pd.DataFrame, events: pd.DataFrame) -> list[Scene]:
    """Pair each trial with its requests and events, in the order of scenarios and dispatches."""
    requests_of, events_of = (dict(list(frame.groupby("trial_id"))) for frame in (requests, events))
    found = [
        Scene(
            row["scenario"], row["dispatch"], bool(row["keepalive"]), int(row["block"]), int(row["workers"]),
            row["duration_s"], row["flags"],
            requests_of[row["trial_id"]], events_of[row["trial_id"]],
        )
        for _, row in trials.sort_values(["place", "keepalive", "block"]).iterrows()
    ]  # fmt: skip
    return sorted(found, key=lambda scene: SCENARIOS.index(scene.scenario))


_LAST = 10
"""How many answers tell how long requests take at a moment."""


def facts(scenes: list[Scene], scenario: str) -> pd.DataFrame:
    """Return a row per trial of a scenario: its server, its losses, and what else it cost, by `_OF`.

    flagged: whether the trial has a flag; valid: whether no flag casts doubt on its counts; in_spite: whether
    at most contention does.
    """
    return pd.DataFrame(
        {
            "dispatch": scene.dispatch,
            "keepalive": scene.keepalive,
            "block": scene.block,
            "workers": scene.workers,
            "flagged": bool(scene.flags),
            "valid": scene.counts_hold,
            "in_spite": scene.answers_hold,
            "requests": len(scene.requests),
            "lost": scene.lost,
            **_OF[scenario](scene),
        }
        for scene in scenes
        if scene.scenario == scenario
    )


def kill(scene: Scene) -> dict[str, float]:
    """Say what a killed worker cost.

    full_again_s: from the kill until as many workers as before accept; served_again_s: until a new worker has
    answered; nan: not within the trial. met: requests that were open at the kill, or due after it; met_lost:
    those of them that were not answered. watched_s: how long the trial went on after the kill.
    """
    after = scene.events[scene.events["at_s"] > scene.began_s]
    fewer = after["workers"] < scene.workers
    full = after[fewer.cummax() & ~fewer]["at_s"]
    new = scene.answered[~scene.answered["worker"].isin(scene.answered_by(0, scene.began_s))]
    met = ~(scene.requests["end_s"] < scene.began_s)
    return {
        "full_again_s": (float(full.iloc[0]) if len(full) else np.nan) - scene.began_s,
        "served_again_s": float(new["end_s"].min()) - scene.began_s,
        "watched_s": scene.duration_s - scene.began_s,
        **_met(scene, met),
    }


def recycle(scene: Scene) -> dict[str, float]:
    """Say what replacing all workers cost.

    took_s: until all were replaced; nan if they were not. fewest: the fewest workers meanwhile. met: requests
    that were open meanwhile; met_lost: those of them that were not answered. slowest_s: the slowest answer to
    the others.
    """
    during = scene.events[scene.events["at_s"] >= scene.began_s]
    met = (scene.requests["due_s"] <= scene.ended_s) & ~(scene.requests["end_s"] < scene.began_s)
    replaced = scene.actions["event"].iloc[-1] == Event.DONE
    return {
        "took_s": scene.ended_s - scene.began_s if replaced else np.nan,
        "fewest": int(during["workers"].min()),
        "slowest_s": float(scene.answered.loc[met, "latency_s"].max()),
        **_met(scene, met),
    }


def _met(scene: Scene, met: "pd.Series[bool]") -> dict[str, int]:
    return {"met": int(met.sum()), "met_lost": int((met & (scene.requests["outcome"] != "ok")).sum())}


def blocked(scene: Scene) -> "pd.Series[bool]":
    """Say which requests the blocked worker had: it answered nothing for most of the time.

    A lost request belonged to no other worker, so it counts as the blocked worker's.
    """
    settled_s = scene.began_s + 0.25 * (scene.ended_s - scene.began_s)
    return ~scene.requests["worker"].isin(scene.answered_by(settled_s, scene.ended_s))


def block(scene: Scene) -> dict[str, float]:
    """Say what one blocking request did to the others.

    blocked_s: how long it took; due: requests due meanwhile; answered: those of them answered meanwhile;
    waited: those of them that the blocked worker had.
    """
    due = scene.requests["due_s"].between(scene.began_s, scene.ended_s)
    meanwhile = (scene.requests["outcome"] == "ok") & (scene.requests["end_s"] < scene.ended_s)
    return {
        "blocked_s": scene.ended_s - scene.began_s,
        "due": int(due.sum()),
        "answered": int((due & meanwhile).sum()),
        "waited": int((due & blocked(scene)).sum()),
    }


def scale(scene: Scene) -> dict[str, float]:
    """Say what scaling did.

    load: the share of one worker's time that was offered. grow_s, shrink_s: how long each change took.
    one_s, two_s, one_again_s: the latency just before the first change, just before the second, and at the
    end, as the median of the last `_LAST` answers.
    """
    up_s, grown_s, down_s, shrunk_s = scene.actions["at_s"]
    parts = pd.cut(scene.answered["due_s"], [-1, up_s, down_s, np.inf], labels=["one", "two", "one_again"])
    latest = scene.answered.sort_values("due_s").groupby(parts, observed=False).tail(_LAST)
    latencies = latest.groupby(parts, observed=False)["latency_s"].median()
    return {
        "load": len(scene.requests) / scene.duration_s * float(scene.answered["service_s"].mean()),
        "grow_s": grown_s - up_s,
        "shrink_s": shrunk_s - down_s,
        **{f"{part}_s": float(value) for part, value in latencies.items()},
    }


def crash(scene: Scene) -> dict[str, Any]:
    """Say what a crash loop did.

    held_s: until the first request was refused, or else until no worker was left; nan if it was never given
    up. due: requests due until then; answered: those of them that were answered. reason: why, as the server
    says.
    """
    refused = scene.requests.loc[scene.requests["outcome"] == "refused", "due_s"]
    none_left = scene.events.loc[scene.events["workers"] == 0, "at_s"]
    over_s = float((refused if len(refused) else none_left).min())
    due = (scene.requests["due_s"] >= scene.began_s) & ~(scene.requests["due_s"] >= over_s)
    answered = due & (scene.requests["outcome"] == "ok")
    return {
        "held_s": over_s - scene.began_s,
        "due": int(due.sum()),
        "answered": int(answered.sum()),
        "reason": scene.actions["detail"].iloc[-1],
    }


_OF: dict[str, Callable[[Scene], dict[str, Any]]] = {
    KILL: kill,
    RECYCLE: recycle,
    SCALE: scale,
    BLOCK: block,
    CRASH: crash,
}
"""The function that tells what else a scenario cost."""
