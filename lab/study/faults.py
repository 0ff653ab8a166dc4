"""A trial with actions on its server: what was done when, and how many workers there were."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from lab.errors import LabError
from lab.study.plan import EVENTS, Condition, Event
from lab.study.trial import Execute, fresh_server, offer

if TYPE_CHECKING:
    from lab.load.attack import Progress
    from lab.servers import Server

_POLL_S = 0.02


@dataclass(frozen=True)
class Action:
    """Something to do to a server; its name is kept with its beginning.

    What `do` returns, or the text of a LabError that it raises, is kept with its end.
    """

    name: str
    do: Callable[["Server"], str | None]


LeftS = Callable[[], float]
"""Says for how many more seconds the load is offered."""

Actions = Callable[[Condition, "Server", LeftS], Iterable[Action]]
"""What to do during the load. Each action is asked for when the one before is over: it may look and wait."""


@dataclass(frozen=True)
class Watched:
    """What an attack returns, and what was done to its server meanwhile, in the form of `plan.EVENTS`."""

    requests: pd.DataFrame
    summary: Mapping[str, Any]
    events: pd.DataFrame


def with_actions(actions: Actions) -> Execute:
    """Return a function that carries out a trial and, during the attack, its condition's actions.

    An attack reports its time 0 only after a second: the first action is then.
    """

    def execute(condition: Condition, seed: int) -> Watched:
        with fresh_server(condition) as server, _Watch(server, condition, actions) as watch:
            result = offer(server, condition, seed, watch.hear)
            watch.finish()
        return Watched(result.requests, result.summary, watch.events())

    return execute


class _Watch:
    """Does the actions in one thread, and watches the number of workers in another."""

    def __init__(self, server: "Server", condition: Condition, actions: Actions) -> None:
        self._server = server
        self._duration_s = condition.duration_s
        self._actions = actions(condition, server, self._left_s)
        self._start_s: float | None = None
        self._started = threading.Event()
        self._over = threading.Event()
        self._log: list[tuple[float, Event, int, str]] = []
        self._workers: int | None = None
        self._error: BaseException | None = None
        self._actor = threading.Thread(target=self._act, daemon=True)
        self._poller = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> "_Watch":
        self._note(Event.WORKERS)
        self._actor.start()
        self._poller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._started.set()
        self._actor.join()
        self._poller.join()

    def hear(self, progress: "Progress") -> None:
        """Learn the attack's time 0 from its progress."""
        if self._start_s is None:
            self._start_s = time.monotonic() - progress.elapsed_s
            self._started.set()

    def finish(self) -> None:
        """Return when every action is done. Raises what an action raised; LabError if none could begin."""
        if self._start_s is None:
            raise LabError("the attack ended before any action could begin: let it last at least 2 s")
        self._actor.join()
        if self._error:
            raise self._error

    def events(self) -> pd.DataFrame:
        """Return what was noted, in the time of the requests."""
        frame = pd.DataFrame(sorted(self._log), columns=EVENTS.names)
        return frame.assign(at_s=frame["at_s"] - (self._start_s or 0.0))

    def _left_s(self) -> float:
        return (self._start_s or 0.0) + self._duration_s - time.monotonic()

    def _act(self) -> None:
        self._started.wait()
        try:
            for action in self._actions:
                if self._over.is_set():
                    return
                self._note(Event.BEGUN, action.name)
                self._note(*self._ending(action))
        except BaseException as error:
            self._error = error

    def _ending(self, action: Action) -> tuple[Event, str]:
        try:
            return Event.DONE, action.do(self._server) or ""
        except LabError as error:
            return Event.FAILED, str(error)

    def _poll(self) -> None:
        while not self._over.wait(_POLL_S):
            self._note(Event.WORKERS)

    def _note(self, event: Event, detail: str = "") -> None:
        """Note an event, as of when its workers were asked for: a server that is ending answers late."""
        asked_s = time.monotonic()
        workers = len(self._server.workers)
        if event is not Event.WORKERS or workers != self._workers:
            self._workers = workers
            self._log.append((asked_s, event, workers, detail))
