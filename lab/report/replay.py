"""The requests of one trial, played under two dispatches side by side: where they wait is seen.

When requests were due, how long each looped and which worker had it is recorded; how long each then waits is
played. `templates/replay.js` draws the two scenes, and a still figure stands in where no script runs.
"""

import heapq
import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab import units
from lab.models.simulation import waits
from lab.study.run import Run

_TEMPLATES = Path(__file__).parent / "templates"
_EXPERIMENT = "dispatch"

_RECORDED = {
    "reuseport": "reuseport: a hash picks the worker",
    "round-robin": "round-robin: workers take turns",
}
"""The dispatches whose trials are played, the more telling first: each request waits for its own worker."""

_ONE_QUEUE = "least-busy: one queue for all workers"

_MOST_WORKERS = 12
_MOST_REQUESTS = 300
_REQUESTS_PER_WORKER = 30
"""What a stretch of a long trial holds: more would rush by."""

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """Requests under one dispatch, in the order in which they are due: an entry for each, times in seconds.

    Worker `worker[i]`, of so many counted from 0, is busy with request i from `start_s[i]` to `end_s[i]`.
    With `shared`, requests wait in one queue for all workers, else each at its own.
    """

    title: str
    workers: int
    shared: bool
    due_s: Times
    start_s: Times
    end_s: Times
    worker: NDArray[np.int64]

    @property
    def wait_s(self) -> float:
        """How long requests wait in the mean."""
        return float((self.start_s - self.due_s).mean())

    def waiting(self, at_s: Times) -> NDArray[np.int64]:
        """Return how many requests are due but not begun at each of these times."""
        due, begun = (np.searchsorted(np.sort(times), at_s, "right") for times in (self.due_s, self.start_s))
        return due - begun

    def idle(self, at_s: float) -> list[int]:
        """Return the workers that have nothing to do at this time."""
        busy = self.worker[(self.start_s <= at_s) & (at_s < self.end_s)]
        return [worker for worker in range(self.workers) if worker not in busy]

    def for_script(self) -> dict[str, Any]:
        """Return the scene as `replay.js` takes it, to the microsecond."""
        columns = (
            *(np.round(times, 6).tolist() for times in (self.due_s, self.start_s, self.end_s)),
            self.worker.tolist(),
        )
        names = ("due", "start", "end", "worker")
        return {
            "title": self.title,
            "workers": self.workers,
            "queue": "shared" if self.shared else "each",
            "requests": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)],
        }


def at_own_worker(
    title: str, workers: int, due_s: Times, service_s: Times, worker: NDArray[np.int64]
) -> Scene:
    """Play requests that each wait for a worker of their own, first come first served."""
    start_s = due_s.copy()
    for one in np.unique(worker):
        its = worker == one
        start_s[its] += waits(due_s[its], service_s[its], 1)
    return _placed(title, workers, False, due_s, start_s, service_s, worker)


def in_one_queue(title: str, workers: int, due_s: Times, service_s: Times) -> Scene:
    """Play requests that wait in one queue, of which the worker that is free first takes the next."""
    start_s = due_s + waits(due_s, service_s, workers)
    free_s = [(-np.inf, worker) for worker in range(workers)]
    worker = np.empty(len(due_s), np.int64)
    for i, ends_s in enumerate(start_s + service_s):
        worker[i] = free_s[0][1]
        heapq.heapreplace(free_s, (float(ends_s), int(worker[i])))
    return _placed(title, workers, True, due_s, start_s, service_s, worker)


def _placed(
    title: str,
    workers: int,
    shared: bool,
    due_s: Times,
    start_s: Times,
    service_s: Times,
    worker: NDArray[np.int64],
) -> Scene:
    """Let no worker begin before its last request has ended, not even by what sums are rounded by."""
    free_s = np.full(workers, -np.inf)
    start_s, end_s = start_s.copy(), np.empty_like(start_s)
    for i, one in enumerate(worker):
        start_s[i] = max(start_s[i], free_s[one])
        end_s[i] = free_s[one] = start_s[i] + service_s[i]
    return Scene(title, workers, shared, due_s, start_s, end_s, worker)


