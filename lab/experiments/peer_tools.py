"""Our load generator beside every other one that is on this machine, on the same server at the same rate."""

import json
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
from lab.load.tools.tool import Job, Tool
from lab.study.run import Run

_NUMBERS = ("requests", "throughput_rps", "p50_s", "p90_s", "p99_s", "cpu_s", "server_count")


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


def compare(run: Run, rate_rps: int, duration_s: int) -> pd.DataFrame:
    """Let ours and every other load generator on this machine measure one quick server, one after the other.

    A row per tool, ours first: tool, schedule, resolution_s, requests, throughput_rps, p50_s, p90_s, p99_s,
    cpu_s (of its processes, from start to end), server_count, failure (why there are no numbers), doubts.
    """
    everyone = [OURS, *tools.present()]
    name = table_name("peers", [tool.name for tool in everyone], rate_rps, duration_s)
    return run.table(name, lambda: pd.DataFrame(_compare(everyone, rate_rps, duration_s)))


def _compare(everyone: list[Tool], rate_rps: int, duration_s: int) -> Iterator[dict[str, Any]]:
    for tool in everyone:
        row = {"tool": tool.name, "schedule": tool.schedule, "resolution_s": tool.resolution_s}
        with known_server() as server:
            try:
                seen = tools.run(tool, server.url, rate_rps=rate_rps, duration_s=duration_s)
            except LabError as error:  # another's tool may fail in any way; that is a finding, not an end
                yield row | dict.fromkeys(_NUMBERS, float("nan")) | {"failure": str(error), "doubts": ""}
                continue
            said = asdict(seen.numbers) | {"cpu_s": seen.cpu_s, "server_count": server.requests()}
        numbers = {name: float("nan") if said[name] is None else float(said[name]) for name in _NUMBERS}
        yield row | numbers | {"failure": "", "doubts": seen.numbers.doubts}
