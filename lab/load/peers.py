"""Peers, other load generators for comparison: how each is found, told what to do, run, and read."""

import csv
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lab import processes
from lab.errors import LabError
from lab.flags import Flag
from lab.programs import find

_GRACE_S = 20.0
"""Time for a tool to start and to write its report."""


@dataclass(frozen=True)
class Numbers:
    """One run as a tool sees it; None where it does not say. Statuses from 200 to 399 are ok."""

    requests: int
    throughput_rps: float
    """Requests answered well per second."""
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    flags: tuple[Flag, ...] = ()
    """Why the tool itself doubts them."""


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


def read_wrk(out: str) -> Numbers:
    """Read `wrk --latency`: numbers with units, and a line for errors if there are any."""
    requests = int(_word(r"(\d+) requests in", out))
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    ok = requests - (int(failed[1]) if failed else 0)
    quantiles_s = {int(p): _with_unit(value) for p, value in re.findall(r"^\s+(\d+)%\s+(\S+)$", out, re.M)}
    return _numbers(requests, ok, float(_word(r"Requests/sec:\s+(\S+)", out)), quantiles_s)


def read_hey(out: str) -> Numbers:
    """Read hey's summary: seconds, to a tenth of a millisecond."""
    statuses = {int(s): int(count) for s, count in re.findall(r"\[(\d{3})\]\s+(\d+) responses", out)}
    quantiles_s = {int(p): float(value) for p, value in re.findall(r"(\d+)%+ in ([\d.]+) secs", out)}
    errors = out.partition("Error distribution")[2]
    failed = [int(count) for count in re.findall(r"^\s*\[(\d+)\]\s+\D", errors, re.MULTILINE)]
    ok = sum(count for status, count in statuses.items() if 200 <= status < 400)
    rate_rps = float(_word(r"Requests/sec:\s+(\S+)", out))
    return _numbers(sum(statuses.values()) + sum(failed), ok, rate_rps, quantiles_s)


def read_ab(out: str, percentiles: str) -> Numbers:
    """Read ApacheBench's report, and the file of its option -e: milliseconds for each percent."""
    rows = {row[0]: row[1] for row in csv.reader(percentiles.splitlines()) if len(row) == 2}
    requests = int(_word(r"Complete requests:\s+(\d+)", out))
    other = re.search(r"Non-2xx responses:\s+(\d+)", out)
    ok = requests - (int(other[1]) if other else 0)
    rate_rps = float(_word(r"Requests per second:\s+(\S+)", out))
    return _numbers(requests, ok, rate_rps, {p: float(rows[str(p)]) / 1000 for p in _PERCENTILES})


def read_autocannon(out: str) -> Numbers:
    """Read `autocannon --json`: whole milliseconds, and a throughput that is a mean of seconds."""
    said = json.loads(out)
    requests = said["requests"]["total"] + said["errors"]
    quantiles_s = {p: said["latency"][f"p{p}"] / 1000 for p in _PERCENTILES}
    return _numbers(requests, said["2xx"] + said["3xx"], requests / said["duration"], quantiles_s)


def read_loadtest(out: str) -> Numbers:
    """Read the report of npm's loadtest: whole milliseconds."""
    quantiles_s = {int(p): float(ms) / 1000 for p, ms in re.findall(r"^\s*(\d+)%\s+(\S+) ms", out, re.M)}
    requests = int(_word(r"Completed requests:\s+(\d+)", out))
    ok = requests - int(_word(r"Total errors:\s+(\d+)", out))
    return _numbers(requests, ok, float(_word(r"Effective rps:\s+(\S+)", out)), quantiles_s)


def read_locust(out: str) -> Numbers:
    """Read `locust --json`: a count for each rounded response time, in milliseconds."""
    said = next(entry for entry in json.loads(out) if entry["num_requests"])
    requests, elapsed_s = said["num_requests"], said["last_request_timestamp"] - said["start_time"]
    counts = sorted((float(time_ms) / 1000, count) for time_ms, count in said["response_times"].items())
    quantiles_s = {p: _quantile(counts, p / 100) for p in _PERCENTILES}
    return _numbers(requests, requests - said["num_failures"], requests / elapsed_s, quantiles_s)


_PERCENTILES = (50, 90, 99)


def _numbers(requests: int, ok: int, rate_rps: float, quantiles_s: Mapping[int, float]) -> Numbers:
    """Put together what a tool says; `rate_rps` is of all answers, also of those that were not ok."""
    p50_s, p90_s, p99_s = map(quantiles_s.get, _PERCENTILES)
    return Numbers(requests, rate_rps * ok / max(requests, 1), p50_s, p90_s, p99_s)


def _quantile(counts: list[tuple[float, int]], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed."""
    rest = share * sum(count for _, count in counts)
    for value, count in counts:
        rest -= count
        if rest <= 0:
            return value
    return counts[-1][0]


def _words(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise ValueError(f"no match of {pattern!r}")
    return tuple(str(group) for group in found.groups())


def _word(pattern: str, text: str) -> str:
    return _words(pattern, text)[0]


def _with_unit(text: str) -> float:
    value, unit = _words(r"^([\d.]+)(us|ms|s|m|h)$", text)
    return float(value) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}[unit]


TOOLS = (
    Tool("wrk", "closed", _wrk, lambda out, _: read_wrk(out)),
    Tool("hey", "paced", _hey, lambda out, _: read_hey(out), resolution_s=1e-4),
    Tool("ab", "closed", _ab, lambda out, job: read_ab(out, (job.folder / "percentiles").read_text())),
    Tool("autocannon", "paced", _autocannon, lambda out, _: read_autocannon(out), resolution_s=1e-3),
    Tool("loadtest", "paced", _loadtest, lambda out, _: read_loadtest(out), resolution_s=1e-3),
    Tool("locust", "paced", _locust, lambda out, _: read_locust(out), resolution_s=1e-3),
)
"""`wrk` and `ab` know no rate: they show what they can get through, whatever was asked for."""


def present() -> list[Tool]:
    """Return the tools that are on this machine."""
    return [tool for tool in TOOLS if find(tool.name)]


def absent() -> list[str]:
    """Return the names of the tools that are not."""
    return [tool.name for tool in TOOLS if not find(tool.name)]
