"""Processes that cannot outlive their starter: started, spoken to, ended, and proven gone.

A notebook's kernel may end in any way, by `os._exit` too, and must leave nothing behind. So whoever starts a
process keeps the only write end of a *lifeline*, a pipe or socket; in the child a thread waits for its other
end to close, and then ends the child and the group that it leads. (An event loop would be deaf while the hot
loop blocks it; `PR_SET_PDEATHSIG` is tied to the thread that started the child; `atexit` is not run.)

A program that is not ours knows of no lifeline: a keeper, which does, stands above it (see `lab.keeper`).
"""

import contextlib
import json
import math
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, TypeAlias

from lab.errors import LabError
from lab.logs import log_without_waiting

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

Message = dict[str, Any]
Stream: TypeAlias = "IO[Any] | int | None"
"""As `subprocess.Popen` takes it; None for where ours goes."""

_PATIENCE_S = 2.0
_STARTED_WITHIN_S = 30.0


def start(
    module: str,
    *arguments: str,
    fds: Sequence[int] = (),
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    new_session: bool = True,
) -> "subprocess.Popen[bytes]":
    """Run `python -m MODULE ARGUMENTS`, one of our modules, which calls `begin` first.

    It inherits `fds` and its standard streams, and nothing else. It imports nothing from the caller's folder,
    which may hold a `lab/` or a `queue.py` of its own. In a session of its own it hears no interrupt of the
    caller's group: a notebook's kernel is interrupted with every process of its group.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=stdin,
        stdout=_or_nowhere(stdout, 1),
        stderr=_or_nowhere(stderr, 2),
        pass_fds=fds,
        start_new_session=new_session,
    )


def start_with_channel(
    module: str,
    arguments: Mapping[str, Any],
    *,
    fds: Mapping[str, int],
    log: Stream,
    out: Stream = None,
    new_session: bool = True,
) -> "tuple[subprocess.Popen[bytes], Channel]":
    """Run one of our modules with a channel to it, which is also its lifeline; return both.

    The module is told `arguments` as JSON, and in them the inherited `fds` and `channel` by their names. What
    it prints goes to `log`, or to `out` and `log`.
    """
    ours, theirs = Channel.pair()
    passed = {**fds, "channel": theirs.fileno()}
    try:
        text = json.dumps({**arguments, **passed})
        process = start(
            module,
            text,
            fds=tuple(passed.values()),
            stdout=log if out is None else out,
            stderr=log,
            new_session=new_session,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def begin(lifeline: int) -> None:
    """Begin a process that `start` started: tied to its starter, logging, and with room for many files."""
    guard_standard_streams()
    on_hang_up(lifeline, end_with_group)
    log_without_waiting()
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every connection that waits is a file


class Program:
    """A program that is not ours, under its keeper: signals are passed on, and its end is the keeper's.

    pid: the program's. As a context manager it is ended at the end.
    """

    pid: int

    def __init__(self, keeper: "subprocess.Popen[bytes]", channel: "Channel") -> None:
        self._keeper = keeper
        self._channel = channel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def poll(self) -> int | None:
        """Return its exit status, or minus the signal that ended it; None while it runs."""
        return self._keeper.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Return what `poll` does once it has ended. Raises TimeoutError if it has not in time."""
        try:
            return self._keeper.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"process {self.pid} has not ended after {timeout_s:g} s") from None

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        self._keeper.send_signal(number)

    def cpu_s(self) -> float:
        """Wait for its end; return the CPU seconds of all its processes, NaN if the keeper was killed."""
        with contextlib.suppress(EOFError, OSError):
            return float(self._channel.next()["cpu_s"])
        return math.nan

    def end(self, within_s: float = 0.0) -> None:
        """Return when all of it is gone: it may obey SIGTERM for so long, and is killed then.

        Raises LabError if a process survives that. More than once is fine.
        """
        try:
            if within_s:
                self.send_signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    self.wait(within_s)
        finally:
            self._channel.close()  # has the keeper end what has left its group too: nobody else knows of that
            end_group(self._keeper, _PATIENCE_S)


def start_program(
    command: Sequence[str],
    *,
    cwd: Path,
    stdout: Stream,
    stderr: Stream,
    env: Mapping[str, str] | None = None,
    fds: Sequence[int] = (),
) -> Program:
    """Run a program that is not ours, in a session of its own; return when it runs.

    `env` is its whole environment, or else ours; `fds` are passed on under their numbers. It does not outlive
    us: see `lab.keeper`. Raises LabError if it cannot be started.
    """
    named = {str(fd): fd for fd in fds}
    keeper, channel = start_with_channel("lab.keeper", {}, fds=named, log=stderr, out=stdout)
    program = Program(keeper, channel)
    try:
        order = {"command": [*command], "cwd": str(cwd), "env": dict(env or os.environ), "fds": [*fds]}
        channel.send(order, timeout_s=_STARTED_WITHIN_S)
        message = channel.next(_STARTED_WITHIN_S)
        if "failed" in message:
            raise LabError(f"cannot start {command[0]}: {message['failed']}")
        program.pid = message["started"]
    except BaseException as error:
        program.end()
        if isinstance(error, EOFError | OSError):
            raise LabError(f"cannot start {command[0]}: its keeper has ended ({error!r})") from error
        raise
    return program