def telling_moment(one: Scene, other: Scene) -> float:
    """Return the time at which the two differ most in requests waiting.

    Of several such times, the one with most workers idle where more wait, then the longest: its middle.
    """
    edges_s = np.unique(
        np.concatenate(
            [times for scene in (one, other) for times in (scene.due_s, scene.start_s, scene.end_s)]
        )
    )
    middles_s = (edges_s[:-1] + edges_s[1:]) / 2
    if not len(middles_s):
        return float(edges_s[0])
    more = one.waiting(middles_s) - other.waiting(middles_s)

    def telling(i: int) -> tuple[int, int, float]:
        scene = one if more[i] >= 0 else other
        idle = len(scene.idle(float(middles_s[i])))
        return abs(int(more[i])), idle, float(edges_s[i + 1] - edges_s[i])

    most = np.flatnonzero(np.abs(more) == np.abs(more).max())
    return float(middles_s[max(most.tolist(), key=telling)])


@dataclass(frozen=True)
class _Played:
    """A trial, or a stretch of it, in two scenes; `measured_s` is the mean latency of these requests."""

    trial: Mapping[Any, Any]
    recorded: Scene
    queue: Scene
    measured_s: float
    of: int

    @property
    def gain_s(self) -> float:
        return self.recorded.wait_s - self.queue.wait_s


def section(run: Run) -> str:
    """Return the replay of the trial of notebook 05 that tells most; "" if none can be played.

    One can if it had random arrivals, new connections and several workers, was neither flagged nor
    overloaded, and every request was answered.
    """
    trials = run.trials(_EXPERIMENT)
    for dispatch in _RECORDED:
        if played := list(_all_played(run, trials[trials["dispatch"] == dispatch])):
            return _section(max(played, key=lambda one: one.gain_s), played)
    return ""


def _all_played(run: Run, trials: pd.DataFrame) -> Iterator[_Played]:
    fit = (
        (trials["topology"] == "cluster") & trials["workers"].between(2, _MOST_WORKERS)
        & (trials["arrivals"] == "poisson") & ~trials["keepalive"].astype(bool)
        & (trials["utilisation"] < 1) & trials["valid"].astype(bool)
    )  # fmt: skip
    mine = trials[fit]
    if mine.empty:
        return
    requests = dict(list(run.requests(mine).groupby("trial_id")))
    for trial in mine.to_dict("records"):
        if trial["trial_id"] in requests and (played := _played(trial, requests[trial["trial_id"]])):
            yield played


def _played(trial: Mapping[Any, Any], requests: pd.DataFrame) -> _Played | None:
    """Play a trial, or the stretch of it that tells most; None if its records do not say enough."""
    workers, of = int(trial["workers"]), len(requests)
    worker, pids = pd.factorize(requests["worker"])
    service_s = requests["service_s"].to_numpy(float)
    answered = (requests["outcome"] == "ok").all() and (np.isfinite(service_s) & (service_s > 0)).all()
    if not answered or of < 2 or not 2 <= len(pids) <= workers or (worker < 0).any():
        return None
    due_s, title = requests["due_s"].to_numpy(float), _RECORDED[trial["dispatch"]]

    def scenes(part: slice) -> tuple[Scene, Scene]:
        since_s = (
            due_s[part] - due_s[part][0] + service_s[part].mean()
        )  # a loop's time before the first is due
        played = at_own_worker(title, workers, since_s, service_s[part], worker[part])
        return played, in_one_queue(_ONE_QUEUE, workers, since_s, service_s[part])

    part = slice(0, of)
    if of > (most := min(_MOST_REQUESTS, _REQUESTS_PER_WORKER * workers)):
        whole, queue = scenes(part)
        gained_s = np.concatenate([[0], np.cumsum(whole.start_s - queue.start_s)])
        first = int(np.argmax(gained_s[most:] - gained_s[:-most]))
        part = slice(first, first + most)
    recorded, queue = scenes(part)
    return _Played(trial, recorded, queue, float(requests["latency_s"].iloc[part].mean()), of)


def _section(told: _Played, played: list[_Played]) -> str:
    at_s = telling_moment(told.recorded, told.queue)
    scenes = [scene.for_script() for scene in (told.recorded, told.queue)]
    data = json.dumps({"scenes": scenes, "at": at_s}).replace("<", "\\u003c")
    script = (_TEMPLATES / "replay.js").read_text(encoding="utf-8")
    caption = f"<b>{html.escape(_moment(told, at_s))}</b> {html.escape(_caption(told, played))}"
    return (
        f'<section class="replay-section"><h2>{html.escape(_finding(told))}</h2>'
        f'<figure><div id="replay">{_still(told, at_s)}</div><figcaption>{caption}</figcaption></figure>'
        f'<script type="application/json" id="replay-data">{data}</script>'
        f'<script type="module">{script}\n{_MOUNT}</script></section>'
    )


_MOUNT = """const { scenes, at } = JSON.parse(document.getElementById("replay-data").textContent);
mount(document.getElementById("replay"), scenes, { at });
"""


