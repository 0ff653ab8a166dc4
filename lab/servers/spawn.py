"""Start a Python module as a process that ends with its starter, and hold the channel to it."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, Any

from lab import paths
from lab.servers.channel import Channel

Log = IO[Any] | int | None
"""Where a process writes what it prints: a file, or None for where its starter does."""


def spawn(
    module: str, arguments: Mapping[str, Any], *, fds: Mapping[str, int], log: Log, new_group: bool
) -> tuple["subprocess.Popen[bytes]", Channel]:
    """Run `python -m module` with the arguments as JSON; `fds` are passed on, under their names among them.

    A popen of a module is what works from a notebook: forks copy threads and file descriptors, and
    multiprocessing's spawn cannot import what a cell defined.
    """
    ours, theirs = Channel.pair()
    passed = {**fds, "channel": theirs.fileno()}
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps({**arguments, **passed})],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT if log is not None else None,
            cwd=paths.project(),  # the caller's folder is no place to import from
            pass_fds=tuple(passed.values()),
            start_new_session=new_group,  # an interrupted cell signals the kernel's whole group
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def ending(status: int) -> str:
    """Say how a process ended: its exit status, or the name of the signal."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"
