"""Processes that end with their starter: how one starts another, and how the other begins."""

import contextlib
import json
import logging
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
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Mapping
from typing import IO, Any, Self, TypeAlias

from lab import files
from lab.errors import LabError


def tie(fd: int) -> None:
    """End this process, and the group that it leads, as soon as who holds the other end of `fd` is gone."""
    on_hang_up(fd, _end)


def on_hang_up(fd: int, act: Callable[[], None]) -> None:
    """Act when the other end of a pipe, socket or terminal is closed; nothing is read from it.

    A thread does it, because an event loop is deaf while the hot loop blocks it.
    """

    def wait() -> None:
        _hang_up(fd, timeout_ms=None)
        act()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def is_hung_up(fd: int) -> bool:
    """Return whether there is nobody at the other end of `fd`, or no such descriptor."""
    return _hang_up(fd, timeout_ms=0)


def _hang_up(fd: int, timeout_ms: int | None) -> bool:
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(timeout_ms))


def _end() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


Message = dict[str, Any]

Passed: TypeAlias = "socket.socket | TransportSocket | Channel"

_MOST_FDS = 64
_open: "weakref.WeakSet[Channel]" = weakref.WeakSet()


class Channel:
    """One end of a socket pair. Sending may block, never for long: the other end is always read.

    The end that the starter keeps is also the lifeline of what it started (see `lifeline`), so no copy of it
    may live on elsewhere: programs do not inherit it, and forks close it.
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

    def send(self, message: Message, *, passing: "Passed | None" = None) -> None:
        """Send a message, and a copy of an open socket with it. Raises OSError if nobody is there."""
        line = json.dumps(message | {"passing": passing is not None}).encode() + b"\n"
        if passing is None:
            self._sock.sendall(line)
        else:
            socket.send_fds(self._sock, [line], [passing.fileno()])

    def tell(self, message: Message, *, passing: "Passed | None" = None) -> None:
        """Send a message that is lost on nobody if the other end is gone."""
        with contextlib.suppress(OSError):
            self.send(message, passing=passing)

    def receive(self, timeout_s: float | None = None) -> list[tuple[Message, int | None]]:
        """Return what one read brings: messages, each with the file descriptor that was passed with it.

        Raises EOFError if the other end is closed, TimeoutError if nothing came in time.
        """
        self._sock.settimeout(timeout_s)
        data, fds, _, _ = socket.recv_fds(self._sock, 65536, _MOST_FDS)
        self._fds += fds
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        messages = [json.loads(line) for line in lines]
        return [(message, self._fds.pop(0) if message["passing"] else None) for message in messages]

    def close(self) -> None:
        """Close this end; more than once is fine."""
        self._sock.close()


def _close_in_fork() -> None:
    for channel in list(_open):
        channel.close()


os.register_at_fork(after_in_child=_close_in_fork)


def spawn(
    role: str,
    arguments: Mapping[str, Any],
    *,
    fds: Mapping[str, int],
    log: IO[Any] | None,
    new_session: bool,
) -> tuple["subprocess.Popen[bytes]", Channel]:
    """Run `python -m lab.servers ROLE ARGUMENTS`; return the process and the channel to it.

    `fds` are passed on, and told under their names among the arguments. What it prints goes to `log`,
    or else where ours goes. A popen of a module is what works from a notebook: forks copy threads and
    descriptors, and multiprocessing's spawn cannot import what a cell defined.
    """
    ours, theirs = Channel.pair()
    passed = {**fds, "channel": theirs.fileno()}
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.servers", role, json.dumps({**arguments, **passed})],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=files.project(),  # the caller's folder is no place to import from
            pass_fds=tuple(passed.values()),
            start_new_session=new_session,  # an interrupted cell signals the kernel's whole group
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def begin(channel: int) -> Channel:
    """Begin a process that `spawn` started: tied to its starter, logging, and with room for many files."""
    tie(channel)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every connection that waits is a file
    return Channel.adopt(channel)


def ending(status: int) -> str:
    """Say how a process ended: its exit status, or the name of the signal."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"


_PATIENCE_S = 2.0


def end_group(group: int) -> None:
    """Kill every process of a group and return when they are gone. Raises LabError if one survives that."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    deadline_s = time.monotonic() + _PATIENCE_S
    while survivors := _alive(group):
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