def end_group(leader: "subprocess.Popen[bytes]", within_s: float = 0.0) -> None:
    """End a process that leads a group, and all of the group; return when they are gone.

    For `within_s` it may end by itself, then it is killed. Raises LabError if one survives that.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(within_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    deadline_s = time.monotonic() + _PATIENCE_S
    while survivors := _alive(leader.pid):
        if time.monotonic() > deadline_s:
            raise LabError(f"processes {survivors} survived SIGKILL: see in what state the system holds them")
        time.sleep(0.005)


def _alive(group: int) -> list[int]:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return []
    import psutil

    # A zombie is gone, but stays a member until its parent, or init, has noticed.
    pids = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                pids.append(process.pid)
    return pids


def ending(status: int) -> str:
    """Say how a process ended: its exit status, or the name of the signal."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def on_hang_up(fd: int, act: Callable[[], None]) -> None:
    """Act, in a thread, when the other end of a pipe, socket or terminal is closed; nothing is read."""

    def wait() -> None:
        _polled(fd, 0, timeout_s=None)
        act()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def is_hung_up(fd: int) -> bool:
    """Return whether there is nobody at the other end of `fd`, or no such descriptor."""
    return _polled(fd, 0, timeout_s=0)


def _polled(fd: int, event: int, timeout_s: float | None) -> bool:
    """Wait for an event or a hang-up; return whether it came in time."""
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(None if timeout_s is None else 1000 * timeout_s))


def end_with_group() -> None:
    """End this process now, and the group that it leads."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def guard_standard_streams() -> None:
    """Open what is closed of the standard streams on /dev/null.

    Else the next file or socket would be opened under its number, and be written to by whoever logs.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115  (open for as long as the process lives)
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _or_nowhere(stream: Stream, fd: int) -> Stream:
    """Return the stream, or nowhere if it is to be ours and ours is closed."""
    if stream is not None:
        return stream
    try:
        os.fstat(fd)
    except OSError:
        return subprocess.DEVNULL
    return None


Passed: TypeAlias = "socket.socket | TransportSocket | Channel"

_MOST_FDS = 64
_open: "weakref.WeakSet[Channel]" = weakref.WeakSet()


class Channel:
    """One end of a socket pair that carries messages: JSON lines, and open sockets with them.

    The starter's end is the lifeline of what it started, so no copy of it may live on elsewhere: programs do
    not inherit it, and forks close it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self._fds: list[int] = []
        _open.add(self)

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Return the end that was inherited as `fd`, and let no child inherit it in turn."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """Return the file descriptor, -1 once it is closed."""
        return self._sock.fileno()

    def send(
        self, message: Message, *, passing: "Passed | None" = None, timeout_s: float | None = None
    ) -> None:
        """Send a message, and a copy of an open socket with it.

        Raises OSError if nobody is there; TimeoutError, an OSError, if the other end does not read in time.
        """
        line = json.dumps(message | {"passing": passing is not None}).encode() + b"\n"
        extra = [] if passing is None else [_rights(passing.fileno())]
        while line:
            try:  # `send_fds` takes flags too, but ignores them
                sent = self._sock.sendmsg([line], extra, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(select.POLLOUT, timeout_s)
            else:
                line, extra = line[sent:], []

    def tell(self, message: Message, *, passing: "Passed | None" = None) -> None:
        """Send a message that is lost on nobody if the other end is gone."""
        with contextlib.suppress(OSError):
            self.send(message, passing=passing)

    def receive(self, timeout_s: float | None = None) -> list[tuple[Message, int | None]]:
        """Return what one read brings: whole messages, each with the file descriptor passed with it, or none.

        Raises EOFError if the other end is closed, TimeoutError if nothing came in time.
        """
        self._wait(select.POLLIN, timeout_s)
        data, fds, _, _ = socket.recv_fds(self._sock, 65536, _MOST_FDS)
        self._fds += fds
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        messages = [json.loads(line) for line in lines]
        return [(message, self._fds.pop(0) if message["passing"] else None) for message in messages]

    def next(self, timeout_s: float | None = None) -> Message:
        """Return the next message of those that are sent one at a time. Raises what `receive` does."""
        while not (messages := self.receive(timeout_s)):
            pass
        return messages[0][0]

    def close(self) -> None:
        """Close this end; more than once is fine."""
        self._sock.close()

    def _wait(self, event: int, timeout_s: float | None) -> None:
        if not _polled(self.fileno(), event, timeout_s):
            raise TimeoutError(f"the other end has kept us waiting for {timeout_s:g} s")


def _rights(fd: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]).tobytes()


def _close_in_fork() -> None:
    for channel in list(_open):
        channel.close()


os.register_at_fork(after_in_child=_close_in_fork)
