"""Processes forked from this one: they have imported what it has, so they start at once.

They also share its memory, until one of them writes to it.
"""

import asyncio
import atexit
import gc
import json
import os
import signal
import stat
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from lab.channel import Channel

Body = Callable[[str], None]
"""What a process does, from its arguments as JSON: the `main` of one of our modules, which calls `begin`."""


class Forked:
    """A child of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def wait(self) -> int:
        """Wait for its end; return its exit status, or minus the signal that ended it."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def kill(self) -> None:
        """End it now."""
        if self._status is None:  # else its number may be another's
            os.kill(self.pid, signal.SIGKILL)


async def fork_with_channel(
    body: Body, arguments: Mapping[str, Any], *, fds: Mapping[str, int]
) -> tuple[Forked, Channel]:
    """Fork a process that runs `body`, with a channel to it, which is also its lifeline; return both.

    As with `processes.start_with_channel`, `arguments` also name the inherited `fds` and `channel`. Of the
    sockets of this process it keeps no others: a connection that ends here must not stay open there.
    """
    ours, theirs = Channel.pair()
    passed = dict(fds, channel=os.dup(theirs.fileno()))  # a fork closes channels
    theirs.close()
    loop = asyncio.get_running_loop()
    forked: asyncio.Future[Forked] = loop.create_future()
    # in a callback of its own: then no task is current in the child, whose loop would mind
    loop.call_soon(_fork, forked, body, json.dumps({**arguments, **passed}), frozenset(passed.values()))
    try:
        return await forked, ours
    except BaseException:
        ours.close()  # ends it, if it was forked
        if forked.done() and not forked.cancelled() and not forked.exception():
            forked.result().wait()
        raise
    finally:
        os.close(passed["channel"])


def freeze() -> None:
    """Keep the garbage collector from writing to what was imported, so that it stays shared."""
    gc.collect()
    gc.freeze()


def _fork(forked: "asyncio.Future[Forked]", body: Body, text: str, kept: frozenset[int]) -> None:
    if forked.cancelled():
        return
    try:
        with warnings.catch_warnings():
            # our other threads only wait, and hold no lock
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError as error:
        forked.set_exception(error)
        return
    if pid == 0:
        _be(body, text, kept)
    forked.set_result(Forked(pid))


def _be(body: Body, text: str, kept: frozenset[int]) -> NoReturn:
    """Forget what only our parent needs, run the body, and end as a program does."""
    status: object = 1
    try:
        _forget(kept)
        body(text)
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()  # such as the wait until the last lines are in the log
        finally:
            os._exit(status if isinstance(status, int) else 1)


def _forget(kept: frozenset[int]) -> None:
    atexit._clear()
    asyncio._set_running_loop(None)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for fd in _sockets() - kept:
        with suppress(OSError):
            os.close(fd)


def _sockets() -> set[int]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # of the listing itself
            if (fd := int(entry.name)) > 2 and stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.add(fd)
    return found
