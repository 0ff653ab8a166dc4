"""Our load generator beside others, in words: who agrees with it, and what each costs."""

from typing import Any

import pandas as pd

from lab import formats
from lab.load import tools

_FACTOR = 2.0
"""One run each, on a machine shared with the server: what differs by less is no disagreement."""

_RATE_OFF = 0.02

_JUDGED = ("p50", "p90")
"""Not p99: in a run of seconds the slowest hundredth is each tool's own start, connections and compiler."""


def table(seen: pd.DataFrame) -> pd.DataFrame:
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
    if not remarks:
        return f"No other tool that keeps to a rate is here: at {rate_rps:,}/s there is only ours"
    agree = sum(not remark for remark in remarks.values())
    return f"At {rate_rps:,}/s {_agree(agree, len(remarks))} with ours, as far as they tell"


def _agree(agree: int, others: int) -> str:
    return f"{agree} of {formats.counted(others, 'other tool')} {'agrees' if agree == 1 else 'agree'}"


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
    lead = (
        f"Of those that can keep to a rate, {_agree(len(agree), len(remarks))} with ours on "
        f"{' and '.join(_JUDGED)}, within {_FACTOR:g} times and what they round away"
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
