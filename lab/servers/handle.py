"""The starter's view of a server in the background: where it is, which workers it has, and how it ends."""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

from lab.channel import Channel, Message
from lab.checks import checked
from lab.errors import LabError, UsageError
from lab.processes import cpu_of_tree_s, end_group, ending, start_with_channel, wait_for
from lab.quota import Quota, Throttling, new_quota
from lab.servers import sockets
from lab.servers.counters import SharedCounts, WorkerCounters
from lab.servers.running import RunningServer
from lab.servers.spec import ServerSpec

_GRACE_S = 1.0
"""How long a process may overrun its time before it is killed."""

_PATIENCE_S = 5.0
_GLANCE_S = 1.0
"""How long who only looks at a server waits for it."""

_QUESTIONS = ("workers", "counters")
"""A server that responds answers these at once."""


class UnresponsiveError(LabError):
    """The server exists but does not respond: it may be stopped."""


class Server(RunningServer):
    """A running `ServerSpec`, `spec`; in a cluster, `pid` is the supervisor's."""

    def __init__(self, spec: ServerSpec, *, log: IO[str] | None = None) -> None:
        """Start it, and return when all its workers accept. It prints to `log`, or else to `log_path`.

        Raises LabError, with the reason, if the port is unavailable, if a worker cannot start, or if the
        quota cannot be set.
        """
        self.spec = spec
        self._log = log
        self._ending = threading.RLock()
        self._owner = os.getpid()
        self._start(spec.port)
        atexit.register(self._at_exit)

    @property
    def workers(self) -> list[int]:
        """The pids of the workers that accept; none once the server is gone.

        Raises LabError if it does not respond.
        """
        if not self.spec.has_workers:
            return [self.pid] if self._process.poll() is None else []
        try:
            pids: list[int] = self._ask("workers")
        except UnresponsiveError:
            raise
        except LabError:
            return []
        return pids

    def counters(self) -> list[WorkerCounters]:
        """Return what each of its workers has done so far. Raises LabError if the server is gone."""
        if self.spec.has_workers:
            return [WorkerCounters(**counters) for counters in self._ask("counters")]
        return [WorkerCounters(0, self.pid, *self._counts.read(), restarts=0)]

    def cpu_s(self) -> float:
        """Return the CPU seconds that its processes, ended ones too, have used so far; NaN if it is gone."""
        return cpu_of_tree_s(self.pid)

    def throttling(self) -> Throttling | None:
        """Return what its quota has done so far; None if it has none."""
        return None if self._quota is None else self._quota.throttling(self.pid)

    @checked
    def scale(self, workers: int) -> None:
        """Return when that many workers accept, and any beyond have drained and are gone.

        Raises UsageError if it has no workers to scale, or if `workers` is below one or above the limit;
        LabError if one cannot start.
        """
        if self.spec.has_workers:
            self.spec.check_workers(workers)
        self._change("scale", workers=workers)

    def recycle(self) -> None:
        """Replace the workers, one at a time: the new one is ready before the old one drains.

        Raises UsageError if there are none to replace; LabError if one cannot start, and the old one stays.
        """
        self._change("recycle")

    def wait(self) -> None:
        """Return when it has ended as told. Raises LabError, with the reason, if it failed."""
        if self._process.wait() != 0:
            raise LabError(f"the server ended: {self._reason()}")

    def send_signal(self, number: int) -> None:
        """Send the started process a signal, if it still exists."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Let it answer what it has accepted, for at most `spec.drain_s`, then end it. Repeating is harmless.

        Raises LabError if one of its processes survives, or if something still listens on its port.
        """
        with self._ending:
            if self._stopped:
                return
            failed = self._process.poll() not in (None, 0)
            try:
                if self._quota is not None:
                    self._quota.limit(False)  # it should end as fast as any other
                self._process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    wait_for(self._process, self.spec.drain_s + _GRACE_S)
            finally:
                self._end(failed)
            sockets.listen(*self._address).close()  # proves that nothing listens there

    @property
    def _kind(self) -> str:
        return f"{self.spec.topology} server"

    def _about(self) -> dict[str, object]:
        return self.spec.facts()

    def _workers_now(self) -> list[int]:
        return self._ask("workers", _GLANCE_S) if self.spec.has_workers else self.workers

    def _start(self, port: int) -> None:
        self._failure: str | None = None
        self._quota: Quota | None = None
        if self.spec.quota_cpus is not None:
            self._quota = new_quota(self.spec.quota_cpus)
        try:
            self._spawn(port)
        except BaseException:
            self._unlimit()
            raise
        self._stopped = False
        try:
            self._wait_until_ready()
            if self._quota is not None:
                self._quota.limit(True)
        except BaseException as error:
            self._end(failed=isinstance(error, LabError))
            raise

    def _spawn(self, port: int) -> None:
        cluster = self.spec.topology == "cluster"
        bind = sockets.reserve if cluster and self.spec.dispatch == "reuseport" else sockets.listen
        with (
            bind(self.spec.host, port) as listener,
            _opened(self._log) as log,
            SharedCounts.new() as (counts, fd),
        ):
            self.url = sockets.url(listener)
            self.log_path = Path(log.name) if self._log is None else None
            self._address = listener.getsockname()[:2]
            self._counts = counts
            kept = None if self.log_path is None else str(self.log_path)
            arguments = {"spec": asdict(self.spec), "index": 0, "alone": True, "log": kept}
            self._process, self._channel = start_with_channel(
                "lab.servers.supervisor" if cluster else "lab.servers.worker",
                arguments,
                fds={"listener": listener.fileno(), "counts": fd},
                log=log,
                prefix=() if self._quota is None else self._quota.prefix,
            )
        self.pid = self._process.pid

    def _wait_until_ready(self) -> None:
        try:
            event = self._next_event(self.spec.start_timeout_s + _GRACE_S)
        except TimeoutError:
            raise LabError(f"the server was not ready after {self.spec.start_timeout_s:g} s") from None
        if event != "ready":
            raise LabError(f"the server did not start: {self._reason()}")

    def _next_event(self, timeout_s: float) -> str:
        try:
            message = self._channel.next(timeout_s)
        except (EOFError, ConnectionError):
            return "gone"
        self._failure = message.get("reason")
        return str(message["event"])

    def _change(self, command: str, **arguments: Any) -> None:
        if not self.spec.has_workers:
            raise UsageError(f"a {self.spec.topology} server is one process: start a cluster to {command} it")
        self._ask(command, **arguments)

    def _ask(self, command: str, patience_s: float | None = None, **arguments: Any) -> Any:
        """Return the answer to a command. Each has its own channel, so none waits for another."""
        patience_s = patience_s or _PATIENCE_S
        ours, theirs = Channel.pair()
        with contextlib.closing(ours):
            try:
                with contextlib.closing(theirs):
                    self._channel.send({"do": command, **arguments}, passing=theirs, timeout_s=patience_s)
                answer = self._answer(ours, command, patience_s)
            except TimeoutError:
                raise UnresponsiveError(
                    f"the server, process {self.pid}, has not responded for {patience_s:g} s: is it stopped?"
                ) from None
            except (EOFError, OSError):
                raise LabError(f"the server is gone: {self._reason()}") from None
        if "error" in answer:
            raise LabError(answer["error"])
        return answer["result"]

    def _answer(self, channel: Channel, command: str, patience_s: float) -> Message:
        """Wait as long as a change takes, provided that the process making it responds to questions."""
        while True:
            try:
                return channel.next(patience_s)
            except TimeoutError:
                if command in _QUESTIONS:
                    raise
                self._ask("workers")

    def _reason(self) -> str:
        """Say in one line why it ended, with the end of its log."""
        if self._stopped:
            return "it was stopped"
        if self._failure is None:
            with contextlib.suppress(TimeoutError):
                self._next_event(timeout_s=_GRACE_S)
        reason = self._failure or f"process {self.pid} ended, {ending(self._process.wait())}"
        return self._with_last_words(reason)

    def _end(self, failed: bool) -> None:
        """End what is left of it, release what is held for it, and keep the log only if it failed."""
        self._stopped = True
        atexit.unregister(self._at_exit)
        try:
            end_group(self._process)  # before its lifeline, whose end would delete the log
        finally:
            self._channel.close()
            self._counts.close()
            if self.log_path is not None and not failed:
                self.log_path.unlink(missing_ok=True)
            self._unlimit()  # last: it takes until the group is empty, and may fail

    def _unlimit(self) -> None:
        if self._quota is not None:
            self._quota.close()

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a fork
            self._end(failed=self._process.poll() not in (None, 0))


