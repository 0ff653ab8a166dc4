"""The peers: how each is called, what it needs to run here, and how it is started and reloaded."""

import contextlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lab import files
from lab.processes import start_program
from lab.programs import find, node_modules
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
    balance: str = ""
    """How a balancer chooses, in the words of its configuration."""
    one_process: bool = False
    """Whether it has no workers beside itself."""
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


def _user_signal(server: PeerServer) -> None:
    server.send_signal(signal.SIGUSR2)


def _distribution(name: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return _PIP
        return None

    return missing


def _node(*packages: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        if find("node") is None or find("npm") is None:
            return "apt install nodejs npm"
        if all((node_modules() / package).is_dir() for package in packages):
            return None
        return "make node_modules/.ready" if files.checkout() else f"npm install {' '.join(packages)}"

    return missing


def _node_cluster(name: str, label: str, policy: str) -> Peer:
    command = ("node", str(SOURCES / "cluster.mjs"))
    environment = {**_ENVIRONMENT_OF_NODE, "NODE_CLUSTER_SCHED_POLICY": policy}
    return Peer(name, label, "Node", command, _node("express"), environment, reload=_hang_up)


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command of a module that imports nothing from the folder where it runs."""
    return (sys.executable, "-P", "-m", module, *arguments)


def _gunicorn(name: str, label: str, app: str, *arguments: str) -> Peer:
    conf = str(SOURCES / "gunicorn_conf.py")
    where = ("-b", "{host}:{port}", "-w", "{workers}", "--backlog", _QUEUE)
    command = _python("gunicorn", "-c", conf, *where, *arguments, app)
    return Peer(name, label, "Python", command, _distribution("gunicorn"), reload=_hang_up)


_WHERE = ("--host", "{host}", "--port", "{port}", "--workers", "{workers}", "--backlog", _QUEUE)

_PM2 = str(
    node_modules() / ".bin" / "pm2-runtime"
)  # in its own process it is the daemon, which is not left then


def _pm2_reload(server: PeerServer) -> None:
    command = [str(node_modules() / ".bin" / "pm2"), "reload", "all"]
    environment = {**os.environ, **server.spec.environment}
    with server.log_path.open("ab") as log:
        running = start_program(command, cwd=server.folder, stdout=log, stderr=log, env=environment)
        with running, contextlib.suppress(TimeoutError):
            running.wait(server.spec.start_timeout_s)


_ENVIRONMENT_OF_NODE = {"NODE_ENV": "production", "SCALING_LAB_NODE_MODULES": str(node_modules())}

_NGINX = ("nginx", "-e", "stderr", "-p", ".", "-c", "nginx.conf")


def _program(name: str) -> Callable[[], str | None]:
    return lambda: None if find(name) else f"apt install {name}"


def _nginx(name: str, label: str, balance: str) -> Peer:
    return Peer(name, label, "balancer", _NGINX, _program("nginx"), reload=_hang_up, balance=balance)


PEERS = (
    Peer(
        "node", "Node", "Node", ("node", str(SOURCES / "server.mjs")), _node("express"), _ENVIRONMENT_OF_NODE,
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
        (_PM2, "start", str(SOURCES / "pm2.config.cjs"), "--no-auto-exit"), _node("express", "pm2"),
        {**_ENVIRONMENT_OF_NODE, "PM2_DISABLE_VERSION_CHECK": "true", "NODE_CLUSTER_SCHED_POLICY": "rr"},
        reload=_pm2_reload,
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
    _nginx("nginx-round-robin", "nginx, round robin", ""),
    _nginx("nginx-least-conn", "nginx, least connections", "least_conn;"),
    _nginx("nginx-random-two", "nginx, best of random two", "random two least_conn;"),
    Peer(
        "haproxy", "haproxy, one request each", "balancer", ("haproxy", "-W", "-f", "haproxy.cfg"),
        _program("haproxy"), reload=_user_signal, balance="leastconn",
    ),
)  # fmt: skip
