"""Failures, as they are done to a server: in turns, to settled workers, while there is load."""

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from helpers.failure_plans import conditions

from lab.experiments.failures import trials as study
from lab.servers.workers import SETTLED_S
from lab.study.plan import Condition
from lab.study.runs import open_run
from lab.study.trial import Action, with_actions

if TYPE_CHECKING:
    from lab.servers import Server


class Clock:
    """Stands in for the module time: sleeping takes no time, and passes it."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


class FakeServer:
    """Numbers its workers; each that is taken away is replaced."""

    def __init__(self) -> None:
        self.workers = [1, 2, 3, 4]
        self.since_s = dict.fromkeys(self.workers, 0.0)

    def replace(self, pid: int, now_s: float) -> None:
        new = max(self.workers) + 1
        self.workers[self.workers.index(pid)] = new
        self.since_s[new] = now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(study, "time", made)
    return made


def planned(clock: Clock, **changes: Any) -> Iterator[tuple[float, str, int | None, FakeServer]]:
    """Yield when each action begins, its name, the worker that it meets, and the server."""
    server: Any = FakeServer()
    (condition,) = conditions(dispatches=["shared"], **changes)
    end_s = clock.now_s + condition.duration_s
    for action in study.actions(condition, server, lambda: end_s - clock.now_s):
        meets = action.do.args[0] if action.name in (study.KILL, study.RECYCLE) else None  # type: ignore[attr-defined]
        yield clock.now_s, action.name, meets, server
        clock.sleep(0.5)
        if meets:
            server.replace(meets, clock.now_s)


def test_failures_come_in_turns_while_there_is_load_and_a_crash_loop_comes_last(clock: Clock) -> None:
    names = [name for _, name, _, _ in planned(clock, turns=["block", "crash", "recycle"], duration_s=14)]
    assert names == ["block", "recycle", "block", "recycle", "crash"]
    assert [name for _, name, _, _ in planned(clock, turns=["crash"])] == ["crash"]


def test_a_kill_meets_the_oldest_worker_and_never_one_that_has_not_settled(clock: Clock) -> None:
    met = []
    for at_s, _, meets, server in planned(clock, turns=["kill"], duration_s=20):
        assert meets == min(server.workers)
        assert at_s - server.since_s[meets] >= SETTLED_S
        met.append(meets)
    assert met == list(range(1, len(met) + 1))
    assert len(met) >= 20


def test_a_server_that_is_gone_is_left_alone(clock: Clock) -> None:
    server: Any = FakeServer()
    (condition,) = conditions(dispatches=["shared"], turns=["kill", "block"])
    end_s = clock.now_s + condition.duration_s
    acting = study.actions(condition, server, lambda: end_s - clock.now_s)
    assert next(acting).name == study.KILL
    server.workers.clear()
    assert list(acting) == [], "there is nobody left to meet"
    assert clock.now_s < end_s, "it waits for workers no longer than there is load"


def test_kills_in_one_trial_cost_what_was_open_and_no_back_off() -> None:
    """Six, for four workers: the last two meet successors of killed ones."""
    logs = []

    def six(condition: Condition, server: "Server", left_s: object) -> Iterator[Action]:
        yield from itertools.islice(study.actions(condition, server, lambda: math.inf), 6)
        logs.append(server.log(10_000))

    run = open_run()
    (condition,) = conditions(dispatches=["shared"], turns=["kill"], load=0.002, duration_s=4)
    trials = run.measure("failures", [condition], blocks=1, seed=1, execute=with_actions(six))
    events = study.events(trials, run.requests(trials), run.events(trials))
    kills = events[events["kind"] == study.KILL]
    assert len(kills) == 6
    assert (kills["took_s"] > 0).all()
    assert kills["detail"].nunique() == 6, "each has its own successor"
    assert events["met"].sum() == trials["planned"].sum()
    assert events["lost"].sum() == (trials["planned"] - trials["ok"]).sum()
    assert logs[0].count("another one starts in 0 s") == 6
