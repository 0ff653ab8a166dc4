"""Processes that cannot outlive their starter: started, spoken to, ended, and proven gone.

A notebook's kernel may end in any way, even by `os._exit`, and must leave nothing behind. So the starter of a
process keeps the only write end of a *lifeline*, a pipe or socket. In the child, a thread waits for that end
to close, and then ends the child and the group that it leads. (An event loop would be deaf while the hot
loop blocks it; `PR_SET_PDEATHSIG` is tied to the thread that started the child; `atexit` would not run.)

A foreign program knows of no lifeline, so it runs under a keeper, which does (see `lab.keeper`).
"""

import contextlib
import json
import math
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from lab.channel import Channel, polled
from lab.errors import LabError
from lab.streams import guard_standard_streams, log_without_waiting

if TYPE_CHECKING:
    import psutil

Stream: TypeAlias = "IO[Any] | int | None"
"""As `subprocess.Popen` takes it; None to share ours."""

Result = TypeVar("Result")

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
    prefix: Sequence[str] = (),
) -> "subprocess.Popen[bytes]":
    """Run `python -m MODULE ARGUMENTS`, one of our modules, which calls `begin` first.

    It inherits only `fds` and its standard streams. It imports nothing from the caller's folder, which may
    hold its own `lab/` or `queue.py`. In a session of its own, it hears no interrupts of the caller's group:
    interrupting a notebook's kernel interrupts every process in its group. `prefix` is a command that becomes
    the one after it, in the same process.
    """
    return subprocess.Popen(
        [*prefix, sys.executable, "-P", "-m", module, *arguments],
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
    prefix: Sequence[str] = (),
) -> "tuple[subprocess.Popen[bytes], Channel]":
    """Run one of our modules with a channel to it, which is also its lifeline; return both.

    The module receives `arguments` as JSON, which also name the inherited `fds` and `channel`. What it prints
    goes to `log`, or to `out` and `log`.
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
            prefix=prefix,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def begin(lifeline: int, log: str | None = None) -> None:
    """Set up a process that `start` started: tied to its starter, logging, with room for many files.

    If the starter ends first, nobody will read the file `log`, which is deleted.
    """

    def end() -> None:
        if log is not None:
            Path(log).unlink(missing_ok=True)
        end_with_group()

    guard_standard_streams()
    on_hang_up(lifeline, end)
    log_without_waiting()
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every waiting connection is a file


def run_loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run an event loop, on uvloop where there is one: a request then costs two thirds of the CPU time."""
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    result: Result = run(main)
    return result


