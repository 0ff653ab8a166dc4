"""The load generators that can be compared with: how each is told the same job."""

import subprocess
from urllib.parse import urlsplit

from lab.load.tools import readers
from lab.load.tools.readers import Numbers
from lab.load.tools.tool import Job, Tool, find

_LOCUSTFILE = """\
from locust import FastHttpUser, constant_throughput, task


class User(FastHttpUser):
    wait_time = constant_throughput({rate_per_user})

    @task
    def ask(self):
        self.client.get({path!r})
"""

_K6_SCRIPT = """\
import http from "k6/http";
export const options = {{
  summaryTrendStats: ["avg", "med", "p(90)", "p(99)", "max"],
  scenarios: {{ constant: {{
    executor: "constant-arrival-rate", rate: {rate}, timeUnit: "1s", duration: "{duration}s",
    preAllocatedVUs: {connections}, maxVUs: 10000,
  }} }},
}};
export default function () {{ http.get({url!r}); }}
"""


def _vegeta(job: Job) -> list[str]:
    (job.folder / "targets").write_text(f"GET {job.url}\n")
    options = [
        "-targets=targets",
        "-output=results",
        f"-rate={job.rate_rps}/1s",
        f"-duration={job.duration_s}s",
    ]
    return ["vegeta", "attack", *options]


def _read_vegeta(_: str, job: Job) -> Numbers:
    command = [find("vegeta") or "vegeta", "report", "-type=json", str(job.folder / "results")]
    return readers.vegeta(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _wrk(job: Job) -> list[str]:
    return ["wrk", "-t1", f"-c{job.connections}", f"-d{job.duration_s}s", "--latency", job.url]


def _hey(job: Job) -> list[str]:
    each_rps = job.rate_rps / job.connections
    return ["hey", "-z", f"{job.duration_s}s", "-c", f"{job.connections}", "-q", f"{each_rps:g}", job.url]


def _ab(job: Job) -> list[str]:
    planned = job.rate_rps * job.duration_s
    return ["ab", "-k", "-q", "-n", f"{planned}", "-c", f"{job.connections}", "-e", "percentiles", job.url]


def _read_ab(out: str, job: Job) -> Numbers:
    return readers.ab(out, (job.folder / "percentiles").read_text().splitlines())


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


def _k6(job: Job) -> list[str]:
    script = _K6_SCRIPT.format(
        rate=job.rate_rps, duration=job.duration_s, connections=job.connections, url=job.url
    )
    (job.folder / "script.js").write_text(script)
    return ["k6", "run", "--quiet", "--no-usage-report", "--summary-export", "summary.json", "script.js"]


def _read_k6(_: str, job: Job) -> Numbers:
    return readers.k6((job.folder / "summary.json").read_text())


def _oha(job: Job) -> list[str]:
    how_much = ["-z", f"{job.duration_s}s", "-q", f"{job.rate_rps}", "-c", f"{job.connections}"]
    return ["oha", "--no-tui", "--output-format", "json", *how_much, job.url]


TOOLS = (
    Tool("vegeta", "open", _vegeta, _read_vegeta),
    Tool("wrk", "closed", _wrk, lambda out, _: readers.wrk(out)),
    Tool("hey", "paced", _hey, lambda out, _: readers.hey(out), resolution_s=1e-4),
    Tool("ab", "closed", _ab, _read_ab),
    Tool("autocannon", "paced", _autocannon, lambda out, _: readers.autocannon(out), resolution_s=1e-3),
    Tool("loadtest", "paced", _loadtest, lambda out, _: readers.loadtest(out), resolution_s=1e-3),
    Tool("locust", "paced", _locust, lambda out, _: readers.locust(out), resolution_s=1e-3),
    Tool("k6", "open", _k6, _read_k6),
    Tool("oha", "paced", _oha, lambda out, _: readers.oha(out)),
)
"""`wrk` and `ab` know no rate: they show what they can get through, not what was asked for."""


def present() -> list[Tool]:
    """Return the tools that are on this machine."""
    return [tool for tool in TOOLS if find(tool.name)]


def absent() -> list[str]:
    """Return the names of the tools that are not."""
    return [tool.name for tool in TOOLS if not find(tool.name)]
