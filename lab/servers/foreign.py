"""A server that we did not write, in the background: any command that listens where it is told."""

import contextlib
import http.client
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
from annotated_types import Ge, Le, MinLen

from lab.checks import A_DAY_S, Before, Count, Seconds, Whole, checked, number
from lab.errors import LabError
from lab.processes import Program, ending, start_program
from lab.servers import sockets
from lab.servers.running import RunningServer

PLACEHOLDERS = ("host", "port", "workers")
"""What a command may name in braces."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_POLL_S = 0.02
_ASKS_FOR_S = 2.0
_FREE_WITHIN_S = 1.0


def _spelt(command: Sequence[str]) -> Sequence[str]:
    """Refuse a misspelt placeholder, which the program would take as it stands."""
    for word in command:
        for name in _PLACEHOLDER.findall(word):
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
                raise ValueError(f"has no placeholder {{{name}}}: there are {known}")
    return command


@checked
@dataclass(frozen=True, kw_only=True)
class ForeignSpec:
    """A server that we did not write: how it starts, and how to tell that it accepts.

    command: the program and its arguments, in which {host}, {port} and {workers} are filled in. The same
        values are in its environment, as HOST, PORT and WEB_CONCURRENCY.
    workers: how many it should have.
    host, port: where it should listen; with port 0, a free one is chosen.
    ready_path: it is ready once this path answers, with any status below 500.
    environment: further variables; folder: where it runs; None for the current one.
    start_timeout_s: how long it may take to be ready. drain_s: how long it may take to end once told.
    """

    command: Annotated[tuple[str, ...], Before(_spelt), MinLen(1)]
    workers: Count = 1
    host: str = "127.0.0.1"
    port: Whole = 0
    ready_path: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    start_timeout_s: Seconds = 30.0
    drain_s: Annotated[float, Before(number), Ge(0), Le(A_DAY_S)] = 10.0


class ForeignServer(RunningServer):
    """A running `ForeignSpec`, `spec`; `ready_s` is how long it took to be ready."""

    ready_s: float
    log_path: Path

    def __init__(self, spec: ForeignSpec, leftovers: Sequence[Path] = ()) -> None:
        """Start it, and return when it answers.

        `leftovers` are folders for it alone, which are removed when it ends, however that is.
        Raises LabError if the port is taken or the command cannot start, and, with its last words, if it ends
        or is not ready in time. No process of it is left then, only its log.
        """
        self.spec = spec
        self._leftovers = tuple(leftovers)
        self._stopping = threading.RLock()
        self._stopped = False
        self._status = 0
        try:
            with sockets.listen(spec.host, spec.port) as probe:  # proves that the port is free
                self.url, self._address = sockets.url(probe), probe.getsockname()[:2]
            self._program = self._spawn_logged()
        except BaseException:
            self._remove_leftovers()
            raise
        self.pid = self._program.pid
        began_s = time.monotonic()
        try:
            self._wait_until_ready(began_s + spec.start_timeout_s)
        except BaseException as error:
            self._end(keep_log=isinstance(error, LabError))
            raise
        self.ready_s = time.monotonic() - began_s

    def processes(self) -> list[psutil.Process]:
        """Return all its processes that run, also those that left its process group."""
        return [] if self._stopped else self._program.processes()

    @property
    def workers(self) -> list[int]:
        """The pids of its processes that have no children: in most servers, the workers."""
        running = self.processes()
        parents = set()
        for process in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                parents.add(process.ppid())
        return [one.pid for one in running if one.pid not in parents and not _is_helper(one)]

    def cpu_s(self) -> float:
        """Return the CPU seconds that all its processes, ended ones too, have used so far."""
        return self._program.cpu_so_far_s()

    def send_signal(self, number: int) -> None:
        """Send the command's process a signal, if it still exists."""
        self._program.send_signal(number)

    def stop(self) -> None:
        """Tell it to end, wait at most `spec.drain_s`, then kill it. Repeating is harmless.

        Raises LabError if one of its processes survives, or if something still listens on its port.
        """
        with self._stopping:
            if not self._stopped:
                self._end(keep_log=self._program.poll() not in (None, 0), within_s=self.spec.drain_s)
                self._prove_port_free()

    def _prove_port_free(self) -> None:
        """Return when nothing listens on its port: of a killed process, the last threads hold it a moment."""
        deadline_s = time.monotonic() + _FREE_WITHIN_S
        while True:
            try:
                return sockets.listen(*self._address).close()
            except LabError:
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(_POLL_S)

    @property
    def _kind(self) -> str:
        return f"server {self.spec.command[0]}"

    def _about(self) -> dict[str, object]:
        return {"workers": f"{self.spec.workers} asked for"}

    def _spawn_logged(self) -> Program:
        with tempfile.NamedTemporaryFile(prefix="scaling-lab-", suffix=".log", delete=False) as log:
            self.log_path = Path(log.name)
            try:
                return self._spawn(log.fileno())
            except BaseException:
                self.log_path.unlink()
                raise

    def _spawn(self, log: int) -> Program:
        host, port = str(self._address[0]), str(self._address[1])
        values = {"host": host, "port": port, "workers": str(self.spec.workers)}
        command = [_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in self.spec.command]
        told = {"HOST": host, "PORT": port, "WEB_CONCURRENCY": values["workers"]}
        return start_program(
            command,
            cwd=self.spec.folder or Path.cwd(),
            stdout=log,
            stderr=log,
            env={**os.environ, **told, **self.spec.environment},
            leftovers=[self.log_path, *self._leftovers],
        )

    def _wait_until_ready(self, deadline_s: float) -> None:
        while not self._answers():
            if (status := self._program.poll()) is not None:
                ended = f"{self.spec.command[0]} ended before it answered, {ending(status)}"
                raise LabError(self._with_last_words(ended))
            if time.monotonic() > deadline_s:
                silent = (
                    f"{self.spec.command[0]} {self._state()} at {self.url}{self.spec.ready_path} after "
                    f"{self.spec.start_timeout_s:g} s: {self._guess()}"
                )
                raise LabError(self._with_last_words(silent))
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        host, port = self._address
        connection = http.client.HTTPConnection(host, port, timeout=_ASKS_FOR_S)
        try:
            connection.request("GET", self.spec.ready_path, headers={"Connection": "close"})
            self._status = connection.getresponse().status
            return self._status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _state(self) -> str:
        return f"answers {self._status}" if self._status else "has not answered"

    def _guess(self) -> str:
        """Say what may be wrong with a server that is not ready in time."""
        if self._status:
            return "name a path that answers below 500 once it is ready"
        if elsewhere := self._ports():
            ports = ", ".join(map(str, sorted(elsewhere)))
            return f"it listens on port {ports}, not where it is told: use {{port}}, or PORT"
        return "does it listen on {host}:{port}?"

    def _ports(self) -> set[int]:
        """Return the TCP ports on which its processes listen, other than the one it was told."""
        found = set()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                listening = [
                    one for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN
                ]
                found |= {one.laddr.port for one in listening}
        return found - {self._address[1]}

    def _end(self, keep_log: bool, within_s: float = 0.0) -> None:
        self._stopped = True
        try:
            self._program.end(within_s)
        finally:
            if not keep_log:
                self.log_path.unlink(missing_ok=True)
            self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        for path in self._leftovers:
            shutil.rmtree(path, ignore_errors=True)


def _is_helper(process: psutil.Process) -> bool:
    """Say whether it is one that Python's multiprocessing starts beside the workers."""
    with contextlib.suppress(psutil.Error):
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    return True