def _finding(told: _Played) -> str:
    number, name = len(told.recorded.due_s), told.trial["dispatch"]
    own, queue = _written(told.recorded.wait_s), _written(told.queue.wait_s)
    return f"The same {number} requests wait {own} on average under {name}, {queue} in one queue"


def _written(wait_s: float) -> str:
    return units.seconds(wait_s) if wait_s >= 1e-6 else "no time"  # which sums are rounded by


def _moment(told: _Played, at_s: float) -> str:
    """Say what is seen at the telling moment."""
    own, queue = (int(scene.waiting(np.array([at_s]))[0]) for scene in (told.recorded, told.queue))
    idle = len(told.recorded.idle(at_s))
    beside = (
        f" while {units.counted(idle, 'worker')} {'is' if idle == 1 else 'are'} idle" if own and idle else ""
    )
    return (
        f"After {units.seconds(at_s)} under {told.trial['dispatch']}, {units.counted(own, 'request')}"
        f" {'waits' if own == 1 else 'wait'}{beside}; in one queue, {queue or 'none'} would."
    )


def _caption(told: _Played, played: list[_Played]) -> str:
    """Say what is recorded and what is played, and how this trial was chosen."""
    trial, number = told.trial, len(told.recorded.due_s)
    latency_s = float((told.recorded.end_s - told.recorded.due_s).mean())
    part = f", of a stretch of {number} of its {told.of:,}," if number < told.of else ""
    return (
        f"Recorded in trial {trial['trial_id']} ({trial['dispatch']},"
        f" {units.counted(trial['workers'], 'worker')}, utilisation {units.percent(trial['utilisation'])}):"
        f" when each request{part} was due, how long its loop took, and which worker had it. Played, with"
        f" loops alone: how long it waits for that worker, or in one queue. Under {trial['dispatch']}, mean"
        f" latency was {units.seconds(told.measured_s)} as measured, and is {units.seconds(latency_s)} as"
        f" played. {_chosen(played)}"
    )


def _chosen(played: list[_Played]) -> str:
    if len(played) == 1:
        return "No other trial of this run can be played so."
    own, queue = (
        _written(float(np.median([getattr(one, name).wait_s for one in played])))
        for name in ("recorded", "queue")
    )
    return (
        f"Of {len(played)} such trials in this run, waits differ most in this one; the median over all is"
        f" {own}, and {queue} in one queue."
    )


_WIDTH, _HEIGHT, _LEFT, _TOP, _FLOOR = 400, 190, 22, 48, 165


def _still(told: _Played, at_s: float) -> str:
    """Draw how many requests wait over time, in both scenes, with the telling moment marked."""
    scenes = (told.recorded, told.queue)
    end_s = max(float(scene.end_s.max()) for scene in scenes)
    edges_s = [np.unique(np.concatenate([scene.due_s, scene.start_s])) for scene in scenes]
    numbers = [scene.waiting(edges) for scene, edges in zip(scenes, edges_s, strict=True)]
    most = max(1, *(int(each.max()) for each in numbers))

    def x(time_s: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT) * time_s / end_s, 1)

    def y(number: float) -> float:
        return round(_FLOOR - (_FLOOR - _TOP) * number / most, 1)

    def line(i: int) -> str:
        corners = zip(edges_s[i].tolist(), numbers[i].tolist(), strict=True)
        steps = "".join(f"H{x(time_s)}V{y(number)}" for time_s, number in corners)
        return f'<path class="over-time s{i}" d="M{_LEFT} {_FLOOR}{steps}H{_WIDTH}"/>'

    def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
        return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(words)}</text>'

    told_of = f"{_finding(told)}. {_moment(told, at_s)} Chart of the number of requests that wait, over time."
    return (
        f'<svg class="replay-still" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' aria-label="{html.escape(told_of)}">'
        f'<path class="axis" d="M{_LEFT} {_TOP}V{_FLOOR}H{_WIDTH}M{x(at_s)} {_TOP}V{_FLOOR}"/>'
        f"{line(0)}{line(1)}"
        f"{text(_LEFT, 12, '— ' + scenes[0].title, 's0')}{text(_LEFT, 27, '- - ' + scenes[1].title, 's1')}"
        f"{text(_LEFT - 5, _FLOOR, '0', anchor='end')}{text(_LEFT - 5, _TOP + 8, str(most), anchor='end')}"
        f"{text(_LEFT, _HEIGHT - 8, 'requests waiting, over time')}"
        f"{text(_WIDTH, _HEIGHT - 8, units.seconds(end_s), anchor='end')}</svg>"
    )