class Program:
    """A foreign program under its keeper, which passes signals on and ends as it ends.

    pid: the program's. As a context manager, it ends the program on exit.
    """

    pid: int

    def __init__(self, keeper: "subprocess.Popen[bytes]", channel: Channel) -> None:
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
        """Wait for its end, and return what `poll` does. Raises TimeoutError if that takes too long."""
        try:
            return wait_for(self._keeper, timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"process {self.pid} has not ended after {timeout_s:g} s") from None

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still exists."""
        self._keeper.send_signal(number)

    def processes(self) -> "list[psutil.Process]":
        """Return its processes that run, also those that left its group."""
        import psutil

        try:
            return [
                one for one in psutil.Process(self._keeper.pid).children(recursive=True) if one.is_running()
            ]
        except psutil.NoSuchProcess:
            return []

    def cpu_so_far_s(self) -> float:
        """Return the CPU seconds of all its processes until now, ended ones too; NaN if it is gone."""
        return cpu_of_tree_s(self._keeper.pid)

    def cpu_s(self) -> float:
        """Wait for its end; return the CPU seconds of all its processes, NaN if the keeper was killed."""
        with contextlib.suppress(EOFError, OSError):
            return float(self._channel.next()["cpu_s"])
        return math.nan

    def end(self, within_s: float = 0.0) -> None:
        """Return when all of it is gone: it has `within_s` to obey SIGTERM, then it is killed.

        Raises LabError if a process survives that. Calling it twice is fine.
        """
        try:
            if within_s:
                self.send_signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    self.wait(within_s)
        finally:
            self._channel.tell({"farewell": True})
            self._channel.close()  # makes the keeper also end what left its group, which only it knows
            end_group(self._keeper, _PATIENCE_S)


def start_program(
    command: Sequence[str],
    *,
    cwd: Path,
    stdout: Stream,
    stderr: Stream,
    env: Mapping[str, str] | None = None,
    fds: Sequence[int] = (),
    leftovers: Sequence[Path] = (),
) -> Program:
    """Run a foreign program in its own session; return when it runs.

    `env` is its whole environment, or else ours; `fds` are passed on under their numbers. It does not outlive
    us: see `lab.keeper`. Nor do `leftovers`, files and folders, if we end without ending it. Raises LabError
    if it cannot start.
    """
    named = {str(fd): fd for fd in fds}
    keeper, channel = start_with_channel("lab.keeper", {}, fds=named, log=stderr, out=stdout)
    program = Program(keeper, channel)
    try:
        order = {
            "command": [*command], "cwd": str(cwd), "env": dict(env or os.environ), "fds": [*fds],
            "leftovers": [str(path.absolute()) for path in leftovers],
        }  # fmt: skip
        channel.send(order, timeout_s=_STARTED_WITHIN_S)
        message = channel.next(_STARTED_WITHIN_S)
        if "failed" in message:
            found = shutil.which(command[0], path=(env or os.environ).get("PATH"))
            hint = "" if found else "; is it installed, and on PATH?"
            raise LabError(f"cannot start {command[0]}: {message['failed']}{hint}")
        program.pid = message["started"]
    except BaseException as error:
        program.end()
        if isinstance(error, EOFError | OSError):
            raise LabError(f"cannot start {command[0]}: its keeper has ended ({error!r})") from error
        raise
    return program


def cpu_of_tree_s(pid: int) -> float:
    """Return the CPU seconds of a process and all its children, ended ones too; NaN if it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return math.nan
    return float(sum(one.user + one.system + one.children_user + one.children_system for one in times))


def wait_for(process: "subprocess.Popen[Any]", within_s: float | None) -> int:
    """Wait for the end of a process, at most for so long, and return its exit status.

    On Linux it is told of the end; `Popen.wait` looks again and again, ever less often. Raises
    subprocess.TimeoutExpired.
    """
    if within_s and hasattr(os, "pidfd_open") and process.poll() is None:
        with contextlib.suppress(OSError):  # another thread has waited for it, or the system refuses
            fd = os.pidfd_open(process.pid)
            try:
                polled(fd, select.POLLIN, within_s)
            finally:
                os.close(fd)
            within_s = 0.0
    return process.wait(within_s)


def end_group(leader: "subprocess.Popen[bytes]", within_s: float = 0.0) -> None:
    """End a process that leads a group, and the whole group; return when they are gone.

    It has `within_s` to end by itself, then it is killed. Raises LabError if one survives that.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        wait_for(leader, within_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    deadline_s = time.monotonic() + _PATIENCE_S
    while survivors := _alive(leader.pid):
        if time.monotonic() > deadline_s:
            raise LabError(f"processes {survivors} survived SIGKILL: check their state, with ps")
        time.sleep(0.005)


def _alive(group: int) -> list[int]:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return []
    import psutil

    # A zombie is gone, but stays a member until its parent, or init, reaps it.
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
        polled(fd, 0, timeout_s=None)
        act()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def is_hung_up(fd: int) -> bool:
    """Return whether the other end of `fd` is closed, or there is no such descriptor."""
    return polled(fd, 0, timeout_s=0)


def end_with_group() -> None:
    """End this process now, and the group that it leads."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def ending_signals() -> list[signal.Signals]:
    """Return the signals that ask a command to end; SIGHUP is none where it is ignored, as under `nohup`."""
    hang_up = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


def _or_nowhere(stream: Stream, fd: int) -> Stream:
    """Return the stream, or nowhere if it should be ours and ours is closed."""
    if stream is not None:
        return stream
    try:
        os.fstat(fd)
    except OSError:
        return subprocess.DEVNULL
    return None
