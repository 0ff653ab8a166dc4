"""Memory per worker: fresh, and after so many requests; and how many workers the memory here has room for."""

import sys
from functools import partial

import pandas as pd

from lab.errors import LabError
from lab.experiments.common import resolve
from lab.experiments.folk_rules.rules import (
    MATTERS,
    Parameters,
    Ruling,
    exceeds,
    nothing,
    times,
    verdict,
    written,
)
from lab.experiments.folk_rules.trials import IN_TURN
from lab.experiments.other_servers.analysis import estimated
from lab.machine import available_memory
from lab.models.statistics import Estimate, paired_ratio
from lab.servers.foreign import ForeignServer, ForeignSpec
from lab.study.advice import memory as amount
from lab.study.run import Run, table_name
from lab.study.watched import Watched
from lab.units import counted

RATE_RPS = 5000.0
"""As many as a few workers can answer of loops so short, on connections that clients keep."""

KEPT = "starts-of-workers"
"""The table in which a run keeps the looks that the notebook last showed."""

_AT_ONCE = 16
"""No more are sent before others are answered: a queue would take memory, too."""

_ITERATIONS = 100
_DRAIN_S = 3.0


def measure(run: Run, p: Parameters) -> pd.DataFrame:
    """Start the server as many times as there are blocks; a row for each, by `look`."""
    if not p.asks("memory"):
        return pd.DataFrame()
    n = resolve(p.workers)
    looks = [
        run.table(
            table_name("memory", n, p.requests, number),
            partial(look, n, p.requests, p.seed + number),
        )
        for number in range(p.blocks)
    ]
    found = pd.concat(looks, ignore_index=True)
    run.keep(KEPT, found)
    return found


def look(workers: int, requests: int, seed: int = 0) -> pd.DataFrame:
    """Start our server, weigh its largest worker, have it answer so many requests, and weigh that again.

    fresh_bytes, after_bytes: proportional set sizes, in which a page that several share counts once in all.
    answered: how many were answered well. free_bytes: what was free for it all.
    """
    command = (
        sys.executable, "-P", "-m", "lab", "serve", "--topology", "cluster", "--dispatch", IN_TURN,
        "--workers", "{workers}", "--host", "{host}", "--port", "{port}", "--iterations", str(_ITERATIONS),
    )  # fmt: skip
    free_bytes = available_memory()
    options = {"keepalive": True, "generators": 1, "in_flight": _AT_ONCE, "seed": seed}
    with ForeignServer(ForeignSpec(command=command, workers=workers, drain_s=_DRAIN_S)) as server:
        watched = Watched(f"{server.url}/api/slow", server, options)
        fresh = watched.pss_bytes()
        answered = watched.offer(RATE_RPS, requests / RATE_RPS, 0).summary["ok"]
        after = watched.pss_bytes()
    if not fresh or not after:
        raise LabError("this system does not tell how much memory a process has to itself")
    row = {
        "fresh_bytes": max(fresh),
        "after_bytes": max(after),
        "answered": answered,
        "free_bytes": free_bytes,
    }
    return pd.DataFrame([row], dtype=float)


def after(looks: pd.DataFrame) -> Estimate | None:
    """Return the memory of the largest worker after its requests, in bytes; None if it was not measured."""
    return estimated(looks["after_bytes"]) if len(looks) else None


def ruling(looks: pd.DataFrame) -> Ruling:
    """Judge whether workers grow: the largest one afterwards, over the largest one before."""
    if looks.empty:
        return nothing("memory")
    growth = paired_ratio(list(looks["after_bytes"]), list(looks["fresh_bytes"]))
    told = (
        f"A worker takes {written(estimated(looks['fresh_bytes']), amount)} at first; once its server"
        f" has answered {looks['answered'].median():,.0f} requests, it is {times(growth)} as large."
    )
    return Ruling("memory", _by_starts(told), verdict("memory", [exceeds(growth, MATTERS)], told))


def _by_starts(text: str) -> str:
    """Name what was repeated: not blocks of trials, but starts of a server."""
    return text.replace("block", "start")


def table(looks: pd.DataFrame, n: int) -> pd.DataFrame:
    """Tabulate the memory of a worker, fresh and afterwards, and how many the free memory has room for."""
    if looks.empty:
        return pd.DataFrame({"": ["not measured"]})
    room = (looks["free_bytes"] / looks["after_bytes"]).median()
    rows = {
        f"the largest of {counted(n, 'worker')}, fresh": written(estimated(looks["fresh_bytes"]), amount),
        f"after {looks['answered'].median():,.0f} requests": written(estimated(looks["after_bytes"]), amount),
        "workers of this size that the free memory has room for": f"{room:,.0f}",
        "starts": f"{len(looks)}",
    }
    return pd.DataFrame({"": rows.keys(), "memory (PSS)": [_by_starts(str(cell)) for cell in rows.values()]})
