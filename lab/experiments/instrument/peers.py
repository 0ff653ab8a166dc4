"""Our load generator beside every peer on this machine, on the same server at the same rate."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lab import units
from lab.errors import LabError
from lab.figures import HALO, LIGHTER, SERVERS, Look, canvas, plain_log_ticks
from lab.flags import Flag, in_words
from lab.load import peers
from lab.load.peers import Job, Measured, Numbers, Tool
from lab.load.reference_server import reference_server
from lab.study.run import Run, table_name

_NUMBERS = (
    "requests", "throughput_rps", "p50_s", "p90_s", "p99_s", "cpu_s", "server_count", "few_requests",
    "few_cpu_s",
)  # fmt: skip


def _attack(job: Job) -> list[str]:
    how_much = ["--rate", f"{job.rate_rps}", "--duration", f"{job.duration_s}s", "--keepalive"]
    return [sys.executable, "-P", "-m", "lab", "attack", job.url, *how_much, "--format", "json"]


def _read_attack(out: str, _: Job) -> Numbers:
    said = json.loads(out)
    p50_s, p90_s, p99_s = (said["latency_s"][name] for name in ("p50", "p90", "p99"))
    flags = tuple(map(Flag.from_dict, said["flags"]))
    return Numbers(said["requests"], said["throughput"], p50_s, p90_s, p99_s, flags)


OURS = Tool("lab attack", "open", _attack, _read_attack)
"""Run as a command, like all others, so that its CPU seconds are also those of whole processes."""


WAITS_S = (0.006, 0.016)
"""The server's waits before its answers, evenly spread: long compared with a millisecond, to which some tools
round, yet short enough for ten connections that wait for answers to keep to 500 requests/s."""

_FEW_RPS, _FEW_S = 20, 1
"""A second, shorter run of each tool: what it costs to start and to report."""

_STARTS_DIFFER = 0.1
"""By this share, as measured, one start of a tool may cost more CPU time than another."""


def compare(run: Run, rate_rps: int, duration_s: int) -> pd.DataFrame:
    """Have ours and every peer here measure a reference server, one by one.

    A row per tool, ours first: tool, schedule, resolution_s, requests, throughput_rps, p50_s, p90_s, p99_s,
    cpu_s (of its processes, from start to end), server_count, few_requests and few_cpu_s (of a run with a few
    requests), failure (why there are no numbers), flags (why it doubts itself).
    """
    everyone = [OURS, *peers.present()]
    settings = rate_rps, duration_s, WAITS_S, _FEW_RPS, _FEW_S
    name = table_name("tools", [tool.name for tool in everyone], *settings)
    return run.table(name, lambda: pd.DataFrame(_compare(everyone, rate_rps, duration_s)))


def _compare(everyone: list[Tool], rate_rps: int, duration_s: int) -> Iterator[dict[str, Any]]:
    for tool in everyone:
        row: dict[str, Any] = {
            "tool": tool.name, "schedule": tool.schedule, "resolution_s": tool.resolution_s,
            "failure": "", "flags": (), **dict.fromkeys(_NUMBERS, math.nan),
        }  # fmt: skip
        try:
            few, seen, server_count = _ask(tool, rate_rps, duration_s)
        except LabError as error:  # a peer may fail in any way; that is a finding, not the end
            yield row | {"failure": str(error)}
            continue
        said = vars(seen.numbers) | {
            "cpu_s": seen.cpu_s, "server_count": server_count,
            "few_requests": few.numbers.requests if few else None, "few_cpu_s": few.cpu_s if few else None,
        }  # fmt: skip
        numbers = {name: float(said[name]) for name in _NUMBERS if said[name] is not None}
        yield row | numbers | {"flags": seen.numbers.flags}


def _ask(tool: Tool, rate_rps: int, duration_s: int) -> tuple[Measured | None, Measured, int]:
    """Run a tool for a few requests, then as asked; also return how many of the latter the server read."""
    with reference_server(waits_s=WAITS_S) as server:
        few = None
        with contextlib.suppress(LabError):  # a slow starter may have sent nothing by then
            few = peers.run(tool, server.url, rate_rps=_FEW_RPS, duration_s=_FEW_S)
        before = server.requests()
        seen = peers.run(tool, server.url, rate_rps=rate_rps, duration_s=duration_s)
        return few, seen, server.requests() - before


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


FACTOR = 1.2
"""With one run each, on a machine shared with the server, a smaller difference is not a disagreement."""

_COARSE = 0.1
"""A tool that rounds to more than this share of our p50 cannot tell whether it agrees."""

_JUDGED = ("p50_s", "p90_s")
"""Not p99: in a run of seconds, the slowest hundredth is each tool's own start, connections and compiler."""

Verdict = Literal["", "agrees", "differs", "cannot tell"]


def verdicts(seen: pd.DataFrame) -> list[Verdict]:
    """Say of each tool whether it agrees with ours on p50 and p90; "" for ours, and for a closed loop.

    What a tool rounds away is not a disagreement. Without numbers from both, agreement cannot be told.
    """
    ours = seen.iloc[0]
    return ["", *(_verdict(row, ours) for _, row in seen.iloc[1:].iterrows())]


