"""One trial: a fresh server, warmed up, under one attack, and what is done to it meanwhile; and its row."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

import pandas as pd

from lab.cpus import available_cpus
from lab.errors import LabError
from lab.load.log import OUTCOMES
from lab.quota import Throttling
from lab.study.plan import EVENTS, LAG, LATENCY, SERVICE, Condition, Event, Trial
from lab.study.stability import Noise

if TYPE_CHECKING:
    from lab.load.attack import Progress
    from lab.servers import Server


class Measured(Protocol):
    """What an attack gives, as `lab.load` makes it.

    With `events` (plan.EVENTS), they are kept too; so is the `throttling` of its server by a quota.
    """

    @property
    def requests(self) -> pd.DataFrame: ...
    @property
    def summary(self) -> Mapping[str, Any]: ...


Execute = Callable[[Condition, int], Measured]
"""Carries out one trial, from a fresh server to the proof that it is gone; the number seeds its arrivals."""


def serve_and_attack(condition: Condition, seed: int) -> Measured:
    """Start the condition's server, warm it up, attack it, and stop it whatever happens."""
    # The attack is over once every request has ended: no client waits for an answer while the server stops.
    with fresh_server(condition, drain_s=0) as server:
        before, spent_s = server.throttling(), server.cpu_s()
        result = offer(server, condition, seed)
        after, spent_s = server.throttling(), server.cpu_s() - spent_s
    throttling = None if before is None or after is None else after.since(before)
    return Attacked(result.requests, {**result.summary, "server_cpu_s": spent_s}, throttling)


@dataclass(frozen=True)
class Attacked:
    """What an attack gave, what a quota did to its server meanwhile, and what else was done (plan.EVENTS)."""

    requests: pd.DataFrame
    summary: Mapping[str, Any]
    throttling: Throttling | None = None
    events: pd.DataFrame | None = None


@contextmanager
def fresh_server(condition: Condition, **options: Any) -> Iterator["Server"]:
    """Start the condition's server, warm it up, and stop it at the end. `options` are those of `serve`."""
    with _started(condition, options) as server:
        _warm_up(server.url + condition.path, condition.warmup * condition.workers, condition.timeout_s)
        yield server


def _started(condition: Condition, options: Mapping[str, Any]) -> "Server":
    from lab.servers import peers, serve

    loop: dict[str, Any] = {"kernel": condition.kernel, "iterations": condition.iterations}
    if condition.peer:
        peer = peers.start(condition.peer, workers=condition.workers, **loop, **options)
        return cast("Server", peer)  # it has all that a trial asks of one
    return serve(
        topology=condition.topology,
        workers=condition.workers,
        dispatch=condition.dispatch,
        bound=condition.bound,
        pool=condition.pool,
        keepalive=None if condition.keepalive else False,  # None: kept, where the dispatch allows it
        pin=condition.pin,
        quota_cpus=condition.quota_cpus,
        **loop,
        **options,
    )


def offer(
    server: "Server", condition: Condition, seed: int, on_progress: "Callable[[Progress], None] | None" = None
) -> Measured:
    """Offer the condition's load to its server, with as many generators as its rate needs."""
    from lab.load.attack import attack
    from lab.load.generators import generators_for

    result: Measured = attack(
        server.url + condition.path,
        rate=condition.offered_rps,
        duration=condition.duration_s,
        arrivals=condition.arrivals,
        timeout=condition.timeout_s,
        keepalive=condition.keepalive,
        generators=generators_for(condition.offered_rps, keepalive=condition.keepalive),
        seed=seed,
        on_progress=on_progress,
    )
    return result


def _warm_up(url: str, count: int, timeout_s: float) -> None:
    """Send requests, each on its own connection, so that dispatch takes turns; at once, one for each CPU."""
    import requests

    def send(_: int) -> None:
        with requests.Session() as session:
            session.trust_env = False  # no proxy from the environment between us and loopback
            session.get(url, timeout=timeout_s, headers={"Connection": "close"}).raise_for_status()

    with ThreadPoolExecutor(available_cpus()) as senders:
        try:
            list(senders.map(send, range(count)))
        except requests.RequestException as error:
            raise LabError(f"the server did not answer its warm-up: {error}") from error


def make_row(
    trial: Trial,
    summary: Mapping[str, Any],
    noise: Noise,
    started_at: datetime,
    throttling: Throttling | None = None,
) -> dict[str, Any]:
    """Flatten a trial into its row.

    The row is flagged as invalid, never dropped, if the generator reports that it was unhealthy, or if the
    machine was disturbed.
    """
    flags = [*summary["flags"], *(flag.to_dict() for flag in noise.flags())]
    workers = summary["workers"]
    answered = sum(workers.values())
    return {
        "trial_id": trial.trial_id,
        "experiment": trial.experiment,
        "block": trial.block,
        "position": trial.position,
        "seed": trial.seed,
        "started_at": started_at,
        **trial.condition.factors(),
        "planned": summary["planned"],
        "sent": summary["sent"],
        **{outcome: summary["outcomes"].get(outcome, 0) for outcome in OUTCOMES},
        "success": summary["success"],
        "throughput_rps": summary["throughput"],
        **_flat("latency", summary["latency_s"], LATENCY),
        **_flat("latency_ok", summary["latency_ok_s"], LATENCY),
        **_flat("service", summary["service_s"], SERVICE),
        **_flat("service_cpu", summary["service_cpu_s"], SERVICE),
        **_flat("send_lag", summary["send_lag_s"], LAG),
        "workers_seen": len(workers),
        "worker_max_share": max(workers.values()) / answered if answered else None,
        "server_cpu_s": summary.get("server_cpu_s"),
        "generators": summary["generator"].get("processes"),
        "generator_cpu_s": summary["generator"]["cpu_s"],
        "cpu_periods": throttling and throttling.periods,
        "cpu_periods_throttled": throttling and throttling.throttled,
        "cpu_throttled_s": throttling and throttling.throttled_s,
        "steal": noise.steal,
        "others_cpu": noise.others_cpu,
        "cpu_pressure": noise.cpu_pressure,
        "load1": noise.load1,
        "valid": not flags,
        "flags": flags,
    }


def _flat(
    prefix: str, statistics: Mapping[str, float | None], names: tuple[str, ...]
) -> dict[str, float | None]:
    return {f"{prefix}_{name}_s": statistics.get(name) for name in names}


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


def with_actions(actions: Actions) -> Execute:
    """Return a function that carries out a trial and, during the attack, its condition's actions.

    An attack reports its time 0 only after a second: the first action is then.
    """

    def execute(condition: Condition, seed: int) -> Attacked:
        with fresh_server(condition) as server, _Watch(server, condition, actions) as watch:
            result = offer(server, condition, seed, watch.hear)
            watch.finish()
        return Attacked(result.requests, result.summary, events=watch.events())

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
