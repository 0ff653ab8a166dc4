"""The servers of notebook 07: what starts each, and a first look at it before any trial.

The look tells whether it starts, how large it is, how fast its loop is, and who gets kept connections.
"""

import contextlib
import http.client
import math
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import psutil

from lab.errors import LabError
from lab.models.statistics import busiest_by_chance
from lab.servers import peers
from lab.servers.spec import DISPATCHES
from lab.study.plan import Condition
from lab.study.stability import measured_loop_s
from lab.study.trial import fresh_server

if TYPE_CHECKING:
    from lab.servers import Server

Ours = Literal["least-busy", "least-busy, bound 2", "round-robin", "shared", "reuseport", "offload"]

ALONE, OFFLOAD, BOUND_2 = "one process", "offload", "least-busy, bound 2"

PEERS = {one.name: one for one in peers.PEERS}

_ACCEPT = "workers that accept by themselves save the hop through a supervisor in each request"
_AT_HAND = "event loops that take all that waits have the next request at hand once they have answered one"
_BESIDE = (
    "processes of a pool have their next loop at hand, and HTTP is beside them:"
    " where all CPUs compute, it makes loops take longer instead of leaving processes idle"
)
_COMPILED = "HTTP is read and written in compiled code"

SAVES = {
    **dict.fromkeys(("gunicorn-sync", "gunicorn-gthread", "least-busy"), (_ACCEPT,)),
    **dict.fromkeys(("gunicorn-aiohttp", "uvicorn", "hypercorn"), (_ACCEPT, _AT_HAND)),
    **dict.fromkeys(("node-cluster-shared", "shared", "reuseport"), (_ACCEPT, _AT_HAND)),
    "granian": (_ACCEPT, _AT_HAND, _COMPILED),
    OFFLOAD: (_BESIDE,),
}
"""Why servers may be nearer to the ideal than others: what they save beside the loop."""


def is_ours(server: str) -> bool:
    """Say whether a server is one of this project's own."""
    return server not in PEERS


def label(server: str) -> str:
    """Return what figures and tables call a server."""
    if server in PEERS:
        return PEERS[server].label
    return server if server == ALONE else f"ours, {server}"


def factors(server: str, workers: int) -> dict[str, Any]:
    """Return the factors that make a condition's server this one."""
    if server in PEERS:
        one = PEERS[server]
        workers = 1 if one.one_process else workers
        topology = {"topology": "cluster" if workers > 1 else "single", "workers": workers, "peer": server}
        return topology | ({"kernel": "python"} if one.family == "Node" else {})  # it has only its own
    if server in DISPATCHES:
        return {"topology": "cluster", "workers": workers, "dispatch": server}
    if server == BOUND_2:
        return {"topology": "cluster", "workers": workers, "dispatch": "least-busy", "bound": 2}
    if server == OFFLOAD:
        return {"topology": "offload", "workers": workers}
    return {"topology": "single", "workers": 1}


class ServerError(LabError):
    """The `server` of that name did not start, or failed while it was looked at or measured."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(reason)
        self.server = server


@contextmanager
def blamed_on(server: str) -> Iterator[None]:
    """Raise any LabError as that of this server, so that the others can go on."""
    try:
        yield
    except LabError as error:
        raise ServerError(server, str(error)) from error


_CPU_MS = re.compile(r"(\w+);dur=([0-9.]+)")
_COINS = (0.5, 0.95)
"""What is kept of the busiest worker's share by fair coins: the median, and what is exceeded 1 time in 20."""

KEPT = ("few", "many")
"""How many connections are kept; columns of a look begin with these names."""

COLUMNS = (
    "server", "ready_s", "listeners", "pss_bytes", "speed",
    *(f"{kept}_{what}" for kept in KEPT for what in ("connections", "busiest", "coins", "coins_most")),
)  # fmt: skip


@dataclass(frozen=True)
class _Answer:
    """Who answered, and the CPU seconds that the loop took there; nan if it does not say."""

    worker: int
    cpu_s: float


