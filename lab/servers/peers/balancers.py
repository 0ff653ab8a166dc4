"""A balancer before single processes of ours: replicas, where a cluster has workers."""

import contextlib
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import psutil

from lab.processes import Program
from lab.servers.foreign import ForeignSpec
from lab.servers.handle import Server
from lab.servers.peers.server import PeerServer
from lab.servers.sockets import BACKLOG
from lab.servers.spec import ServerSpec

_MOST_FILES = 65_536
_FILES_A_REQUEST = 4
_POLL_S = 0.02


class _Config(Template):
    delimiter = "@"


class Balanced(PeerServer):
    """A running balancer with its processes, which are its workers. Nobody replaces one that is killed."""

    def __init__(
        self,
        name: str,
        spec: ForeignSpec,
        folder: Path,
        *,
        config: Path,
        balance: str,
        replica: ServerSpec,
        reload: "Callable[[PeerServer], None] | None",
    ) -> None:
        """Start the processes, then the balancer with its `config`, filled in. Raises LabError as they do."""
        self._config, self._balance, self._replica = config, balance, replica
        self._ended_cpu_s = 0.0
        self._replicas = self._new_replicas(spec.workers)
        try:
            super().__init__(name, spec, folder, reload)
        except BaseException:
            _stop(self._replicas)
            raise

    @property
    def workers(self) -> list[int]:
        """The pids of the processes behind it."""
        return sorted(pid for replica in self._replicas for pid in replica.workers)

    def processes(self) -> list[psutil.Process]:
        """Return the balancer's processes, and those behind it."""
        found = super().processes()
        for pid in self.workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def cpu_s(self) -> float:
        """Return the CPU seconds of all of them so far, without those of a process that was killed."""
        spent = [replica.cpu_s() for replica in self._replicas if replica.workers]
        return super().cpu_s() + self._ended_cpu_s + sum(spent)

    def log(self, lines: int = 20) -> str:
        """Return the end of the balancer's log, and of that of each process."""
        return "\n".join([super().log(lines), *(replica.log(lines) for replica in self._replicas)])

    def recycle(self) -> None:
        """Start new processes, point the balancer to them, and let the old ones finish."""
        old, before = self._replicas, {one.pid for one in super().processes()} - {self.pid}
        self._replicas = self._new_replicas(self.spec.workers)
        self._write_config()
        assert self._reload is not None  # noqa: S101 - given in __init__
        self._reload(self)
        deadline_s = time.monotonic() + self.spec.start_timeout_s + self.spec.drain_s
        while before & {one.pid for one in super().processes()} and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        self._ended_cpu_s += sum(replica.cpu_s() for replica in old if replica.workers)
        _stop(old)

    def _new_replicas(self, count: int) -> list[Server]:
        with ThreadPoolExecutor(count) as starting:
            futures = [starting.submit(Server, self._replica) for _ in range(count)]
        failed = [error for future in futures if (error := future.exception())]
        running = [future.result() for future in futures if not future.exception()]
        if failed:
            _stop(running)
            raise failed[0]
        return running

    def _spawn(self, log: int) -> Program:
        self._write_config()
        return super()._spawn(log)

    def _write_config(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        line = "    server {at};" if self._config.suffix == ".conf" else "  server w{number} {at} maxconn 1"
        places = [urlsplit(replica.url).netloc for replica in self._replicas]
        host, port = self._address
        text = _Config(self._config.read_text()).substitute(
            files=files,
            connections=files // _FILES_A_REQUEST,
            balance=self._balance,
            servers="\n".join(line.format(at=at, number=number) for number, at in enumerate(places, 1)),
            listen=f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}",
            backlog=BACKLOG,
        )
        (self.folder / self._config.name).write_text(text)

    def _end(self, keep_log: bool, within_s: float = 0.0) -> None:
        try:
            super()._end(keep_log, within_s)
        finally:
            _stop(self._replicas)


def _stop(replicas: list[Server]) -> None:
    with ThreadPoolExecutor(len(replicas) or 1) as stopping:
        list(stopping.map(Server.stop, replicas))
