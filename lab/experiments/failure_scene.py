"""A trial of `failures` as one thing: its requests, and what was done to its server when."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from lab.experiments.failures import SCENARIOS
from lab.load.validity import FELL_BEHIND
from lab.study.noise import CROWDED, STOLEN
from lab.study.speed import DRIFTED, LOOPS_TOOK

_ABOUT_TIMES = (FELL_BEHIND, LOOPS_TOOK, DRIFTED)
"""How the reasons begin that speak against times, not against counts of what was lost."""

_CONTENTION = (STOLEN, CROWDED)
"""How the reasons begin that may be why a request was lost, but not why it was answered."""


@dataclass(frozen=True)
class Scene:
    """A trial of `failures`: its requests, and what was done to its server; times are from its start."""

    scenario: str
    dispatch: str
    keepalive: bool
    block: int
    workers: int
    duration_s: float
    invalid_because: str
    requests: pd.DataFrame
    events: pd.DataFrame

    @property
    def counts_hold(self) -> bool:
        """Whether nothing speaks against its counts of requests."""
        return self._only(_ABOUT_TIMES)

    @property
    def answers_hold(self) -> bool:
        """Whether nothing but contention does: what was answered in spite of it is right."""
        return self._only(_ABOUT_TIMES + _CONTENTION)

    def _only(self, beginnings: tuple[str, ...]) -> bool:
        reasons = filter(None, self.invalid_because.split("; "))
        return all(reason.startswith(beginnings) for reason in reasons)

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

    @cached_property
    def answered(self) -> pd.DataFrame:
        """The requests that were answered well."""
        return self.requests[self.requests["outcome"] == "ok"]

    @property
    def lost(self) -> int:
        """How many were not."""
        return len(self.requests) - len(self.answered)

    def answered_by(self, from_s: float, to_s: float) -> set[float]:
        """Return the workers that gave an answer between these times."""
        return set(self.answered.loc[self.answered["end_s"].between(from_s, to_s), "worker"])


def scenes(trials: pd.DataFrame, requests: pd.DataFrame, events: pd.DataFrame) -> list[Scene]:
    """Put each trial with its requests and events, the scenarios and dispatches in their order."""
    requests_of, events_of = (dict(list(frame.groupby("trial_id"))) for frame in (requests, events))
    found = [
        Scene(
            row["scenario"], row["dispatch"], bool(row["keepalive"]), int(row["block"]), int(row["workers"]),
            row["duration_s"], row["invalid_because"],
            requests_of[row["trial_id"]], events_of[row["trial_id"]],
        )
        for _, row in trials.sort_values(["place", "keepalive", "block"]).iterrows()
    ]  # fmt: skip
    return sorted(found, key=lambda scene: SCENARIOS.index(scene.scenario))
