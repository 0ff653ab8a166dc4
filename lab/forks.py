"""Processes forked from this one: they have imported what it has, so they start at once.

They also share its memory, until one of them writes to it.
"""

import asyncio
import gc
import json
import os
import signal
import stat
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lab.channel import Channel

Body = Callable[[str], None]
"""What a process does, from its arguments as JSON: the `main` of one of our modules, which calls `begin`."""


class Forked:
    """A child of this process."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid or 0

    def wait(self) -> int:
        """Wait for its end; return its exit status, or minus the signal that ended it."""
        self._process.join()
        return self._process.exitcode or 0

    def kill(self) -> None:
        """End it now."""
        self._process.kill()


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
    process = get_context("fork").Process(target=_be, args=(body, text, kept), daemon=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # our other threads only wait, and hold no lock
            process.start()
    except OSError as error:
        forked.set_exception(error)
    else:
        forked.set_result(Forked(process))


def _be(body: Body, text: str, kept: frozenset[int]) -> None:
    """Forget what only our parent needs, then run the body."""
    asyncio._set_running_loop(None)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for fd in _sockets() - kept:
        with suppress(OSError):
            os.close(fd)
    body(text)


def _sockets() -> set[int]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # of the listing itself
            if (fd := int(entry.name)) > 2 and stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.add(fd)
    return found
