"""Failures, one after the other under steady load: what is done to a server, and what each of them cost."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from lab.checks import Count, Positive, Seconds, Whole
from lab.errors import LabError
from lab.hotloop import MOST_TIMES, KernelName
from lab.servers.spec import DispatchName
from lab.servers.workers import SETTLED_S
from lab.study.parameters import ListOf, RunToAddTo, WorkerCount
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition, Event
from lab.study.trial import Action, LeftS, with_actions

if TYPE_CHECKING:
    from lab.servers import Server

EXPERIMENT = "failures"

KILL, RECYCLE, BLOCK, SCALE, CRASH = KINDS = "kill", "recycle", "block", "scale", "crash"

CALM = "calm"
"""What `events` calls the time before the first failure."""

REPLACED_WITHIN_S = 5.0
"""A worker that is not replaced within this time counts as not replaced."""

_ROOM_S = 1.0
_ROOM_FOR_CRASH_S = 12.0
"""How much of the load must be left for a failure to begin, so that requests meet it."""

_GIVES_UP_WITHIN_S = 30.0
_REST_S = 0.1
_LOOK_AGAIN_S = 0.02

_CLOSES_EACH = "least-busy"
"""This dispatch closes each connection after its answer, so there is none to keep."""


class Parameters(_Parameters):
    """What notebook 06 lets its reader set; figures show the first of `dispatches`."""

    run: RunToAddTo
    dispatches: Annotated[ListOf[DispatchName], Field(min_length=1)]
    kept: bool
    turns: Annotated[ListOf[Literal["kill", "recycle", "block", "scale", "crash"]], Field(min_length=1)]
    workers: Annotated[WorkerCount, Field(ge=2)]
    load: Positive
    duration_s: Seconds
    blocking: Annotated[Count, Field(le=MOST_TIMES)]
    kernel: KernelName
    iterations: Whole
    timeout_s: Seconds
    blocks: Count
    seed: Whole


def conditions(p: Parameters) -> list[Condition]:
    """Return a condition for each dispatch: with new connections and, if `kept`, with kept ones, too."""
    return [
        Condition(
            topology="cluster",
            dispatch=dispatch,
            keepalive=keepalive,
            labels={"turns": " ".join(p.turns), "place": place, "blocking": p.blocking},
            **p.model_dump(include={"workers", "load", "duration_s", "kernel", "iterations", "timeout_s"}),
        )
        for place, dispatch in enumerate(p.dispatches)
        for keepalive in ([False, True] if p.kept and dispatch != _CLOSES_EACH else [False])
    ]


def actions(condition: Condition, server: "Server", left_s: LeftS) -> Iterator[Action]:
    """Yield one failure after the other, in turns, while the load lasts; the crash loop comes last, and once.

    Each begins when all workers serve again. A kill meets the worker that has accepted for longest, once it
    counts as settled: the supervisor replaces it at once, and its back-off is not what is measured.
    """
    turns = str(condition.labels["turns"]).split()
    room_s = _ROOM_FOR_CRASH_S if CRASH in turns else _ROOM_S
    accepts_since_s = dict.fromkeys(server.workers, -SETTLED_S)
    for kind in itertools.cycle(kind for kind in turns if kind != CRASH):
        time.sleep(_REST_S)
        while len(workers := server.workers) < condition.workers and left_s() > room_s:
            time.sleep(_LOOK_AGAIN_S)
        if not workers:
            return
        now_s = time.monotonic()
        accepts_since_s = {pid: accepts_since_s.get(pid, now_s) for pid in workers}
        oldest = min(accepts_since_s, key=accepts_since_s.__getitem__)
        if kind == KILL:
            time.sleep(max(0.0, accepts_since_s[oldest] + SETTLED_S - now_s))
        if left_s() < room_s:
            break
        do: dict[str, Callable[[Server], str | None]] = {
            KILL: partial(ended, oldest, signal.SIGKILL),
            RECYCLE: partial(ended, oldest, signal.SIGTERM),  # its successor accepts first, as in recycle()
            BLOCK: partial(blocked_by_one, condition),
            SCALE: _scale,
        }
        yield Action(kind, do[kind])
    if CRASH in turns:
        yield Action(CRASH, _crash)


EXECUTE = with_actions(actions)
"""Carries out a trial of this experiment."""


def ended(pid: int, number: signal.Signals, server: "Server") -> str:
    """Signal a worker; return its successor's pid when that accepts and the worker is gone."""
    before = server.workers
    deadline_s = time.monotonic() + REPLACED_WITHIN_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    while _exists(pid) or len(now := server.workers) < len(before) or pid in now:
        if time.monotonic() > deadline_s:
            raise LabError(f"worker {pid} was not replaced within {REPLACED_WITHIN_S:g} s")
        time.sleep(_LOOK_AGAIN_S)
    return " ".join(str(new) for new in now if new not in before)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def blocked_by_one(condition: Condition, server: "Server") -> str:
    """Send one request with so many loops that its worker does nothing else for a while; return its pid."""
    import requests

    url = f"{server.url}{condition.path}?times={condition.labels['blocking']}"
    with requests.Session() as session:
        session.trust_env = False  # no proxy between us and loopback
        try:
            answer = session.get(url, timeout=condition.timeout_s)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise LabError(f"it was not answered: {type(error).__name__}") from None
    return answer.headers["X-Worker"]


