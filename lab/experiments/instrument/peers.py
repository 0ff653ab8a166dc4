"""Our load generator beside every other one that is on this machine, on the same server at the same rate."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from lab import units
from lab.errors import LabError
from lab.experiments.common import table_name
from lab.load import peers
from lab.load.peers.reports import Numbers
from lab.load.peers.tools import Job, Measured, Tool
from lab.load.reference_server import known_server
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
    everyone = [OURS, *peers.present()]
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
            few = peers.run(tool, server.url, rate_rps=_FEW_RPS, duration_s=_FEW_S)
        before = server.requests()
        seen = peers.run(tool, server.url, rate_rps=rate_rps, duration_s=duration_s)
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


_FACTOR = 1.2
"""One run each, on a machine shared with the server: what differs by less is no disagreement."""

_COARSE = 0.1
"""Whoever rounds to more than this share of our p50 cannot tell whether it agrees."""

_RATE_OFF = 0.02

_JUDGED = {"p50": 0.5, "p90": 0.9}
"""Not p99: in a run of seconds the slowest hundredth is each tool's own start, connections and compiler."""

_AGREES, _DIFFERS, _CANNOT_TELL = "agrees", "does not", "cannot tell"


def table(seen: pd.DataFrame) -> pd.DataFrame:
    """Put the tools side by side, in words."""
    cpu = costs(seen)
    return pd.DataFrame(
        {
            "tool": seen["tool"],
            "sends": seen["schedule"],
            "throughput": seen["throughput_rps"].map(units.per_second),
            "p50": seen["p50_s"].map(units.seconds),
            "p90": seen["p90_s"].map(units.seconds),
            "p99": seen["p99_s"].map(units.seconds),
            "rounded to": seen["resolution_s"].map(lambda value_s: units.seconds(value_s) if value_s else ""),
            "CPU to start and end": cpu["start_s"].map(units.seconds),
            "CPU per 1,000 requests": [_per_thousand(row) for _, row in cpu.iterrows()],
            "its count": seen["requests"].map(_whole),
            "server's count": seen["server_count"].map(_whole),
            "": seen["failure"].str.cat(seen["doubts"]),
        }
    )


def _per_thousand(cost: "pd.Series[float]") -> str:
    cost_s, off_s = 1000 * cost["request_s"], 1000 * cost["off_s"]
    if cost_s < off_s:
        return f"under {units.seconds(2 * off_s)}"
    return f"{units.seconds(cost_s)} ± {units.seconds(off_s)}" if pd.notna(cost_s) else "–"


def _whole(count: float) -> str:
    return "–" if pd.isna(count) else f"{count:,.0f}"


def title(seen: pd.DataFrame, rate_rps: int) -> str:
    """Say in a figure's title how many tools agree with ours."""
    if _lacking(seen.iloc[0]):
        return f"At {rate_rps:,}/s ours gave no numbers to compare others with"
    verdicts = _verdicts(seen)
    if verdicts.empty:
        return f"No other tool that keeps to a rate is here: at {rate_rps:,}/s there is only ours"
    unsure = (verdicts["verdict"] == _CANNOT_TELL).sum()
    return f"At {rate_rps:,}/s {_agree(verdicts)} with ours{f', {unsure} cannot tell' if unsure else ''}"


def _agree(verdicts: pd.DataFrame) -> str:
    agree = (verdicts["verdict"] == _AGREES).sum()
    others = units.counted(len(verdicts), "other tool")
    return f"{agree} of {others} {'agrees' if agree == 1 else 'agree'}"


def reading(seen: pd.DataFrame, rate_rps: int) -> str:
    """Say who agrees with ours and who does not, on latency, rate and count, and who is not here."""
    parts = [_ours(seen.iloc[0]), _agreement(seen), _rates(seen, rate_rps), _counts(seen), _absent(seen)]
    return "\n".join(f"- {part}" for part in parts if part)


def _ours(ours: "pd.Series[Any]") -> str:
    if lacking := _lacking(ours):
        return f"**Ours cannot be compared**: {lacking}."
    known = " and ".join(f"{name} {units.seconds(known_s(share))}" for name, share in _JUDGED.items())
    said = " and ".join(units.seconds(ours[f"{name}_s"]) for name in _JUDGED)
    doubts = f" **Ours does not believe itself here**: {ours['doubts']}." if ours["doubts"] else ""
    return f"The server waits before each answer, {known}; ours reads {said}.{doubts}"


def _asked(seen: pd.DataFrame) -> pd.DataFrame:
    """Return the other tools that were told the rate: a closed loop knows none."""
    others = seen.iloc[1:]
    return others[others["schedule"] != "closed"]


def _agreement(seen: pd.DataFrame) -> str:
    if _lacking(seen.iloc[0]):
        return ""
    verdicts = _verdicts(seen)
    if verdicts.empty:
        return "No other tool that keeps to a rate is here: only known answers say whether ours is right."
    names = verdicts.loc[verdicts["verdict"] == _AGREES, "tool"]
    others = verdicts[verdicts["verdict"] != _AGREES]
    remarks = [f"**{row['tool']}** {row['verdict']}: {row['why']}." for _, row in others.iterrows()]
    lead = (
        f"Of those that can keep to a rate, {_agree(verdicts)} with ours on {' and '.join(_JUDGED)}, "
        f"within {_FACTOR:g} times and what they round away"
    )
    return " ".join([f"{lead}{': ' + ', '.join(names) if len(names) else ''}.", *remarks])


def _verdicts(seen: pd.DataFrame) -> pd.DataFrame:
    """Return tool, verdict and why, a row for each other tool that was told the rate."""
    judged = [(row["tool"], *_verdict(row, seen.iloc[0])) for _, row in _asked(seen).iterrows()]
    return pd.DataFrame(judged, columns=["tool", "verdict", "why"])


def _verdict(row: "pd.Series[Any]", ours: "pd.Series[Any]") -> tuple[str, str]:
    differ, rounded_s = [], row["resolution_s"]
    for name in _JUDGED:
        theirs_s, ours_s = row[f"{name}_s"], ours[f"{name}_s"]
        if theirs_s > ours_s * _FACTOR + rounded_s or theirs_s < ours_s / _FACTOR - rounded_s:
            differ.append(f"{name} {units.seconds(theirs_s)}, ours {units.seconds(ours_s)}")
    if differ:
        return _DIFFERS, "; ".join(differ)
    if lacking := _lacking(row):
        return _CANNOT_TELL, lacking
    if rounded_s > _COARSE * ours["p50_s"]:
        return _CANNOT_TELL, f"it rounds to {units.seconds(rounded_s)}, over a tenth of our p50"
    return _AGREES, ""


def _lacking(row: "pd.Series[Any]") -> str:
    """Say why there is nothing to judge; nothing if there is."""
    if row["failure"]:
        return f"it gave no numbers ({row['failure']})"
    absent = [name for name in _JUDGED if pd.isna(row[f"{name}_s"])]
    return f"it gave no {' and no '.join(absent)}" if absent else ""


def _rates(seen: pd.DataFrame, rate_rps: int) -> str:
    asked = pd.concat([seen.iloc[:1], _asked(seen)])
    off = asked[(asked["throughput_rps"] / rate_rps - 1).abs() > _RATE_OFF]
    listed = [f"{row['tool']} got {units.per_second(row['throughput_rps'])}" for _, row in off.iterrows()]
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
    names = [tool.name for tool in peers.TOOLS if tool.name not in set(seen["tool"])]
    return f"Not on this machine: {', '.join(names)}." if names else ""
