"""How far the generator lags behind its schedule, and up to which rate it can be believed."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from lab import units
from lab.figures import (
    DARK_TO_LIGHT,
    HALO,
    SMALL,
    Look,
    canvas,
    legend_below,
    plain_log_ticks,
    reference_line,
)
from lab.load.ceiling import measure_ceiling, reasons
from lab.load.summary import LEAST_LAG_S
from lab.models.statistics import Estimate, Interval
from lab.study.estimates import linked
from lab.study.run import Run, table_name

LABELS = {False: "a connection per request", True: "kept connections"}
"""Labels by whether connections are kept."""


def measure(run: Run, rates_rps: tuple[float, ...], step_s: float) -> pd.DataFrame:
    """Offer rising rates to a quick server: a row per try, with the fields of `Step`, and `held`."""
    name = table_name("ceilings", rates_rps, step_s)
    return run.table(name, lambda: pd.DataFrame(_measure(rates_rps, step_s)))


def _measure(rates_rps: tuple[float, ...], step_s: float) -> Iterator[dict[str, Any]]:
    for keepalive in LABELS:
        for step in measure_ceiling(keepalive=keepalive, rates_rps=sorted(rates_rps), duration=step_s):
            yield vars(step) | {"held": step.held}


def tried(lags: pd.DataFrame) -> pd.DataFrame:
    """Return a row per kind of connections and rate: how many tries, how many held, and what they showed.

    Columns: keepalive, rate_rps, tries, held, lag_p50_s (median), lag_low_s and lag_high_s (of p99),
    cpu_per_request_s (median), reconciled (all), reason (of the last try that did not hold, in words).
    """
    steps: Iterator[Any] = lags.itertuples()
    why = pd.Series([None if step.held else reasons(step) for step in steps], lags.index, dtype=object)
    return (
        lags.assign(reason=why)
        .groupby(["keepalive", "rate_rps"], sort=False, as_index=False)
        .agg(
            tries=("held", "size"),
            held=("held", "sum"),
            lag_p50_s=("lag_p50_s", "median"),
            lag_low_s=("lag_p99_s", "min"),
            lag_high_s=("lag_p99_s", "max"),
            cpu_per_request_s=("cpu_per_request_s", "median"),
            reconciled=("reconciled", "all"),
            reason=("reason", "last"),
        )
    )


def ceilings(lags: pd.DataFrame) -> dict[bool, float]:
    """Return the highest rate that held, per second, or 0: by whether connections were kept."""
    held = lags["rate_rps"].where(lags["held"], 0.0)
    return {bool(keepalive): float(rate) for keepalive, rate in held.groupby(lags["keepalive"]).max().items()}


BELIEVED = "highest rate at which the generator is believed"
CONNECTIONS = {False: "new", True: "kept"}


def believed(lags: pd.DataFrame) -> dict[bool, Estimate]:
    """Return each ceiling with the next rate that was tried above it, which never held.

    The value is nan if no rate held, the upper bound if none above it was tried.
    """
    found = {}
    for keepalive, ceiling_rps in ceilings(lags).items():
        mine = lags.loc[lags["keepalive"] == keepalive, "rate_rps"]
        value_rps = ceiling_rps or math.nan
        above_rps = float(mine[mine > ceiling_rps].min())
        found[keepalive] = Estimate(value_rps, value_rps, above_rps, len(mine), Interval.SEARCH)
    return found


def told(lags: pd.DataFrame, keepalive: bool) -> str:
    """Write a ceiling, with a link to its estimate if it has one."""
    ceiling_rps = ceilings(lags)[keepalive]
    text = rate_or_none(ceiling_rps)
    return linked(text, BELIEVED, connections=CONNECTIONS[keepalive]) if ceiling_rps else text


def rate_or_none(rate_rps: float) -> str:
    """Write a ceiling."""
    return units.per_second(rate_rps) if rate_rps else "no rate"


def lag_table(lags: pd.DataFrame) -> pd.DataFrame:
    """Put the lags in words, a row per rate: how often it held, and why it did not."""
    rates = tried(lags)
    return pd.DataFrame(
        {
            "connections": rates["keepalive"].map(LABELS),
            "offered rate": rates["rate_rps"].map(units.in_requests),
            "held": [f"{row.held}\u00a0of\u00a0{row.tries}" for row in rates.itertuples()],
            "send lag, median": rates["lag_p50_s"].map(units.in_seconds),
            "send lag, p99": list(map(_range, rates["lag_low_s"], rates["lag_high_s"])),
            "CPU of sending one": rates["cpu_per_request_s"].map(units.in_seconds),
            "counts agree": rates["reconciled"].map({True: "yes", False: "no"}),
            "why one did not hold": rates["reason"].fillna(""),
        }
    )


def _range(low_s: float, high_s: float) -> str:
    low, high = units.seconds(low_s), units.seconds(high_s)
    return low if low == high else f"{low} to {high}"


def figure(lags: pd.DataFrame) -> Figure:
    """Draw median and p99 of the send lag against the offered rate; a try that did not hold is a cross."""
    new, kept = (rate_or_none(ceilings(lags)[keepalive]) for keepalive in LABELS)
    title = f"Believed up to: {new} with new connections, {kept} with kept ones"
    with canvas(title, height=4.4) as (figure, (axes,)):
        for (keepalive, label), look in zip(LABELS.items(), DARK_TO_LIGHT, strict=False):
            mine = lags[lags["keepalive"] == keepalive]
            held = mine[mine["held"]]
            for column, line in (("lag_p99_s", look.line), ("lag_p50_s", ":")):
                hollow = column == "lag_p50_s"
                axes.plot(
                    held["rate_rps"], held[column], look.marker, linestyle=line, color=look.color,
                    markerfacecolor="white" if hollow else look.color,
                    label=f"{label}: {'median' if hollow else 'p99'}",
                )  # fmt: skip
            _lost(axes, label, mine, look)
        reference_line(axes, y=LEAST_LAG_S, text="p99 that is believed at any latency")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sorted(set(lags["rate_rps"])), minor=False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        plain_log_ticks(axes.yaxis, units.seconds)
        axes.margins(x=0.1, y=0.12)
        axes.set_xlabel("offered rate, requests/s (log scale)")
        axes.set_ylabel("send lag: sent - due (log scale)")
        legend_below(figure, axes, columns=1)
    return figure


def _lost(axes: Axes, label: str, lags: pd.DataFrame, look: Look) -> None:
    """Cross out the tries that did not hold, and write beside them how many at that rate did."""
    lost = lags[~lags["held"]]
    if lost.empty:
        return
    axes.plot(
        lost["rate_rps"], lost["lag_p99_s"], "x", color=look.color, markersize=8,
        label=f"{label}: did not hold (p99)",
    )  # fmt: skip
    for rate_rps, at_s in lost.groupby("rate_rps")["lag_p99_s"].max().items():
        held = lags.loc[lags["rate_rps"] == rate_rps, "held"]
        axes.annotate(
            f"{held.sum()} of {len(held)} held", (rate_rps, at_s), xytext=(0, 7), textcoords="offset points",
            ha="center", fontsize=SMALL, color=look.color, bbox=HALO,
        )  # fmt: skip
