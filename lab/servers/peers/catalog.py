"""The peers: how each is called, what it needs to run here, and how it is started and reloaded."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lab.processes import start_program
from lab.programs import Distribution, NodePackages, Origin, SystemPackage, find
from lab.servers.peers.server import PeerServer
from lab.servers.sockets import BACKLOG

Family = Literal["Python", "Node", "balancer"]

SOURCES = Path(__file__).parent / "sources"

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
    origin: Origin = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    reload: Callable[[PeerServer], None] | None = field(default=None, repr=False)
    balance: str = ""
    """How a balancer chooses, in the words of its configuration."""
    config: str = ""
    """The file in `SOURCES` with the configuration of a balancer."""
    one_process: bool = False
    """Whether it has no workers beside itself."""
    supervised_from: int = 1
    """With how many workers it has a process that supervises them: with fewer, it cannot reload."""

    @property
    def missing(self) -> str | None:
        """The command that brings what it lacks here; None if it can run."""
        return self.origin.missing()

    @property
    def version(self) -> str:
        """The version of what runs here, and of what it is made with."""
        return self.origin.version()

    @property
    def reloads(self) -> bool:
        """Whether it can replace its workers."""
        return self.reload is not None


_WHERE = ("--host", "{host}", "--port", "{port}", "--workers", "{workers}", "--backlog", _QUEUE)
_EXPRESS = NodePackages(("express",))
_PRODUCTION = {"NODE_ENV": "production"}


def _hang_up(server: PeerServer) -> None:
    server.send_signal(signal.SIGHUP)


def _user_signal(server: PeerServer) -> None:
    server.send_signal(signal.SIGUSR2)


def _node_cluster(name: str, label: str, policy: str) -> Peer:
    command = ("node", str(SOURCES / "cluster.mjs"))
    environment = {**_PRODUCTION, "NODE_CLUSTER_SCHED_POLICY": policy}
    return Peer(name, label, "Node", command, _EXPRESS, environment, reload=_hang_up)


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command of a module that imports nothing from the folder where it runs."""
    return (sys.executable, "-P", "-m", module, *arguments)


def _gunicorn(name: str, label: str, app: str, *arguments: str) -> Peer:
    conf = str(SOURCES / "gunicorn_conf.py")
    where = ("-b", "{host}:{port}", "-w", "{workers}", "--backlog", _QUEUE)
    command = _python("gunicorn", "-c", conf, *where, *arguments, app)
    return Peer(name, label, "Python", command, Distribution("gunicorn"), reload=_hang_up)


def _pm2_reload(server: PeerServer) -> None:
    command = [find("pm2") or "pm2", "reload", "all"]
    environment = {**os.environ, **server.spec.environment}
    with server.log_path.open("ab") as log:
        running = start_program(command, cwd=server.folder, stdout=log, stderr=log, env=environment)
        with running, contextlib.suppress(TimeoutError):
            running.wait(server.spec.start_timeout_s)


def _nginx(name: str, label: str, balance: str) -> Peer:
    command, origin = ("nginx", "-e", "stderr", "-p", ".", "-c", "nginx.conf"), SystemPackage("nginx")
    return Peer(
        name, label, "balancer", command, origin, reload=_hang_up, balance=balance, config="nginx.conf"
    )  # fmt: skip


PEERS = (
    Peer(
        "node", "Node", "Node", ("node", str(SOURCES / "server.mjs")), _EXPRESS, _PRODUCTION,
        one_process=True,
    ),
    _node_cluster("node-cluster", "Node, cluster", "rr"),
    _node_cluster("node-cluster-shared", "Node, cluster, shared socket", "none"),
    _gunicorn("gunicorn-sync", "gunicorn, sync", "article:wsgi"),
    _gunicorn("gunicorn-gthread", "gunicorn, threads", "article:wsgi", "-k", "gthread", "--threads=4"),
    _gunicorn(
        "gunicorn-aiohttp", "gunicorn, aiohttp", "article_aiohttp:app", "-k", "aiohttp.GunicornWebWorker"
    ),
    Peer(
        "pm2", "PM2, cluster mode", "Node",
        ("pm2-runtime", "start", str(SOURCES / "pm2.config.cjs"), "--no-auto-exit"),
        NodePackages(("express", "pm2")),
        {**_PRODUCTION, "PM2_DISABLE_VERSION_CHECK": "true", "NODE_CLUSTER_SCHED_POLICY": "rr"},
        reload=_pm2_reload,
    ),
    Peer(
        "uvicorn", "uvicorn", "Python",
        _python("uvicorn", *_WHERE, "--no-access-log", "article:asgi"),
        Distribution("uvicorn"), reload=_hang_up, supervised_from=2,
    ),
    Peer(
        "granian", "granian", "Python",
        _python("granian", *_WHERE, "--interface", "asgi", "--respawn-failed-workers", "article:asgi"),
        Distribution("granian"), reload=_hang_up,
    ),
    Peer(
        "hypercorn", "hypercorn", "Python",
        _python("hypercorn", "-b", "{host}:{port}", "-w", "{workers}", "--backlog", _QUEUE, "article:asgi"),
        Distribution("hypercorn"), reload=_hang_up,
    ),
    _nginx("nginx-round-robin", "nginx, round robin", ""),
    _nginx("nginx-least-conn", "nginx, least connections", "least_conn;"),
    _nginx("nginx-random-two", "nginx, best of random two", "random two least_conn;"),
    Peer(
        "haproxy", "haproxy, one request each", "balancer", ("haproxy", "-W", "-f", "haproxy.cfg"),
        SystemPackage("haproxy"), reload=_user_signal, balance="leastconn", config="haproxy.cfg",
    ),
)  # fmt: skip
