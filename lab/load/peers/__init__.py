"""Peers, other load generators for comparison: how each is found, told what to do, run, and read."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lab import files, processes
from lab.errors import LabError
from lab.load.peers import reports
from lab.load.peers.reports import Numbers

_GRACE_S = 20.0
"""Time for a tool to start and to write its report."""


@dataclass(frozen=True)
class Job:
    """What a tool is asked to do. A tool that only knows connections waits for the answer on each."""

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
    """Gives the program, which `find` finds, and its arguments."""
    read: Callable[[str, Job], Numbers]
    """Gives the numbers, from what it printed and the files it wrote."""
    resolution_s: float = 0.0
    """Its latencies are rounded to this."""


@dataclass(frozen=True)
class Measured:
    """What a tool reports about one run, and what the run cost."""

    numbers: Numbers
    wall_s: float
    cpu_s: float
    """CPU time of the tool's processes, from start to end, and of those that write its report."""


def find(name: str) -> str | None:
    """Return the path of a program: on PATH, beside this Python, or in the project's node modules."""
    folders = [os.environ.get("PATH", ""), str(Path(sys.executable).parent)]
    if root := files.checkout():
        folders.append(str(root / "node_modules" / ".bin"))
    return shutil.which(name, path=os.pathsep.join(folders))


def run(tool: Tool, url: str, *, rate_rps: int, duration_s: int, connections: int = 10) -> Measured:
    """Have a tool load `url`, and return what it reports.

    Raises LabError if it fails, does not end, or reports something unreadable.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = Job(url, rate_rps, duration_s, connections, Path(folder))
        name, *arguments = tool.command(job)
        program = find(name)
        if program is None:
            raise LabError(f"{name} is not on this machine: install it, or compare with others")
        out, wall_s, cpu_s = _run([program, *arguments], job)
        try:
            numbers = tool.read(out, job)
        except Exception as error:  # the report of another version may be anything
            raise LabError(
                f"cannot read what {tool.name} says ({error!r}): is its version supported?"
            ) from error
    return Measured(numbers, wall_s, cpu_s)


def _run(command: list[str], job: Job) -> tuple[str, float, float]:
    """Run a program to its end; return what it printed, and its run time and CPU time in seconds."""
    name = Path(command[0]).name
    with (job.folder / "out").open("wb+") as out, (job.folder / "err").open("wb+") as err:
        with processes.start_program(command, cwd=job.folder, stdout=out, stderr=err) as program:
            began_s = time.monotonic()
            try:
                status = program.wait(job.duration_s + _GRACE_S)
            except TimeoutError:
                raise LabError(
                    f"{name} did not end in time: try it by hand, with {' '.join(command[1:])}"
                ) from None
            wall_s, cpu_s = time.monotonic() - began_s, program.cpu_s()
        out.seek(0)
        err.seek(0)
        if status:
            words = " ".join(err.read().decode(errors="replace").split()[-30:])
            raise LabError(f"{name} failed with {processes.ending(status)}: {words}")
        return out.read().decode(errors="replace"), wall_s, cpu_s


_LOCUSTFILE = """\
from locust import FastHttpUser, constant_throughput, task


class User(FastHttpUser):
    wait_time = constant_throughput({rate_per_user})

    @task
    def ask(self):
        self.client.get({path!r})
"""


def _wrk(job: Job) -> list[str]:
    return ["wrk", "-t1", f"-c{job.connections}", f"-d{job.duration_s}s", "--latency", job.url]


def _hey(job: Job) -> list[str]:
    each_rps = job.rate_rps / job.connections
    return ["hey", "-z", f"{job.duration_s}s", "-c", f"{job.connections}", "-q", f"{each_rps:g}", job.url]


def _ab(job: Job) -> list[str]:
    planned = job.rate_rps * job.duration_s
    return ["ab", "-k", "-q", "-n", f"{planned}", "-c", f"{job.connections}", "-e", "percentiles", job.url]


def _read_ab(out: str, job: Job) -> Numbers:
    return reports.ab(out, (job.folder / "percentiles").read_text().splitlines())


def _autocannon(job: Job) -> list[str]:
    how_much = ["-c", f"{job.connections}", "-d", f"{job.duration_s}", "-R", f"{job.rate_rps}"]
    return ["autocannon", "--json", "--no-progress", *how_much, job.url]


def _loadtest(job: Job) -> list[str]:
    how_much = ["-c", f"{job.connections}", "-t", f"{job.duration_s}", "--rps", f"{job.rate_rps}"]
    return ["loadtest", "-k", *how_much, job.url]


def _locust(job: Job) -> list[str]:
    parts = urlsplit(job.url)
    text = _LOCUSTFILE.format(rate_per_user=job.rate_rps / job.connections, path=parts.path or "/")
    (job.folder / "locustfile.py").write_text(text)
    how_much = ["-u", f"{job.connections}", "-r", f"{job.connections}", "-t", f"{job.duration_s}s"]
    target = ["--host", f"{parts.scheme}://{parts.netloc}", "--exit-code-on-error", "0"]
    return ["locust", "--headless", "--json", *target, *how_much]


TOOLS = (
    Tool("wrk", "closed", _wrk, lambda out, _: reports.wrk(out)),
    Tool("hey", "paced", _hey, lambda out, _: reports.hey(out), resolution_s=1e-4),
    Tool("ab", "closed", _ab, _read_ab),
    Tool("autocannon", "paced", _autocannon, lambda out, _: reports.autocannon(out), resolution_s=1e-3),
    Tool("loadtest", "paced", _loadtest, lambda out, _: reports.loadtest(out), resolution_s=1e-3),
    Tool("locust", "paced", _locust, lambda out, _: reports.locust(out), resolution_s=1e-3),
)
"""`wrk` and `ab` know no rate: they show what they can get through, whatever was asked for."""


def present() -> list[Tool]:
    """Return the tools that are on this machine."""
    return [tool for tool in TOOLS if find(tool.name)]


def absent() -> list[str]:
    """Return the names of the tools that are not."""
    return [tool.name for tool in TOOLS if not find(tool.name)]
