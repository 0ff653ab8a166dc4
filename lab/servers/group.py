"""The end of a process group: by force, and proven."""

import contextlib
import os
import signal
import time

from lab.errors import LabError

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