def _opened(log: IO[str] | None) -> AbstractContextManager[IO[Any]]:
    if log is not None:
        return contextlib.nullcontext(log)
    return tempfile.NamedTemporaryFile(prefix="scaling-lab-", suffix=".log", delete=False)


_runs: dict[str, tuple[str, "WeakSet[Server]"]] = {}
"""For each cell, its last run and the servers that this run started."""


def stop_earlier_run() -> None:
    """Stop what an earlier run of the current cell started, so that this run may use the same port."""
    cell, run = _current()
    earlier, servers = _runs.get(cell, (run, WeakSet()))
    if earlier != run:
        for server in list(servers):
            server.stop()


def remember(server: "Server") -> None:
    """Note which run of which cell started a server."""
    cell, run = _current()
    last, servers = _runs.get(cell, (run, WeakSet()))
    _runs[cell] = run, (servers if last == run else WeakSet())
    _runs[cell][1].add(server)


def _current() -> tuple[str, str]:
    """Return the current cell and its current run. JupyterLab tells a cell's id, others only its code."""
    ipython: Any = sys.modules.get("IPython")
    shell: Any = ipython and ipython.get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = request.get("metadata", {}).get("cellId") or request.get("content", {}).get("code", "")
    return str(cell), str(request.get("header", {}).get("msg_id", ""))
