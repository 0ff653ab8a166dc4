"""Our load generator beside every other one that is on this machine, on the same server at the same rate."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from lab import formats
from lab.errors import LabError
from lab.experiments.common import table_name
from lab.load import tools
from lab.load.known_server import known_server
from lab.load.tools.readers import Numbers
from lab.load.tools.tool import Job, Tool
from lab.study.run import Run

_NUMBERS = ("requests", "throughput_rps", "p50_s", "p90_s", "p99_s", "cpu_s", "server_count")

_FACTOR = 2.0
"""One run each, on a machine shared with the server: what differs by less is no disagreement."""

_RATE_OFF = 0.02

_JUDGED = ("p50", "p90")
"""Not p99: in a run of seconds the slowest hundredth is each tool's own start, connections and compiler."""


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


def compare_table(seen: pd.DataFrame) -> pd.DataFrame:
    """Put the tools side by side, in words."""
    cpu_s = 1000 * seen["cpu_s"] / seen["requests"]
    return pd.DataFrame(
        {
            "tool": seen["tool"],
            "sends": seen["schedule"],
            "throughput": seen["throughput_rps"].map(formats.per_second),
            "p50": seen["p50_s"].map(formats.seconds),
            "p90": seen["p90_s"].map(formats.seconds),
            "p99": seen["p99_s"].map(formats.seconds),
            "rounded to": seen["resolution_s"].map(
                lambda value_s: formats.seconds(value_s) if value_s else ""
            ),
            "CPU per 1,000 requests": cpu_s.map(formats.seconds),
            "its count": seen["requests"].map(_whole),
            "server's count": seen["server_count"].map(_whole),
            "": seen["failure"].str.cat(seen["doubts"]),
        }
    )


def _whole(count: float) -> str:
    return "–" if pd.isna(count) else f"{count:,.0f}"


def title(seen: pd.DataFrame, rate_rps: int) -> str:
    """Say in a figure's title how many tools agree with ours."""
    remarks = _disagreements(seen)
    agree = sum(not remark for remark in remarks.values())
    others = formats.counted(len(remarks), "other tool")
    return f"At {rate_rps:,}/s {agree} of {others} agree with ours, as far as they tell"


def reading(seen: pd.DataFrame, rate_rps: int) -> str:
    """Say who agrees with ours and who does not, on latency, rate and count, and who is not here."""
    parts = [_ours(seen.iloc[0]), _agreement(seen), _rates(seen, rate_rps), _counts(seen), _absent(seen)]
    return "\n".join(f"- {part}" for part in parts if part)


def _ours(ours: "pd.Series[Any]") -> str:
    if ours["failure"]:
        return f"**Ours gave no numbers**: {ours['failure']}."
    return f"**Ours does not believe itself here**: {ours['doubts']}." if ours["doubts"] else ""


def _asked(seen: pd.DataFrame) -> pd.DataFrame:
    """Return the other tools that were told the rate: a closed loop knows none."""
    others = seen.iloc[1:]
    return others[others["schedule"] != "closed"]


def _agreement(seen: pd.DataFrame) -> str:
    remarks = _disagreements(seen)
    if seen.iloc[0]["failure"]:
        return ""
    if not remarks:
        return "No other tool that keeps to a rate is here: only known answers say whether ours is right."
    agree = [name for name, remark in remarks.items() if not remark]
    differ = [f"**{name}** does not: {remark}." for name, remark in remarks.items() if remark]
    others = formats.counted(len(remarks), "other tool")
    lead = (
        f"{len(agree)} of {others} that can keep to a rate agree with ours on {' and '.join(_JUDGED)}, "
        f"within {_FACTOR:g} times and what they round away"
    )
    return " ".join([f"{lead}{': ' + ', '.join(agree) if agree else ''}.", *differ])


def _disagreements(seen: pd.DataFrame) -> dict[str, str]:
    """Say for each tool that was told the rate where it disagrees with ours; nothing if it does not."""
    return {row["tool"]: _disagreement(row, seen.iloc[0]) for _, row in _asked(seen).iterrows()}


def _disagreement(row: "pd.Series[Any]", ours: "pd.Series[Any]") -> str:
    if row["failure"]:
        return f"it gave no numbers ({row['failure']})"
    remarks = []
    for name in _JUDGED:
        theirs_s, ours_s, rounded_s = row[f"{name}_s"], ours[f"{name}_s"], row["resolution_s"]
        if theirs_s > ours_s * _FACTOR + rounded_s or theirs_s < ours_s / _FACTOR - rounded_s:
            remarks.append(f"{name} {formats.seconds(theirs_s)}, ours {formats.seconds(ours_s)}")
    return "; ".join(remarks)


def _rates(seen: pd.DataFrame, rate_rps: int) -> str:
    asked = pd.concat([seen.iloc[:1], _asked(seen)])
    off = asked[(asked["throughput_rps"] / rate_rps - 1).abs() > _RATE_OFF]
    listed = [f"{row['tool']} got {formats.per_second(row['throughput_rps'])}" for _, row in off.iterrows()]
    return f"Asked for {rate_rps:,}/s, {' and '.join(listed)}." if listed else ""


def _counts(seen: pd.DataFrame) -> str:
    told = seen[seen["failure"] == ""]
    differ = told[told["requests"] != told["server_count"]]
    if differ.empty:
        return "Every tool's count of requests is the server's." if len(told) else ""
    listed = ", ".join(
        f"{row['tool']} counts {_whole(row['requests'])} and the server {_whole(row['server_count'])}"
        for _, row in differ.iterrows()
    )
    return f"Counts that are not the server's: {listed}."


def _absent(seen: pd.DataFrame) -> str:
    names = [tool.name for tool in tools.TOOLS if tool.name not in set(seen["tool"])]
    return f"Not on this machine: {', '.join(names)}." if names else ""
