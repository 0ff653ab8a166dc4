"""What is measured of each server: overload, random arrivals, its loops, and what is done to it.

Every load is a multiple of what the server's own loops allow. Those of a faster language have as many more
steps, so that what a request costs beside its loop weighs alike.
"""

import itertools
import signal
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field

from lab.checks import Count, Seconds, Whole
from lab.errors import LabError
from lab.experiments.common import Iterations, Workers, resolve
from lab.experiments.dispatch.trials import Utilisation
from lab.experiments.failures import trials as failures
from lab.experiments.failures.trials import BLOCK, KILL, blocked_by_one, ended
from lab.experiments.other_servers.servers import (
    ALONE,
    OFFLOAD,
    PEERS,
    Ours,
    ServerError,
    blamed_on,
    factors,
    is_ours,
    look,
)
from lab.hotloop import MOST_TIMES, KernelName, SummingName
from lab.servers.peers import peer
from lab.study.parameters import ListOf, RunToAddTo
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition
from lab.study.run import Run, table_name
from lab.study.trial import Action, Execute, LeftS, Measured, serve_and_attack, with_actions

if TYPE_CHECKING:
    from lab.servers import Server

EXPERIMENT = "other-servers"

OVERLOAD, TAIL, KERNELS, ACTIONS = "overload", "tail", "kernels", "actions"
"""What a trial is for: the `part` of its condition."""

OVERLOADED, CALM = 1.4, 0.3
"""Times what its own loops allow: to see what is left of that, and while something is done to a server."""

ONE_OF_NODE, ALL_OF_NODE = "node", "node-cluster"

RELOAD = "reload"
"""All workers are replaced, as the server itself offers it."""

KINDS = (BLOCK, RELOAD, KILL)
"""What may be done to a server, in this order."""

SLOW_REQUESTS = 3
"""How many of these are sent, one after the other."""

_REST_S = 0.1
_ROOM_S = 0.5
"""How much of the load must be left for an action to begin, so that requests meet it."""


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        peer(name)
    return names


class Parameters(_Parameters):
    """What notebook 07 lets its reader set; without names in `peers`, all that are here are measured."""

    run: RunToAddTo
    ours: Annotated[ListOf[Ours], Field(min_length=1)]
    peers: Annotated[ListOf[str], AfterValidator(_known)]
    workers: Workers
    overload_s: Seconds
    load: Utilisation
    tail_s: Seconds
    kept: Annotated[ListOf[Count], Field(min_length=2, max_length=2)]
    answers: Count
    looks: Count
    events: ListOf[Literal["block", "reload", "kill"]]
    events_s: Seconds
    blocking: Annotated[Count, Field(le=MOST_TIMES)]
    kernels: ListOf[SummingName]
    kernel: KernelName
    iterations: Iterations
    timeout_s: Seconds
    blocks: Count
    other_blocks: Whole
    seed: Whole


def asked(p: Parameters) -> list[str]:
    """Name the servers that are asked for, ours first; of the peers, here or not."""
    return [*dict.fromkeys(p.ours), *(dict.fromkeys(p.peers) or PEERS)]


def wanted(p: Parameters) -> list[str]:
    """Name the servers to measure: of those that are asked for, the ones that are here."""
    return [server for server in asked(p) if is_ours(server) or PEERS[server].missing is None]


Failed = dict[str, str]
"""What went wrong with a server, by its name."""


def looked(run: Run, p: Parameters) -> tuple[pd.DataFrame, Failed]:
    """Look at every server `looks` times, in turns: a row for each look (`looks.look`), and who failed.

    Raises LabError if none can be looked at.
    """
    rows, failed = [], Failed()
    for number, server in itertools.product(range(1, p.looks + 1), wanted(p)):
        condition = Condition(
            rate=1.0, duration_s=1.0, keepalive=True,
            **(_common(p) | factors(server, resolve(p.workers))),
        )  # fmt: skip
        name = table_name("look", server, number, condition, p.kept, p.answers)
        try:
            rows.append(run.table(name, partial(look, server, condition, p.kept, p.answers)))
        except ServerError as error:
            failed[server] = str(error)
    looks = _concatenated(rows, failed)
    return looks[~looks["server"].isin(list(failed))], failed


def _concatenated(tables: list[pd.DataFrame], failed: Failed) -> pd.DataFrame:
    if not tables:
        server, reason = next(iter(failed.items()))
        raise LabError(f"no server could be measured; {server}: {reason}")
    return pd.concat(tables, ignore_index=True)


def speeds(looks: pd.DataFrame) -> dict[str, float]:
    """Return how many times as fast as the Python loop each server's own is."""
    found = looks.groupby("server", sort=False)["speed"].median().round(2)
    return {str(server): float(speed) for server, speed in found.items()}


def by_blocks(p: Parameters, speed: Mapping[str, float]) -> list[tuple[int, Execute, list[Condition]]]:
    """Return the conditions with the number of blocks to measure them in, and what carries them out."""
    groups: list[tuple[int, Execute, list[Condition]]] = [
        (p.blocks, serve_and_attack, [*_loads(p, speed), *_kernels(p, speed)]),
        (p.other_blocks, EXECUTE, list(_acted_on(p, speed))),
    ]
    return [group for group in groups if group[0] and group[2]]


def _loads(p: Parameters, speed: Mapping[str, float]) -> Iterator[Condition]:
    for server in speed:
        yield _condition(p, server, OVERLOAD, speed, OVERLOADED, duration_s=p.overload_s)
        yield _condition(p, server, TAIL, speed, p.load, duration_s=p.tail_s, arrivals="poisson")


