"""Memory per worker: fresh, warm, and after so many requests; and how many workers there is memory for."""

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
    lead,
    nothing,
    times,
    told,
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

WARM = 100
"""Requests after which a worker has what it takes once, such as imports and buffers."""

_ITERATIONS = 100
_DRAIN_S = 3.0


class UntoldError(LabError):
    """This system does not tell what a process takes."""


def measure(run: Run, p: Parameters) -> tuple[pd.DataFrame, str]:
    """Start the server as many times as there are blocks: a row for each, by `look`, or why there is none."""
    if not p.asks("memory"):
        return pd.DataFrame(), ""
    n = resolve(p.workers)
    try:
        looks = [
            run.table(
                table_name("memory", n, WARM, p.requests, number),
                partial(look, n, p.requests, p.seed + number),
            )
            for number in range(p.blocks)
        ]
    except UntoldError as error:
        return pd.DataFrame(), str(error)
    found = pd.concat(looks, ignore_index=True)
    run.keep(KEPT, found)
    return found, ""


def look(workers: int, requests: int, seed: int = 0) -> pd.DataFrame:
    """Start our server, and weigh its largest worker: fresh, after `WARM` requests, and after so many more.

    fresh_bytes, warm_bytes, after_bytes: proportional set sizes, in which a page that several share counts
    once in all. answered: how many were answered well. free_bytes: what was free for it all. Raises
    UntoldError where the system tells no such size.
    """
    command = (
        sys.executable, "-P", "-m", "lab", "serve", "--topology", "cluster", "--dispatch", IN_TURN,
        "--workers", "{workers}", "--host", "{host}", "--port", "{port}", "--iterations", str(_ITERATIONS),
    )  # fmt: skip
    free_bytes = available_memory()
    options = {"keepalive": True, "generators": 1, "in_flight": _AT_ONCE, "seed": seed}
    with ForeignServer(ForeignSpec(command=command, workers=workers, drain_s=_DRAIN_S)) as server:
        watched = Watched(f"{server.url}/api/slow", server, options)
        sizes, answered = [watched.pss_bytes()], 0
        for number, count in enumerate((WARM, requests)):
            answered += watched.offer(RATE_RPS, count / RATE_RPS, number).summary["ok"]
            sizes.append(watched.pss_bytes())
    if not all(sizes):
        raise UntoldError("this system does not tell how much memory a process has to itself")
    fresh, warm, after = map(max, sizes)
    row = {
        "fresh_bytes": fresh,
        "warm_bytes": warm,
        "after_bytes": after,
        "answered": answered,
        "free_bytes": free_bytes,
    }
    return pd.DataFrame([row], dtype=float)


def after(looks: pd.DataFrame) -> Estimate | None:
    """Return the memory of the largest worker after its requests, in bytes; None if it was not measured."""
    return estimated(looks["after_bytes"]) if len(looks) else None


def warmed(looks: pd.DataFrame) -> Estimate:
    """Return how many times as large the largest worker is when it is warm as when it was fresh."""
    return paired_ratio(list(looks["warm_bytes"]), list(looks["fresh_bytes"]))


def growth(looks: pd.DataFrame) -> Estimate:
    """Return how many times as large the largest worker is after its requests as when it was warm."""
    return paired_ratio(list(looks["after_bytes"]), list(looks["warm_bytes"]))


def ruling(looks: pd.DataFrame, why_not: str = "") -> Ruling:
    """Judge whether warm workers grow: the largest one afterwards, over the largest one when warm."""
    if looks.empty:
        return nothing("memory", why_not) if why_not else nothing("memory")
    warming, grown = warmed(looks), growth(looks)
    of = about(looks)
    fresh = told(estimated(looks["fresh_bytes"]), FRESH, amount)
    text = (
        f"A worker takes {fresh} at first, and {times(warming, WARMING)} as much once its server has answered"
        f" {WARM} requests. After {of['requests']:,}, it is {times(grown, GROWTH, **of)} as large as after"
        f" those {WARM}."
    )
    found = verdict("memory", [exceeds(grown, MATTERS)], text)
    return Ruling("memory", _by_starts(text), found, number=f"{lead(grown, GROWTH, **of)} times as large")


FRESH = "memory of the largest worker, fresh"
WARMING = "memory of the largest worker, warm, over that of a fresh one"
GROWTH = "memory of the largest worker, over that of a warm one"


def about(looks: pd.DataFrame) -> dict[str, int]:
    """Return after how many requests the largest worker was weighed."""
    return {"requests": int(looks["answered"].median())}


def _by_starts(text: str) -> str:
    """Name what was repeated: not blocks of trials, but starts of a server."""
    return text.replace("block", "start")


def table(looks: pd.DataFrame, n: int) -> pd.DataFrame:
    """Tabulate the memory of a worker, fresh, warm and afterwards, and how many there is room for."""
    if looks.empty:
        return pd.DataFrame({"": ["not measured"]})
    room = (looks["free_bytes"] / looks["after_bytes"]).median()
    rows = {
        f"the largest of {counted(n, 'worker')}, fresh": written(estimated(looks["fresh_bytes"]), amount),
        f"after {WARM} requests": written(estimated(looks["warm_bytes"]), amount),
        f"after {looks['answered'].median():,.0f} requests": written(estimated(looks["after_bytes"]), amount),
        "workers of this size that the free memory has room for": f"{room:,.0f}",
        "starts": f"{len(looks)}",
    }
    return pd.DataFrame({"": rows.keys(), "memory (PSS)": [_by_starts(str(cell)) for cell in rows.values()]})