def _scale(server: "Server") -> None:
    workers = len(server.workers)
    server.scale(workers + 1)
    server.scale(workers)


def _crash(server: "Server") -> str:
    """Kill every successor of the first worker as soon as it accepts; return why the server gave up."""
    others = set(server.workers[1:])
    deadline_s = time.monotonic() + _GIVES_UP_WITHIN_S
    while workers := server.workers:
        if time.monotonic() > deadline_s:
            raise LabError(f"not given up within {_GIVES_UP_WITHIN_S:g} s")
        for pid in set(workers) - others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_AGAIN_S)
    try:
        server.wait()
    except LabError as error:
        if server.log_path:
            server.log_path.unlink(missing_ok=True)  # kept to explain failures; this one was deliberate
        return str(error).partition(f" ({server.log_path}")[0]
    raise LabError("it stopped without a reason")


_OF_TRIAL = ["trial_id", "block", "dispatch", "keepalive", "workers", "flags"]
_OF_REQUEST = ["due_s", "end_s", "worker", "latency_s", "service_s"]
_NOT_BY_ITS_END = ("timeout", "unfinished", "dropped")
"""Outcomes that come long after their cause, or never."""


def events(trials: pd.DataFrame, requests: pd.DataFrame, noted: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each failure of these trials, and one for the calm before the first of each trial.

    Every request belongs to one row: to the last failure that began before the request ended or, if it waited
    in vain, before it was due. The columns, besides some of the trial:

    kind: of `KINDS`, or `CALM`. begun_s, took_s: when it began, and how long until all workers served again;
    nan if they did not. detail: the pid of the successor, or of the blocked worker; or what went wrong. met,
    lost, refused: how many requests belong to it, were not answered well, and were refused. next_s: from its
    beginning to the first good answer to a request due since then. due, waited: how many requests were due
    while it lasted, and went to the blocked worker or were lost; a process of a pool is never blocked, as
    runs of others come between those of the slow request. latency_s, loops: the median latency of the answers
    to those, also in loop times, by their own mean; nan without an answer.
    """
    few = requests[["trial_id", "outcome", *_OF_REQUEST]]
    requests_of, noted_of = (dict(list(frame.groupby("trial_id"))) for frame in (few, noted))
    found = [
        {**{name: trial[name] for name in _OF_TRIAL}, **event}
        for _, trial in trials.sort_values(["place", "keepalive", "block"]).iterrows()
        for event in _of_trial(
            requests_of[trial["trial_id"]], noted_of[trial["trial_id"]], trial["topology"] == "offload"
        )
    ]
    return pd.DataFrame(found)


def _of_trial(requests: pd.DataFrame, noted: pd.DataFrame, in_a_pool: bool) -> Iterator[dict[str, Any]]:
    begun, over = (noted[noted["event"].isin(which)] for which in ([Event.BEGUN], [Event.DONE, Event.FAILED]))
    begun_s = np.array([0.0, *begun["at_s"]])
    last_s, open_ended = requests["due_s"].max(), len(begun) - len(over)
    over_s = np.array([*begun["at_s"][:1], *over["at_s"], *[last_s] * open_ended] if len(begun) else [last_s])
    owners = _owners(requests, begun_s)
    details = ["", *over["detail"], *[""] * open_ended]
    done = [True, *(over["event"] == Event.DONE), *[False] * open_ended]
    known = {name: requests[name].to_numpy(np.float64, na_value=np.nan) for name in _OF_REQUEST}
    ok, refused = ((requests["outcome"] == outcome).to_numpy() for outcome in ("ok", "refused"))
    for n, kind in enumerate([CALM, *begun["detail"]]):
        mine, since = owners == n, ok & (known["due_s"] >= begun_s[n])
        meanwhile = (known["due_s"] >= begun_s[n]) & (known["due_s"] <= over_s[n])
        its = known["worker"] == float(details[n]) if kind == BLOCK and done[n] and not in_a_pool else False
        yield {
            "kind": kind,
            "begun_s": begun_s[n],
            "took_s": over_s[n] - begun_s[n] if done[n] else np.nan,
            "detail": details[n],
            "met": int(mine.sum()),
            "lost": int((mine & ~ok).sum()),
            "refused": int((mine & refused).sum()),
            "next_s": known["end_s"][since].min() - begun_s[n] if since.any() else np.nan,
            "due": int(meanwhile.sum()),
            "waited": int((meanwhile & (~ok | its)).sum()),
            **_took(known["latency_s"][meanwhile & ok], known["service_s"][meanwhile & ok]),
        }


def _owners(requests: pd.DataFrame, begun_s: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return the position of the event that each request belongs to; the first begins at 0."""
    moment_s = requests["end_s"].mask(requests["outcome"].isin(_NOT_BY_ITS_END), requests["due_s"])
    return np.searchsorted(begun_s, moment_s, side="right") - 1


def _took(latency_s: "np.ndarray[Any, Any]", service_s: "np.ndarray[Any, Any]") -> dict[str, float]:
    """Return the median latency of answers, in seconds and in loop times, by their own mean."""
    told_s = service_s[~np.isnan(service_s)]
    median_s = float(np.median(latency_s)) if len(latency_s) else np.nan
    return {"latency_s": median_s, "loops": median_s / float(told_s.mean()) if len(told_s) else np.nan}


def around(
    requests: pd.DataFrame, events: pd.DataFrame, which: pd.DataFrame, margin_s: float
) -> pd.DataFrame:
    """Lay some of these events over each other: their requests, due `since_s` after their event began.

    They are the answered ones that were due from `margin_s` before it to as long after it, and all its lost
    ones. `by_its_worker` says which were answered by the blocked worker, or by the successor, and `by_ended`
    which by a worker that answered nothing due after the event was over: the one that was ended.
    """
    found: list[pd.DataFrame] = []
    for trial_id, mine in which.groupby("trial_id", sort=False):
        of_trial = requests[requests["trial_id"] == trial_id]
        begun_s = events.loc[events["trial_id"] == trial_id, "begun_s"].to_numpy()
        last_due_s = of_trial.groupby("worker")["due_s"].max()
        lost, owner_s = of_trial["outcome"] != "ok", begun_s[_owners(of_trial, begun_s)]
        for _, event in mine.iterrows():
            since_s = of_trial["due_s"] - event["begun_s"]
            near = since_s.between(
                -margin_s, np.nan_to_num(event["took_s"], nan=REPLACED_WITHIN_S) + margin_s
            )
            shown = of_trial[(near & ~lost) | (lost & (owner_s == event["begun_s"]))]
            its = shown["worker"] == pd.to_numeric(event["detail"], errors="coerce")
            over_s = event["begun_s"] + np.nan_to_num(event["took_s"], nan=REPLACED_WITHIN_S)
            ended = shown["worker"].isin(last_due_s.index[last_due_s < over_s])
            found.append(shown.assign(since_s=since_s, by_its_worker=its, by_ended=ended & ~its))
    return pd.concat(found)
