"""The peers: how each is called, what it needs to run here, and how it is started and reloaded."""

import importlib.metadata
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lab.servers.peers.server import PeerServer
from lab.servers.sockets import BACKLOG

Family = Literal["Python", "Node", "balancer"]

SOURCES = Path(__file__).parent / "sources"

_PIP = "pip install 'scaling-lab[peers]'"
_QUEUE = str(BACKLOG)
"""Overload must queue, as it does with ours; their own limits are lower, down to 100 (hypercorn)."""


@dataclass(frozen=True)
class Peer:
    """A server that we did not write.

    name: as in commands; label: for people. family: in which language its workers run the loop, or `balancer`
    before single processes of ours.
    """

    name: str
    label: str
    family: Family
    command: tuple[str, ...] = field(repr=False)
    needs: Callable[[], str | None] = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    reload: Callable[[PeerServer], None] | None = field(default=None, repr=False)
    supervised_from: int = 1
    """With how many workers it has a process that supervises them: with fewer, it cannot reload."""

    @property
    def missing(self) -> str | None:
        """The command that brings what it lacks here; None if it can run."""
        return self.needs()

    @property
    def reloads(self) -> bool:
        """Whether it can replace its workers."""
        return self.reload is not None


def _hang_up(server: PeerServer) -> None:
    server.send_signal(signal.SIGHUP)


def _distribution(name: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return _PIP
        return None

    return missing


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command of a module that imports nothing from the folder where it runs."""
    return (sys.executable, "-P", "-m", module, *arguments)


def _gunicorn(name: str, label: str, app: str, *arguments: str) -> Peer:
    conf = str(SOURCES / "gunicorn_conf.py")
    where = ("-b", "{host}:{port}", "-w", "{workers}", "--backlog", _QUEUE)
    command = _python("gunicorn", "-c", conf, *where, *arguments, app)
    return Peer(name, label, "Python", command, _distribution("gunicorn"), reload=_hang_up)


_WHERE = ("--host", "{host}", "--port", "{port}", "--workers", "{workers}", "--backlog", _QUEUE)

PEERS = (
    _gunicorn("gunicorn-sync", "gunicorn, sync", "article:wsgi"),
    _gunicorn("gunicorn-gthread", "gunicorn, threads", "article:wsgi", "-k", "gthread", "--threads=4"),
    _gunicorn(
        "gunicorn-aiohttp", "gunicorn, aiohttp", "article_aiohttp:app", "-k", "aiohttp.GunicornWebWorker"
    ),
    Peer(
        "uvicorn", "uvicorn", "Python",
        _python("uvicorn", *_WHERE, "--no-access-log", "article:asgi"),
        _distribution("uvicorn"), reload=_hang_up, supervised_from=2,
    ),
    Peer(
        "granian", "granian", "Python",
        _python("granian", *_WHERE, "--interface", "asgi", "--respawn-failed-workers", "article:asgi"),
        _distribution("granian"), reload=_hang_up,
    ),
    Peer(
        "hypercorn", "hypercorn", "Python",
        _python("hypercorn", "-b", "{host}:{port}", "-w", "{workers}", "--backlog", _QUEUE, "article:asgi"),
        _distribution("hypercorn"), reload=_hang_up,
    ),
)  # fmt: skip
