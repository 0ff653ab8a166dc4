"""Our load generator beside every other one that is on this machine, on the same server at the same rate."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from lab.errors import LabError
from lab.experiments.common import table_name
from lab.load import tools
from lab.load.known_server import known_server
from lab.load.tools.readers import Numbers
from lab.load.tools.tool import Job, Measured, Tool
from lab.study.run import Run

_NUMBERS = (
    "requests", "throughput_rps", "p50_s", "p90_s", "p99_s", "cpu_s", "server_count", "few_requests",
    "few_cpu_s",
)  # fmt: skip


def _attack(job: Job) -> list[str]:
    how_much = ["--rate", f"{job.rate_rps}", "--duration", f"{job.duration_s}s", "--keepalive"]
    return [sys.executable, "-m", "lab", "attack", job.url, *how_much, "--format", "json"]


def _read_attack(out: str, _: Job) -> Numbers:
    said = json.loads(out)
    latency_s = {f"{name}_s": said["latency_s"][name] for name in ("mean", "p50", "p90", "p99", "max")}
    counts = {"requests": said["requests"], "ok": said["ok"], "throughput_rps": said["throughput"]}
    return Numbers(**counts, **latency_s, doubts="; ".join(said["invalid_because"]))


OURS = Tool("lab attack", "open", _attack, _read_attack)
"""Run as a command like all others, so that its CPU seconds are those of whole processes too."""


WAITS_S = (0.006, 0.016)
"""Of the server's answers, evenly spread: long beside a millisecond, which some tools round to, yet so short
that ten connections which wait for answers keep to 500 requests/s."""

_FEW_RPS, _FEW_S = 20, 1
"""A second and shorter run of each tool: what it costs to start and to report."""

_STARTS_DIFFER = 0.1
"""As measured, by this share at most, mostly: one start of a tool costs more CPU time than another."""


def compare(run: Run, rate_rps: int, duration_s: int) -> pd.DataFrame:
    """Let ours and every other load generator on this machine measure one known server, one after the other.

    A row per tool, ours first: tool, schedule, resolution_s, requests, throughput_rps, p50_s, p90_s, p99_s,
    cpu_s (of its processes, from start to end), server_count, few_requests and few_cpu_s (of a run of a few
    requests), failure (why there are no numbers), doubts.
    """
    everyone = [OURS, *tools.present()]
    settings = rate_rps, duration_s, WAITS_S, _FEW_RPS, _FEW_S
    name = table_name("peers", [tool.name for tool in everyone], *settings)
    return run.table(name, lambda: pd.DataFrame(_compare(everyone, rate_rps, duration_s)))


def _compare(everyone: list[Tool], rate_rps: int, duration_s: int) -> Iterator[dict[str, Any]]:
    for tool in everyone:
        row: dict[str, Any] = {
            "tool": tool.name, "schedule": tool.schedule, "resolution_s": tool.resolution_s,
            "failure": "", "doubts": "", **dict.fromkeys(_NUMBERS, math.nan),
        }  # fmt: skip
        try:
            few, seen, server_count = _ask(tool, rate_rps, duration_s)
        except LabError as error:  # another's tool may fail in any way; that is a finding, not an end
            yield row | {"failure": str(error)}
            continue
        said = asdict(seen.numbers) | {
            "cpu_s": seen.cpu_s, "server_count": server_count,
            "few_requests": few.numbers.requests if few else None, "few_cpu_s": few.cpu_s if few else None,
        }  # fmt: skip
        numbers = {name: float(said[name]) for name in _NUMBERS if said[name] is not None}
        yield row | numbers | {"doubts": seen.numbers.doubts}


def _ask(tool: Tool, rate_rps: int, duration_s: int) -> tuple[Measured | None, Measured, int]:
    """Run a tool for a few requests and then as asked; return also how many the server read of the latter."""
    with known_server(waits_s=WAITS_S) as server:
        few = None
        with contextlib.suppress(LabError):  # one that is slow to start may have sent nothing by then
            few = tools.run(tool, server.url, rate_rps=_FEW_RPS, duration_s=_FEW_S)
        before = server.requests()
        seen = tools.run(tool, server.url, rate_rps=rate_rps, duration_s=duration_s)
        return few, seen, server.requests() - before


def known_s(share: float) -> float:
    """Return a quantile of the server's waits."""
    least_s, most_s = WAITS_S
    return least_s + share * (most_s - least_s)


def costs(seen: pd.DataFrame) -> pd.DataFrame:
    """Return for each tool start_s and request_s, CPU seconds, so that both of its runs cost what they did.

    Starting includes ending and reporting. `off_s` is how far `request_s` may be off, as starts differ. NaN
    if the longer run had no more requests than the shorter.
    """
    more = (seen["requests"] - seen["few_requests"]).where(lambda count: count > 0)
    request_s = (seen["cpu_s"] - seen["few_cpu_s"]) / more
    start_s = seen["few_cpu_s"] - seen["few_requests"] * request_s
    off_s = _STARTS_DIFFER * start_s.abs() / more
    return pd.DataFrame({"start_s": start_s, "request_s": request_s, "off_s": off_s})
