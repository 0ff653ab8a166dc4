"""A load generator of other people's: how it is found, told what to do, run, and read."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.errors import LabError
from lab.load.tools.readers import Numbers

_GRACE_S = 20.0
"""For a tool to start and to write its report."""


@dataclass(frozen=True)
class Job:
    """What a tool is asked to do. Those that only know a number of connections wait for answers on each."""

    url: str
    rate_rps: int
    duration_s: int
    connections: int
    folder: Path
    """For files that the tool writes or needs."""


@dataclass(frozen=True)
class Tool:
    """A load generator: how it is called, and how its report is read."""

    name: str
    schedule: str
    """When it sends: `open`, `closed`, or `paced`: a closed loop that keeps to a rate while it can."""
    command: Callable[[Job], list[str]]
    """The program, to be found as `find` does, and its arguments."""
    read: Callable[[str, Job], Numbers]
    """From what it printed, and the files it wrote."""
    resolution_s: float = 0.0
    """Its latencies are rounded to this."""


@dataclass(frozen=True)
class Measured:
    """What a tool reports about one run, and what the run cost."""

    numbers: Numbers
    wall_s: float
    cpu_s: float
    """Of the tool's processes, from start to end, and of those that write its report."""


def find(name: str) -> str | None:
    """Return the path of a program: on PATH, beside this Python, or in the project's node modules."""
    folders = [os.environ.get("PATH", ""), str(Path(sys.executable).parent)]
    folders.append(str(paths.project() / "node_modules" / ".bin"))
    return shutil.which(name, path=os.pathsep.join(folders))


def run(tool: Tool, url: str, *, rate_rps: int, duration_s: int, connections: int = 10) -> Measured:
    """Let a tool load `url`, and return what it says.

    Raises LabError if it fails, does not end, or says what cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = Job(url, rate_rps, duration_s, connections, Path(folder))
        name, *arguments = tool.command(job)
        program = find(name)
        if program is None:
            raise LabError(f"{name} is not on this machine: install it, or compare with others")
        before_s = _children_cpu_s()
        out, wall_s = _run([program, *arguments], job)
        try:
            numbers = tool.read(out, job)
        except Exception as error:  # the report of another version may be anything
            raise LabError(
                f"cannot read what {tool.name} says ({error!r}): is its version supported?"
            ) from error
    return Measured(numbers, wall_s, _children_cpu_s() - before_s)


def _children_cpu_s() -> float:
    """Return the CPU seconds of all processes that were started from here, and theirs, and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: list[str], job: Job) -> tuple[str, float]:
    """Run a program in a session of its own; return what it printed, and for how long it ran, in seconds."""
    name, began_s = Path(command[0]).name, time.monotonic()
    with (job.folder / "out").open("wb+") as out, (job.folder / "err").open("wb+") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=job.folder, start_new_session=True
        )
        try:
            process.wait(job.duration_s + _GRACE_S)
        except subprocess.TimeoutExpired:
            raise LabError(
                f"{name} did not end in time: try it by hand, with {' '.join(command[1:])}"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        wall_s = time.monotonic() - began_s
        out.seek(0)
        err.seek(0)
        if process.returncode:
            words = " ".join(err.read().decode(errors="replace").split()[-30:])
            raise LabError(f"{name} failed with status {process.returncode}: {words}")
        return out.read().decode(errors="replace"), wall_s
