"""Processes that end with their starter: how one starts another, and how the other begins."""

import json
import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, Any

from lab import paths
from lab.servers import lifeline
from lab.servers.channel import Channel


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
            cwd=paths.project(),  # the caller's folder is no place to import from
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
    lifeline.tie(channel)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every connection that waits is a file
    return Channel.adopt(channel)


def ending(status: int) -> str:
    """Say how a process ended: its exit status, or the name of the signal."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"