@dataclass
class _Kept:
    """A connection that a client keeps, as far as the server lets it; what was answered on it."""

    host: str
    port: int
    path: str
    timeout_s: float
    answers: list[_Answer] = field(default_factory=list)

    def ask(self, times: int) -> None:
        """Send so many requests, each when the one before is answered. Raises LabError if one is not."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout_s)
        with contextlib.closing(connection):
            for _ in range(times):
                try:
                    connection.request("GET", self.path)
                    response = connection.getresponse()
                    response.read()
                except (OSError, http.client.HTTPException) as error:
                    raise LabError(f"a kept connection failed: {type(error).__name__}") from None
                if response.status != 200:
                    raise LabError(f"a kept connection was answered with status {response.status}")
                took_ms = dict(_CPU_MS.findall(response.getheader("Server-Timing") or ""))
                cpu_ms = float(took_ms.get("cpu") or took_ms.get("loop") or math.nan)
                worker = int(response.getheader("X-Worker") or 0)
                self.answers.append(_Answer(worker, cpu_ms / 1000))


def look(server: str, condition: Condition, connections: Sequence[int], answers: int) -> pd.DataFrame:
    """Start the condition's server once, ask it on few and on many kept connections, and return a row.

    ready_s: from its start to the first answer of the loop. listeners: sockets that listen on its port.
    pss_bytes: memory of all its processes over its workers, shared pages divided among those that share them.
    speed: the CPU time of this machine's Python loop, timed just before, over that of the server's own loop.
    For `few` and `many`: how many connections; the busiest worker's answers over its fair share; and what
    fair coins give of that, if each connection stays with a worker, in the median and once in twenty times.

    Raises ServerError if it does not start, or does not answer.
    """
    loop_s = measured_loop_s(condition.kernel, condition.iterations)
    with blamed_on(server):
        found = _looked(condition, loop_s, connections, answers)
    return pd.DataFrame([{"server": server} | found], columns=list(COLUMNS))


def _looked(condition: Condition, loop_s: float, connections: Sequence[int], answers: int) -> dict[str, Any]:
    began_s = time.monotonic()
    with fresh_server(condition) as server:
        row: dict[str, Any] = {"ready_s": time.monotonic() - began_s, "listeners": server.listeners()}
        seen: list[_Answer] = []
        for kept, count in zip(KEPT, connections, strict=True):
            asked = _asked(server, condition, count, max(1, math.ceil(answers / count)))
            seen += [answer for one in asked for answer in one.answers]
            row |= {f"{kept}_{name}": value for name, value in _shared(asked, condition.workers).items()}
        row["pss_bytes"] = _pss_bytes(server) / condition.workers
    row["speed"] = loop_s / float(np.median([answer.cpu_s for answer in seen]))
    return row


def _asked(server: "Server", condition: Condition, connections: int, times: int) -> list[_Kept]:
    at = urlsplit(server.url)
    asked = [
        _Kept(str(at.hostname), at.port or 80, condition.path, condition.timeout_s)
        for _ in range(connections)
    ]
    with ThreadPoolExecutor(connections) as clients:
        list(clients.map(lambda one: one.ask(times), asked))
    return asked


def _shared(asked: Sequence[_Kept], workers: int) -> dict[str, float]:
    counts = pd.Series([answer.worker for one in asked for answer in one.answers]).value_counts()
    sizes = [len(one.answers) for one in asked]
    usual, most = np.quantile(workers * busiest_by_chance(sizes, workers), _COINS)
    busiest = workers * float(counts.max()) / float(counts.sum())
    return {"connections": len(asked), "busiest": busiest, "coins": usual, "coins_most": most}


def _pss_bytes(server: "Server") -> float:
    """Add up the proportional memory of a server's processes; nan where the system does not tell."""
    try:
        return float(sum(one.memory_full_info().pss for one in processes_of(server)))
    except (psutil.Error, AttributeError):
        return math.nan


def processes_of(server: "Server") -> list[psutil.Process]:
    """Return all processes of a server, ours or a peer."""
    if hasattr(server, "processes"):
        found: list[psutil.Process] = server.processes()
        return found
    first = psutil.Process(server.pid)
    return [first, *first.children(recursive=True)]
