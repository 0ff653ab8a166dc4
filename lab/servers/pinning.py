"""CPU pinning, as a factor: the worker of a slot runs on one CPU alone."""

import os


def pin(slot: int) -> None:
    """Bind the calling thread, and those it starts, to one of the CPUs it may use, which take turns."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[slot % len(cpus)]})