def _kernels(p: Parameters, speed: Mapping[str, float]) -> Iterator[Condition]:
    """Overload each loop in one process and in several; here, all have as many steps."""
    for kernel, server in itertools.product(dict.fromkeys(p.kernels), (ALONE, p.ours[0])):
        if (kernel, server) != (p.kernel, p.ours[0]):
            yield _condition(p, server, KERNELS, {}, OVERLOADED, duration_s=p.overload_s, kernel=kernel)
    for server in (ONE_OF_NODE, ALL_OF_NODE) if p.kernels else ():
        if server in speed:
            yield _condition(
                p, server, KERNELS, speed, OVERLOADED, duration_s=p.overload_s, iterations=p.iterations
            )


def _acted_on(p: Parameters, speed: Mapping[str, float]) -> Iterator[Condition]:
    for server in speed:
        if turns := [kind for kind in KINDS if kind in p.events and _takes(server, kind)]:
            yield _condition(
                p, server, ACTIONS, speed, CALM, duration_s=p.events_s,
                labels={"turns": " ".join(turns), "blocking": p.blocking},
            )  # fmt: skip


def _takes(server: str, kind: str) -> bool:
    """Say whether this can be done to a server: some cannot reload, and one process is never replaced."""
    if is_ours(server):
        return kind != RELOAD or server != OFFLOAD
    return PEERS[server].reloads if kind == RELOAD else kind != KILL or not PEERS[server].one_process


def actions(condition: Condition, server: "Server", left_s: LeftS) -> Iterator[Action]:
    """Yield the slow requests, one after the other, then a reload, then a kill, while the load lasts."""
    for kind in str(condition.labels["turns"]).split():
        for _ in range(SLOW_REQUESTS if kind == BLOCK else 1):
            time.sleep(_REST_S)
            if left_s() < _ROOM_S:
                return
            if kind == BLOCK:
                yield Action(kind, partial(blocked_by_one, condition))
            elif kind == RELOAD:
                yield Action(kind, lambda server: server.recycle())
            elif workers := server.workers:
                yield Action(kind, partial(ended, workers[-1], signal.SIGKILL))


EXECUTE = with_actions(actions)
"""Carries out a trial in which something is done to the server."""


def _condition(
    p: Parameters,
    server: str,
    part: str,
    speed: Mapping[str, float],
    aimed: float,
    labels: Mapping[str, Any] | None = None,
    **more: Any,
) -> Condition:
    """Plan a load by the server's own loop: one of another language is faster than Python's, and longer."""
    as_long = {"iterations": round(int(p.iterations) * _of_its_language(server, speed))}
    return Condition(
        load=round(aimed * speed.get(server, 1.0), 3),
        labels={"server": server, "part": part, "aimed": aimed} | dict(labels or {}),
        **(_common(p) | as_long | factors(server, resolve(p.workers)) | more),
    )


def _of_its_language(server: str, speed: Mapping[str, float]) -> float:
    """Return how many times as fast as Python the language of a server runs its loop."""
    if not _is_node(server):
        return 1.0
    return float(np.median([found for name, found in speed.items() if _is_node(name)] or [1.0]))


def _is_node(server: str) -> bool:
    return server in PEERS and PEERS[server].family == "Node"


def _common(p: Parameters) -> dict[str, Any]:
    return {"kernel": p.kernel, "iterations": p.iterations, "timeout_s": p.timeout_s}


def measure(run: Run, p: Parameters, looks: pd.DataFrame) -> tuple[pd.DataFrame, Failed]:
    """Measure the servers that were looked at, in blocks: a row per trial, and who failed.

    A trial in which a server fails is repeated; if it fails again, it is left out from then on. Raises
    LabError if that leaves none.
    """
    tables, failed, left_out = [], Failed(), set[str]()
    for blocks, execute, planned in by_blocks(p, speeds(looks)):
        while mine := [one for one in planned if one.labels["server"] not in left_out]:
            try:
                found = run.measure(EXPERIMENT, mine, blocks=blocks, seed=p.seed, execute=_blaming(execute))
            except ServerError as error:
                if error.server in failed:
                    left_out.add(error.server)
                repeated = "" if error.server in failed else "one trial was repeated: "
                failed[error.server] = f"{repeated}{error}"
            else:
                tables.append(found)
                break
    return _concatenated(tables, failed), failed


def _blaming(execute: Execute) -> Execute:
    def blaming(condition: Condition, seed: int) -> Measured:
        with blamed_on(str(condition.labels["server"])):
            return execute(condition, seed)

    return blaming


_KEPT = ["trial_id", "block", "kind", "took_s", "detail", "lost", "due", "waited"]


def events(trials: pd.DataFrame, requests: pd.DataFrame, noted: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each thing that was done to a server, its `server` in front.

    The other columns are those of `failures.trials.events`: took_s until it was over, nan if it did not end
    as it should; lost, the requests that it cost; of those due meanwhile, how many waited for the worker with
    the slow request.
    """
    acted_on = trials[trials["part"] == ACTIONS].assign(place=0)
    done = failures.events(acted_on, requests, noted).reindex(columns=_KEPT)
    server_of = acted_on.set_index("trial_id")["server"]
    done.insert(0, "server", done["trial_id"].map(server_of))
    return done[done["kind"] != failures.CALM]
