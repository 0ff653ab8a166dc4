"""Our load generator beside others, in words: who agrees with it, and what each costs."""

from typing import Any

import pandas as pd

from lab import formats
from lab.experiments.peer_tools import costs, known_s
from lab.load import tools

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
            "throughput": seen["throughput_rps"].map(formats.per_second),
            "p50": seen["p50_s"].map(formats.seconds),
            "p90": seen["p90_s"].map(formats.seconds),
            "p99": seen["p99_s"].map(formats.seconds),
            "rounded to": seen["resolution_s"].map(
                lambda value_s: formats.seconds(value_s) if value_s else ""
            ),
            "CPU to start and end": cpu["start_s"].map(formats.seconds),
            "CPU per 1,000 requests": [_per_thousand(row) for _, row in cpu.iterrows()],
            "its count": seen["requests"].map(_whole),
            "server's count": seen["server_count"].map(_whole),
            "": seen["failure"].str.cat(seen["doubts"]),
        }
    )


def _per_thousand(cost: "pd.Series[float]") -> str:
    cost_s, off_s = 1000 * cost["request_s"], 1000 * cost["off_s"]
    if cost_s < off_s:
        return f"under {formats.seconds(2 * off_s)}"
    return f"{formats.seconds(cost_s)} ± {formats.seconds(off_s)}" if pd.notna(cost_s) else "–"


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
    others = formats.counted(len(verdicts), "other tool")
    return f"{agree} of {others} {'agrees' if agree == 1 else 'agree'}"


def reading(seen: pd.DataFrame, rate_rps: int) -> str:
    """Say who agrees with ours and who does not, on latency, rate and count, and who is not here."""
    parts = [_ours(seen.iloc[0]), _agreement(seen), _rates(seen, rate_rps), _counts(seen), _absent(seen)]
    return "\n".join(f"- {part}" for part in parts if part)


def _ours(ours: "pd.Series[Any]") -> str:
    if lacking := _lacking(ours):
        return f"**Ours cannot be compared**: {lacking}."
    known = " and ".join(f"{name} {formats.seconds(known_s(share))}" for name, share in _JUDGED.items())
    said = " and ".join(formats.seconds(ours[f"{name}_s"]) for name in _JUDGED)
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
            differ.append(f"{name} {formats.seconds(theirs_s)}, ours {formats.seconds(ours_s)}")
    if differ:
        return _DIFFERS, "; ".join(differ)
    if lacking := _lacking(row):
        return _CANNOT_TELL, lacking
    if rounded_s > _COARSE * ours["p50_s"]:
        return _CANNOT_TELL, f"it rounds to {formats.seconds(rounded_s)}, over a tenth of our p50"
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
