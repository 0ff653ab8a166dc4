"""Our load generator beside every other one that is on this machine, on the same server at the same rate."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from lab import formats
from lab.experiments.common import table_name
from lab.load import attack, tools
from lab.load.known_server import known_server
from lab.study.run import Run

_OURS = "lab attack"


def compare(run: Run, rate_rps: int, duration_s: int) -> pd.DataFrame:
    """Let ours and every other load generator on this machine measure one quick server, one after the other.

    A row per tool: tool, schedule, requests, throughput_rps, p50_s, p90_s, p99_s, cpu_s, server_count,
    failure (why there are no numbers).
    """
    names = [tool.name for tool in tools.present()]
    name = table_name("tools", names, rate_rps, duration_s)
    return run.table(name, lambda: pd.DataFrame(_compare(rate_rps, duration_s)))


def _compare(rate_rps: int, duration_s: int) -> Iterator[dict[str, Any]]:
    yield _ours(rate_rps, duration_s)
    for tool in tools.present():
        row = {"tool": tool.name, "schedule": tool.schedule, "failure": ""}
        with known_server() as server:
            try:
                seen = tools.run(tool, server.url, rate_rps=rate_rps, duration_s=duration_s)
            except Exception as error:  # another's tool may fail in any way; that is a finding, not an end
                yield row | {"failure": str(error)}
                continue
            numbers = asdict(seen.numbers)
            wanted = ("requests", "throughput_rps", "p50_s", "p90_s", "p99_s")
            yield (
                row
                | {key: numbers[key] for key in wanted}
                | {
                    "cpu_s": seen.cpu_s,
                    "server_count": server.requests(),
                }
            )


def _ours(rate_rps: int, duration_s: int) -> dict[str, Any]:
    with known_server() as server:
        summary = attack(server.url, rate=rate_rps, duration=duration_s, keepalive=True).summary
        return {
            "tool": _OURS,
            "schedule": "open",
            "failure": "",
            "requests": summary["requests"],
            "throughput_rps": summary["throughput"],
            **{f"{name}_s": summary["latency_s"][name] for name in ("p50", "p90", "p99")},
            "cpu_s": summary["generator"]["cpu_s"],
            "server_count": server.requests(),
        }


def compare_table(tools_seen: pd.DataFrame) -> pd.DataFrame:
    """Put the tools side by side, in words."""
    cpu_s = 1000 * tools_seen["cpu_s"] / tools_seen["requests"]
    return pd.DataFrame(
        {
            "tool": tools_seen["tool"],
            "sends": tools_seen["schedule"],
            "throughput": tools_seen["throughput_rps"].map(formats.per_second),
            "p50": tools_seen["p50_s"].map(formats.seconds),
            "p99": tools_seen["p99_s"].map(formats.seconds),
            "CPU per 1,000 requests": cpu_s.map(formats.seconds),
            "its count": tools_seen["requests"].map(formats.digits),
            "server's count": tools_seen["server_count"].map(formats.digits),
            "": tools_seen["failure"],
        }
    )


def absent() -> str:
    """Name the tools that could have been compared with and are not here."""
    names = tools.absent()
    return f"Not on this machine: {', '.join(names)}." if names else "Every known tool is on this machine."
