"""No process outlives the one that started it: a thread waits for the other end of the channel to close."""

import os
import select
import signal
import threading


def tie(fd: int) -> None:
    """End this process, and the group that it leads, as soon as the process at the other end of `fd` is gone.

    A thread does it, because an event loop is deaf while the hot loop blocks it; and it waits for the hang-up
    alone, because what arrives on `fd` is for others to read.
    """
    threading.Thread(target=_end_after, args=(fd,), name="lifeline", daemon=True).start()


def wait_for_hang_up(fd: int) -> None:
    """Return when the other end of a pipe, socket or terminal is closed; nothing is read from it."""
    poll = select.poll()
    poll.register(fd, 0)
    poll.poll()


def _end_after(fd: int) -> None:
    wait_for_hang_up(fd)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
