"""Scenes of failures made by hand: requests and events in a few lines."""

from typing import Any

import numpy as np
import pandas as pd

from lab.experiments.failures.facts import Scene
from lab.study.plan import Event

_BEGUN, _DONE, _FAILED, _WORKERS = Event.BEGUN, Event.DONE, Event.FAILED, Event.WORKERS


def scene(
    scenario: str,
    requests: list[tuple[float, float, int | None]],
    events: list[tuple[float, Event, int]],
    detail: str = "",
    **changes: Any,
) -> Scene:
    """Make a scene: requests as (due_s, end_s, worker), without a worker one that was reset.

    Events are (at_s, event, workers); the last one has the `detail`.
    """
    frame = pd.DataFrame(requests, columns=["due_s", "end_s", "worker"])
    frame = frame.astype({"worker": float})
    frame["outcome"] = np.where(frame["worker"].isna(), "reset", "ok")
    frame["latency_s"] = frame["end_s"] - frame["due_s"]
    frame["service_s"] = 0.1
    about: dict[str, Any] = {"dispatch": "round-robin", "keepalive": False, "block": 1, "workers": 2}
    log = pd.DataFrame(events, columns=["at_s", "event", "workers"]).assign(detail="")
    log.loc[log.index[-1], "detail"] = detail
    return Scene(
        scenario=scenario,
        requests=frame,
        events=log,
        **(about | {"duration_s": 10.0, "flags": ()} | changes),
    )


def killed(*, back_s: float | None = 0.5, late: int = 3, late_lost: int = 0, **changes: Any) -> Scene:
    """Kill a worker at 2 s: one request is lost with it; `late` are due after it, some of which are lost."""
    before = [(0, 0.1, 1), (1, 1.1, 2), (1.9, 2.05, None)]
    after = [(4.0, 4.1, None if n < late_lost else 2 + n % 2) for n in range(late)]
    events = [(0.0, _WORKERS, 2), (2.0, _BEGUN, 2), (2.01, _DONE, 2), (2.02, _WORKERS, 1)]
    if back_s is not None:
        events.append((2.0 + back_s, _WORKERS, 2))
    return scene("kill", before + after, events, **changes)


def recycled(*, lost: int = 0, of: int = 4, ends: Event = Event.DONE, **changes: Any) -> Scene:
    """Replace all workers from 2 s to 4.5 s: so many requests are open meanwhile, some of which are lost."""
    during = [(3, 3.4, None if n < lost else 2) for n in range(of)]
    events = [(0.0, _WORKERS, 2), (2.0, _BEGUN, 2), (4.5, ends, 2)]
    return scene("recycle", [(0, 0.1, 1), *during, (6, 6.1, 3)], events, **changes)


def blocked(*, waiting: int = 1, going_on: int = 3, **changes: Any) -> Scene:
    """Block worker 1 from 2 s to 4 s: so many requests due meanwhile wait for it, so many do not."""
    wait = [(2.2, 4.3, 1)] * waiting
    others = [(3, 3.1, 2)] * going_on
    events = [(0.0, _WORKERS, 2), (2.0, _BEGUN, 2), (4.0, _DONE, 2)]
    return scene("block", [(0, 0.1, 1), (1, 1.1, 2), *wait, *others, (5, 5.1, 1)], events, **changes)


def scaled(**changes: Any) -> Scene:
    """Go from one worker to two and back, with latencies of 1 s, 0.1 s and 0.5 s."""
    requests: list[tuple[float, float, int | None]] = [(0, 1, 1), (3, 3.1, 2), (8, 8.5, 1)]
    events = [(1.0, _BEGUN, 1), (2.0, _DONE, 2), (6.0, _BEGUN, 2), (7.5, _DONE, 1)]
    return scene("scale", requests, events, **changes)


def crashed(*, given_up: bool = True, **changes: Any) -> Scene:
    """Crash each new worker from 1 s on; if it is given up, requests are refused from 5 s on."""
    end = (6.0, _DONE, 0) if given_up else (9.0, _FAILED, 2)
    made = scene(
        "crash",
        [(0, 0.1, 1), (2, 2.1, 2), (3, 3.1, None), (5, 5.1, None), (7, 7.1, None)],
        [(1.0, _BEGUN, 2), end],
        detail="gave up, because ..." if given_up else "not given up within 8 s",
        **changes,
    )
    if given_up:
        made.requests.loc[[3, 4], "outcome"] = "refused"
    return made
