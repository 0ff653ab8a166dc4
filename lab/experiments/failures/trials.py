"""What does it cost when workers die, are replaced, come and go, or are blocked, under steady load?"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lab.checks import Count, Positive, Seconds, Whole
from lab.errors import LabError
from lab.hotloop import KernelName
from lab.servers.spec import DispatchName
from lab.study.faults import Action, with_actions
from lab.study.parameters import ListOf, WorkerCount
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition
from lab.web import MOST_TIMES

if TYPE_CHECKING:
    from lab.servers import Server

EXPERIMENT = "failures"

KILL, RECYCLE, SCALE, BLOCK, CRASH = SCENARIOS = "kill", "recycle", "scale", "block", "crash"

_OF_EACH_DISPATCH = (KILL, RECYCLE, BLOCK)
_CLOSES_EACH = "least-busy"
"""This dispatch closes each connection after its answer, so there is none to keep."""

_OVER_ONE = 1.05
"""Scaling is offered this many times the loops that one worker can do. A request costs more than its loop, so
one worker is well behind, and two can still work off the backlog."""

_CRASH_LASTS = 1.75
"""It takes a while to give up on a crash loop, so its trial lasts this many times as long."""

_GIVES_UP_WITHIN_S = 30.0
_LOOK_AGAIN_S = 0.05


class Parameters(_Parameters):
    """What notebook 06 lets its reader set; figures show the first of `dispatches`.

    A scenario in `kept` is measured with every dispatch, with both new and kept connections.
    """

    run: str
    dispatches: Annotated[ListOf[DispatchName], Field(min_length=1)]
    kept: ListOf[Literal["kill", "recycle", "scale", "block"]]
    workers: Annotated[WorkerCount, Field(ge=2)]
    utilisation: Positive
    duration_s: Seconds
    kernel: KernelName
    iterations: Whole
    timeout_s: Seconds
    blocks: Count
    seed: Whole


def conditions(p: Parameters, loop_s: float) -> list[Condition]:
    """Return each scenario with each server that meets it.

    A blocked worker is one fewer, so the load is then what the others can do: only the blocked one's requests
    wait. Scaling begins with one worker.
    """
    shared = p.model_dump(include={"kernel", "iterations", "timeout_s"}) | {"topology": "cluster"}
    usual: dict[str, Any] = {"workers": p.workers, "duration_s": p.duration_s, "load": p.utilisation}
    own: dict[str, dict[str, Any]] = {
        SCALE: {"workers": 1, "load": _OVER_ONE},
        BLOCK: {"load": p.utilisation * (1 - 1 / p.workers)},
        CRASH: {"duration_s": _CRASH_LASTS * p.duration_s},
    }
    blocking = min(MOST_TIMES, max(1, round(0.3 * p.duration_s / loop_s)))
    return [
        Condition(
            dispatch=dispatch,
            keepalive=keepalive,
            labels={
                "scenario": scenario,
                "place": p.dispatches.index(dispatch),
                "times": blocking if scenario == BLOCK else 1,
            },
            **shared,
            **(usual | own.get(scenario, {})),
        )
        for scenario in SCENARIOS
        for dispatch, keepalive in _servers(p, scenario)
    ]


def _servers(p: Parameters, scenario: str) -> Iterator[tuple[DispatchName, bool]]:
    """Yield each dispatch that meets a scenario, and whether clients keep their connections."""
    kept = scenario in p.kept
    for dispatch in p.dispatches if kept or scenario in _OF_EACH_DISPATCH else p.dispatches[:1]:
        yield dispatch, False
        if kept and dispatch != _CLOSES_EACH:
            yield dispatch, True


def actions(condition: Condition) -> list[Action]:
    """Return what to do to the server of a condition, and when."""
    lasts_s, scenario = condition.duration_s, condition.labels["scenario"]
    if scenario == SCALE:
        return [
            Action(0.25 * lasts_s, lambda server: server.scale(2)),
            Action(0.6 * lasts_s, lambda server: server.scale(1)),
        ]
    do: dict[str, Callable[[Server], str | None]] = {
        KILL: _kill_one,
        RECYCLE: lambda server: server.recycle(),
        BLOCK: partial(_block, condition),
        CRASH: _crash,
    }
    return [Action((0.2 if scenario == CRASH else 0.35) * lasts_s, do[scenario])]


EXECUTE = with_actions(actions)
"""Carries out a trial of this experiment."""


def _kill_one(server: "Server") -> None:
    os.kill(server.workers[0], signal.SIGKILL)


def _block(condition: Condition, server: "Server") -> None:
    """Send one request with so many loops that its worker does nothing else for a while."""
    import requests

    url = f"{server.url}{condition.path}?times={condition.labels['times']}"
    with requests.Session() as session:
        session.trust_env = False  # no proxy between us and loopback
        try:
            session.get(url, timeout=condition.timeout_s).raise_for_status()
        except requests.RequestException as error:
            raise LabError(f"it was not answered: {type(error).__name__}") from None


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
