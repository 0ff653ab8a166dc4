"""Forked processes: what they inherit and what not, how they end, and that none is left behind."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.channel import Channel
from lab.forks import Forked, fork_with_channel
from lab.processes import begin, run_loop

PATIENCE_S = 30.0
LINES = 3000

CHATTY = """
import asyncio
from test_forks import _forked, run_loop, writes_much
async def main():
    process, _ = await _forked(writes_much)
    process.wait()
run_loop(main())
"""


def starts(text: str) -> Channel:
    """Begin as a process of ours does; return its channel."""
    arguments = json.loads(text)
    begin(arguments["channel"])
    return Channel.adopt(arguments["channel"])


def answers(text: str) -> None:
    """Say who it is, and what it has inherited; go when asked to."""
    channel = starts(text)
    opened = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    channel.send(
        {"pid": os.getpid(), "parent": os.getppid(), "said": json.loads(text)["said"], "fds": opened}
    )
    channel.next()


async def loops(channel: Channel) -> None:
    """Run a loop of its own."""
    await asyncio.sleep(0)
    channel.send({"handled": signal.getsignal(signal.SIGTERM) != signal.SIG_DFL})


def runs_a_loop(text: str) -> None:
    run_loop(loops(starts(text)))


def fails(text: str) -> None:
    starts(text)
    raise RuntimeError("no luck")


def exits(text: str) -> None:
    starts(text)
    sys.exit(3)


def writes_much(text: str) -> None:
    starts(text)
    for line in range(LINES):
        logging.info("line %d", line)


def waits(text: str) -> None:
    starts(text).next()


async def _forked(body: Callable[[str], None], **fds: int) -> tuple[Forked, Channel]:
    return await asyncio.wait_for(fork_with_channel(body, {"said": "so"}, fds=fds), PATIENCE_S)


def test_it_is_our_child_with_its_arguments_and_no_socket_of_ours() -> None:
    async def main() -> None:
        with socket.socket() as ours, socket.socket() as passed:
            process, channel = await _forked(answers, listener=passed.fileno())
            said = channel.next(PATIENCE_S)
            assert (said["pid"], said["parent"], said["said"]) == (process.pid, os.getpid(), "so")
            assert passed.fileno() in said["fds"]
            assert ours.fileno() not in said["fds"]
            channel.send({})
            assert process.wait() == 0
            channel.close()

    run_loop(main())


def test_a_connection_that_ends_here_does_not_stay_open_there() -> None:
    async def main() -> None:
        near, far = socket.socketpair()
        process, channel = await _forked(waits)
        near.close()
        far.settimeout(PATIENCE_S)
        assert far.recv(1) == b"", "closed for good"
        far.close()
        process.kill()
        assert process.wait() == -signal.SIGKILL
        channel.close()

    run_loop(main())


@pytest.mark.parametrize("run", [run_loop, asyncio.run])
def test_it_may_run_a_loop_and_hears_no_signal_as_its_parent_does(run: Callable[..., Any]) -> None:
    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)
        process, channel = await _forked(runs_a_loop)
        assert channel.next(PATIENCE_S) == {"handled": False}
        assert process.wait() == 0
        channel.close()

    run(main())


@pytest.mark.parametrize(("body", "status"), [(exits, 3), (fails, 1)])
def test_how_it_ends(body: Callable[[str], None], status: int) -> None:
    async def main() -> None:
        process, channel = await _forked(body)
        assert process.wait() == status
        channel.close()

    run_loop(main())


def test_all_that_it_logged_is_in_a_log_that_somebody_reads() -> None:
    command = [sys.executable, "-c", CHATTY]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, stderr=subprocess.PIPE, check=True, timeout=PATIENCE_S
    )
    lines = done.stderr.splitlines()
    assert len(lines) == LINES
    assert lines[-1].endswith(b"line %d" % (LINES - 1))


def test_it_ends_when_its_channel_is_closed() -> None:
    async def main() -> None:
        process, channel = await _forked(waits)
        others = [await _forked(waits) for _ in range(2)]  # which must hold no copy of it
        channel.close()
        assert process.wait() == 1
        for other, its_channel in others:
            assert psutil.Process(other.pid).is_running()
            its_channel.close()
            assert other.wait() == 1

    run_loop(main())


def test_a_fork_that_nobody_waits_for_any_more_leaves_no_process() -> None:
    async def main() -> None:
        for steps in range(3):  # before it begins, before the fork, after it
            forking = asyncio.create_task(fork_with_channel(waits, {}, fds={}))
            for _ in range(steps):
                await asyncio.sleep(0)
            forking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await forking
            assert not psutil.Process().children()

    run_loop(main())
