"""What each failure cost, read off the requests and events of its trial."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lab.experiments.failures import BLOCK, CRASH, KILL, RECYCLE, SCALE


@dataclass(frozen=True)
class Scene:
    """A trial of `failures`: its requests, and what was done to its server; times are from its start."""

    scenario: str
    dispatch: str
    workers: int
    duration_s: float
    loop_s: float
    requests: pd.DataFrame
    events: pd.DataFrame

    @property
    def said(self) -> pd.DataFrame:
        """The events that have a text: actions, and what came of them."""
        return self.events[self.events["event"] != ""]

    @property
    def began_s(self) -> float:
        """When the first action began."""
        return float(self.said["at_s"].iloc[0])

    @property
    def ended_s(self) -> float:
        """When the last action ended, or began if nothing was said of its end."""
        return float(self.said["at_s"].iloc[-1])

    @property
    def answered(self) -> pd.DataFrame:
        """The requests that were answered well."""
        return self.requests[self.requests["outcome"] == "ok"]

    @property
    def lost(self) -> int:
        """How many were not."""
        return len(self.requests) - len(self.answered)


def scenes(trials: pd.DataFrame, requests: pd.DataFrame, events: pd.DataFrame) -> list[Scene]:
    """Put each trial with its requests and events, the scenarios and dispatches in their order."""
    requests_of, events_of = (dict(list(frame.groupby("trial_id"))) for frame in (requests, events))
    order = [KILL, RECYCLE, SCALE, BLOCK, CRASH]
    found = [
        Scene(
            row["scenario"], row["dispatch"], int(row["workers"]), row["duration_s"], row["loop_s"],
            requests_of[row["trial_id"]], events_of[row["trial_id"]],
        )
        for _, row in trials.sort_values(["place", "block"]).iterrows()
    ]  # fmt: skip
    return sorted(found, key=lambda scene: order.index(scene.scenario))


def kill(scene: Scene) -> dict[str, float]:
    """Say what a killed worker cost.

    full_again_s: from the kill until as many workers as before accept; served_again_s: until one that was not
    there before has answered; lost_after: requests due after full strength that failed. nan: not within the
    trial.
    """
    after = scene.events[scene.events["at_s"] > scene.began_s]
    fewer = after["workers"] < scene.workers
    full = after[fewer.cummax() & ~fewer]["at_s"]
    full_s = float(full.iloc[0]) if len(full) else np.nan
    old = scene.answered.loc[scene.answered["end_s"] <= scene.began_s, "worker"].unique()
    new = scene.answered[~scene.answered["worker"].isin(old)]
    failed = scene.requests[scene.requests["outcome"] != "ok"]
    return {
        "lost": scene.lost,
        "full_again_s": full_s - scene.began_s,
        "served_again_s": float(new["end_s"].min()) - scene.began_s,
        "lost_after": int((failed["due_s"] > full_s).sum()),
    }


def recycle(scene: Scene) -> dict[str, float]:
    """Say what replacing all workers cost: lost, took_s, fewest workers at any time, slowest_s."""
    during = scene.events[scene.events["at_s"] >= scene.began_s]
    return {
        "lost": scene.lost,
        "took_s": scene.ended_s - scene.began_s,
        "fewest": int(during["workers"].min()),
        "slowest_s": float(scene.answered["latency_s"].max()),
    }


def block(scene: Scene) -> dict[str, float]:
    """Say what one blocking request did to the others.

    blocked_s: how long it took; due: requests due meanwhile; waited: those of them that the blocked worker
    had (it is the one that answered nothing for most of that time); answered: the share answered meanwhile.
    """
    due = scene.requests[scene.requests["due_s"].between(scene.began_s, scene.ended_s)]
    meanwhile = (due["outcome"] == "ok") & (due["end_s"] < scene.ended_s)
    settled_s = scene.began_s + 0.25 * (scene.ended_s - scene.began_s)
    going_on = scene.answered.loc[
        scene.answered["end_s"].between(settled_s, scene.ended_s), "worker"
    ].unique()
    return {
        "lost": scene.lost,
        "blocked_s": scene.ended_s - scene.began_s,
        "due": len(due),
        "waited": int((~due["worker"].isin(going_on)).sum()),
        "answered": float(meanwhile.mean()) if len(due) else np.nan,
    }


def scale(scene: Scene) -> dict[str, float]:
    """Say what scaling did: lost, and the median latency before scale(2), with two, and after scale(1)."""
    up_s, down_s = scene.said["at_s"].iloc[0], scene.ended_s
    parts = pd.cut(scene.answered["due_s"], [-1, up_s, down_s, np.inf], labels=["one", "two", "one_again"])
    medians = scene.answered.groupby(parts, observed=False)["latency_s"].median()
    return {"lost": scene.lost} | {f"{part}_s": float(value) for part, value in medians.items()}


def crash(scene: Scene) -> dict[str, float]:
    """Say what a crash loop did: held_s, until the first request was refused; answered, the share before."""
    refused = scene.requests.loc[scene.requests["outcome"] == "refused", "due_s"]
    over_s = float(refused.min()) if len(refused) else scene.ended_s
    before = scene.requests[scene.requests["due_s"].between(scene.began_s, over_s, inclusive="left")]
    return {
        "lost": scene.lost,
        "held_s": over_s - scene.began_s,
        "answered": float((before["outcome"] == "ok").mean()) if len(before) else np.nan,
    }