def _verdict(row: "pd.Series[Any]", ours: "pd.Series[Any]") -> Verdict:
    if row["schedule"] == "closed":
        return ""
    off_s = row["resolution_s"]
    for name in _JUDGED:
        if row[name] > ours[name] * FACTOR + off_s or row[name] < ours[name] / FACTOR - off_s:
            return "differs"
    known = all(pd.notna([row[name], ours[name]]).all() for name in _JUDGED)
    return "agrees" if known and off_s <= _COARSE * ours["p50_s"] else "cannot tell"


def table(seen: pd.DataFrame) -> pd.DataFrame:
    """Put the tools side by side, in words, below the server's wait before each answer."""
    known = {f"{name}_s": _known_s(share) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    seen = seen.assign(verdict=verdicts(seen), remarks=seen["failure"] + seen["flags"].map(in_words))
    rows = pd.concat([pd.DataFrame([{"tool": "known: the server's wait"} | known]), seen], ignore_index=True)
    cpu = costs(rows)
    return pd.DataFrame(
        {
            "tool": rows["tool"],
            "sends": rows["schedule"],
            "with ours": rows["verdict"],
            "throughput": rows["throughput_rps"].map(units.in_requests),
            "p50": rows["p50_s"].map(units.in_seconds),
            "p90": rows["p90_s"].map(units.in_seconds),
            "p99": rows["p99_s"].map(units.in_seconds),
            "CPU to start and end": cpu["start_s"].map(units.in_seconds),
            "CPU per 1,000 requests": [_per_thousand(row) for _, row in cpu.iterrows()],
            "its count": rows["requests"].map(_whole),
            "server's count": rows["server_count"].map(_whole),
            "": rows["remarks"],
        }
    ).fillna("")


def _known_s(share: float) -> float:
    """Return a quantile of the server's waits."""
    least_s, most_s = WAITS_S
    return least_s + share * (most_s - least_s)


def _per_thousand(cost: "pd.Series[float]") -> str:
    cost_s, off_s = 1000 * cost["request_s"], 1000 * cost["off_s"]
    if cost_s < off_s:
        return f"under {units.seconds(2 * off_s)}"
    return f"{units.seconds(cost_s)} ± {units.seconds(off_s)}" if pd.notna(cost_s) else "–"


def _whole(count: float) -> str:
    return "–" if pd.isna(count) else f"{count:,.0f}"


_SHOWN = {"p50_s": -0.22, "p90_s": 0.0, "p99_s": 0.22}
"""Quantiles, and how far below its tool's line each is drawn."""

_LOOKS = (Look(LIGHTER, "o"), SERVERS["round-robin"], Look("#a4243b", "^"))


def figure(seen: pd.DataFrame, rate_rps: int) -> Figure | None:
    """Draw p50, p90 and p99 of each tool, ours on top; a bar spans what a tool rounds away.

    None if fewer than two tools gave numbers.
    """
    told = seen[seen["p50_s"].notna()].reset_index(drop=True)
    if len(told) < 2:
        return None
    least_s = 0.7 * min(told[name].where(told[name] > told["resolution_s"]).min() for name in _SHOWN)
    found = verdicts(seen)
    agree, others = found.count("agrees"), units.counted(len(found) - found.count(""), "other tool")
    title = f"At {rate_rps:,}/s ours agrees with {agree} of {others} that keep to a rate"
    with canvas(title, height=1.2 + 0.42 * len(told)) as (figure, (axes,)):
        for (name, below), look in zip(_SHOWN.items(), _LOOKS, strict=True):
            for place, (_, row) in enumerate(told.iterrows()):
                height = [place + below] * 2
                color = "#9aa5b1" if row["schedule"] == "closed" else look.color
                span_s = np.array([-1, 1]) * row["resolution_s"] + row[name]
                axes.plot(span_s.clip(least_s), height, color=color, linewidth=4, alpha=0.35)
                axes.plot(max(row[name], least_s), height[0], look.marker, color=color, markersize=7)
            axes.axvline(told[name].iloc[0], color=look.color, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
            axes.annotate(
                name.removesuffix("_s"), (told[name].iloc[0], -0.5), xytext=(0, 2), va="bottom",
                ha={"p50_s": "center", "p90_s": "right", "p99_s": "left"}[name],
                textcoords="offset points", color=look.color, fontweight="bold", bbox=HALO,
                annotation_clip=False,
            )  # fmt: skip
        axes.set_yticks(range(len(told)), [_label(row) for _, row in told.iterrows()])
        axes.set_ylim(len(told) - 0.5, -0.5)
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis, units.seconds)
        axes.set_xlabel("latency (log scale); dashed: ours;\ngrey: a closed loop, at a rate of its own")
        axes.grid(visible=False, axis="y")
    return figure


def _label(row: "pd.Series[float]") -> str:
    return f"{row['tool']}, {units.per_second(row['throughput_rps'])}"
