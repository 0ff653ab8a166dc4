"""What is done to a server under a calm load, and what that costs: slow requests, a reload, a kill."""

import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from lab.experiments.failures import trials as failures
from lab.experiments.failures.trials import BLOCK, KILL, blocked_by_one, ended
from lab.study.plan import Condition
from lab.study.trial import Action, LeftS, with_actions

if TYPE_CHECKING:
    from lab.servers import Server

ACTIONS = "actions"
"""What such a trial is for: the `part` of its condition."""

RELOAD = "reload"
"""All workers are replaced, as the server itself offers it."""

KINDS = (BLOCK, RELOAD, KILL)
"""What may be done to a server, in this order."""

SLOW_REQUESTS = 4
"""How many of these are sent, one after the other."""

_REST_S = 0.1
_ROOM_S = 0.5
"""How much of the load must be left for an action to begin, so that requests meet it."""


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
