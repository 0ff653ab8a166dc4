"""The staircase from a rate to its workers, and the latency of balancing policies."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lab import units
from lab.experiments.capacity.balancing import NAMES, latency, nodes, pick, variations
from lab.experiments.capacity.case import Case
from lab.figures import DARK_TO_LIGHT, GRID, INK, QUIET, Look, canvas, plain_log_ticks, reference_line
from lab.models.balancing import POLICIES, Policy

_PLAN, _MEASURED = DARK_TO_LIGHT[0], DARK_TO_LIGHT[1]
_HALO = [withStroke(linewidth=2.5, foreground="white")]
_MANY = 40
"""From so many workers on, a staircase is drawn on logarithmic axes."""


def staircase(
    steps: pd.DataFrame, case: Case, rate_rps: float, found: pd.DataFrame, *, validated: int, cpus: int
) -> Figure | None:
    """Draw the workers that each rate needs, without headroom, and the planned rate with it.

    `steps` are those of `plan.staircase`. Solid: up to as many workers as were measured here, or as there are
    CPUs; dashed on a hatched ground: extrapolated. `found` are sustained rates, as measured. None if no number
    of workers sustains any rate.
    """
    if not steps["usual"].max() > 0:
        return None
    needed = case.needed(rate_rps).workers if rate_rps else None
    title = f"{case.slo}: which rate needs how many workers"
    if needed:
        title = f"{units.per_second(rate_rps)} with {case.slo}: {units.counted(needed, 'worker')}"
    with canvas(title, size=(7.8, 4.8)) as (figure, (axes,)):
        most = int(steps["workers"].max())
        top_rps = float(steps["usual"].max())
        if most > _MANY:
            axes.set_xscale("log")
            axes.set_yscale("log")
            plain_log_ticks(axes.yaxis, "{:,.0f}".format)
            axes.set_ylim(0.8, 1.6 * most)
            axes.set_xlim(float(steps.loc[steps["usual"] > 0, "usual"].min()) / 3, 1.15 * top_rps)
        else:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylim(0, most + 0.8)
            axes.set_xlim(0, 1.02 * top_rps)
        _ground(axes, cpus, most)
        _band(axes, steps)
        _stairs(axes, steps, validated, cpus)
        _ideal(axes, case, top_rps)
        _measured(axes, found)
        if needed:
            _asked(axes, rate_rps, case.headroom, needed)
        axes.set_xlabel("offered rate, requests/s")
        axes.set_ylabel("workers")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _ground(axes: Axes, cpus: int, most: int) -> None:
    """Hatch where there are more workers than CPUs here."""
    if most <= cpus:
        return
    bottom, top = cpus + 0.5, axes.get_ylim()[1]
    axes.axhspan(bottom, top, facecolor="none", edgecolor=GRID, hatch="///", linewidth=0, zorder=0)
    axes.annotate(
        f"more workers than the {units.counted(cpus, 'CPU')} here: extrapolated",
        (0, 1), xycoords="axes fraction", xytext=(6, -6), textcoords="offset points",
        va="top", fontsize=9, color=QUIET, path_effects=_HALO, zorder=5,
    )  # fmt: skip


def _corners(
    rates: NDArray[np.float64], workers: NDArray[np.float64], start: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of a staircase: along at n workers up to their highest rate, then up."""
    return np.repeat([start, *rates], 2)[1:-1], np.repeat(workers, 2)


def _stairs(axes: Axes, steps: pd.DataFrame, validated: int, cpus: int) -> None:
    rates, workers = steps["usual"].to_numpy(float), steps["workers"].to_numpy(float)
    x, y = _corners(rates, workers, axes.get_xlim()[0])
    here = y <= (validated or cpus)
    seen = np.count_nonzero(here)
    style: dict[str, Any] = {"color": _PLAN.color, "linewidth": 2.4, "zorder": 3}
    label = "workers needed, validated by trials here" if validated else "workers needed, predicted"
    axes.plot(x[:seen], y[:seen], label=label, **style)
    if seen < len(x):
        rise = max(0, seen - 1)
        axes.plot(x[rise:], y[rise:], linestyle=(0, (4, 2)), label="workers needed, extrapolated", **style)


def _band(axes: Axes, steps: pd.DataFrame) -> None:
    """Shade what service times as in the fastest and in the slowest block would give."""
    if np.allclose(steps["slowest"], steps["fastest"]):
        return
    start, workers = axes.get_xlim()[0], steps["workers"].to_numpy(float)
    edges = np.unique([start, *steps["slowest"], *steps["fastest"]])
    ends = [
        np.append(workers, np.nan)[np.searchsorted(steps[name], edges, "right")]
        for name in ("fastest", "slowest")
    ]
    ends[1] = np.where(np.isnan(ends[1]), axes.get_ylim()[1], ends[1])
    axes.fill_between(
        edges, ends[0], ends[1], step="post", color=_PLAN.color, alpha=0.18, linewidth=0, zorder=2,
        label="at the fastest to the slowest speed seen here",
    )  # fmt: skip


def _ideal(axes: Axes, case: Case, top_rps: float) -> None:
    rates = np.linspace(axes.get_xlim()[0], top_rps, 200)
    axes.plot(rates, rates * case.mean_s, color=QUIET, linewidth=1.2, linestyle=(0, (1, 1.5)))
    at = 0.72 * top_rps
    axes.annotate(
        "the least there can be: every worker always busy", (at, at * case.mean_s), xytext=(0, -8),
        textcoords="offset points", ha="center", va="top", fontsize=8.5, color=QUIET, path_effects=_HALO,
        zorder=5,
    )  # fmt: skip


def _measured(axes: Axes, found: pd.DataFrame) -> None:
    """Draw each sustained rate that was measured: from its lower to its upper bound."""
    for place, (_, row) in enumerate(found.iterrows()):
        low, high = float(row["lower_rps"]), float(row["upper_rps"])
        axes.plot(
            [low, low if math.isnan(high) else high], [row["workers"]] * 2, "|-", color=_MEASURED.color,
            linewidth=5, markersize=13, markeredgewidth=2.5, solid_capstyle="butt", zorder=6,
            label="" if place else "measured here: the sustained rate lies in between",
        )  # fmt: skip


def _asked(axes: Axes, rate_rps: float, headroom: float, needed: int) -> None:
    """Mark the rate, and what it needs with headroom."""
    reference_line(axes, x=rate_rps, text="")
    planned_rps = rate_rps * (1 + headroom)
    if headroom:
        axes.annotate(
            "", (planned_rps, needed), xytext=(rate_rps, needed), zorder=7,
            arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    axes.plot([planned_rps], [needed], _PLAN.marker, color=INK, markersize=9, zorder=8)
    room = f" + {units.percent(headroom)} headroom" if headroom else ""
    axes.annotate(
        f"{units.per_second(rate_rps)}{room}:\n{units.counted(needed, 'worker')}", (planned_rps, needed),
        xytext=(-8, 8), textcoords="offset points", ha="right", va="bottom", fontsize=9.5,
        fontweight="bold", path_effects=_HALO, zorder=9,
    )  # fmt: skip


_LOOKS: Mapping[str, Look] = {
    "random": DARK_TO_LIGHT[3],
    "round-robin": DARK_TO_LIGHT[1],
    "two-choices": DARK_TO_LIGHT[2],
    "shortest": DARK_TO_LIGHT[0],
    "central": Look(INK, "*", "-"),
}
_LAWS = {0.0: "constant", 1.0: "exponential"}


def policies(found: Sequence[Policy], percentile: int) -> Figure:
    """Draw the latency of each policy against the variation of service times, a panel per slowest node."""
    speeds = sorted({one.slowest for one in found}, reverse=True)
    title = "The more service times vary, the more a policy gains that looks at the queues"
    with canvas(title, columns=len(speeds), size=(5.4 * len(speeds), 4.6), sharey=True) as (figure, panels):
        for axes, slowest in zip(panels, speeds, strict=True):
            _panel(axes, pick(found, slowest=slowest))
            axes.set_title(f"Nodes: {nodes(slowest)}")
            axes.set_xlabel("how much service times vary (coefficient of variation)")
        panels[0].set_yscale("log")
        plain_log_ticks(panels[0].yaxis)
        panels[0].set_ylabel(f"p{percentile} latency, mean service times (log scale)")
    return figure


def _panel(axes: Axes, found: Sequence[Policy]) -> None:
    places = {variation: place for place, variation in enumerate(variations(found))}
    ends: dict[str, float] = {}
    lost = []
    for policy in POLICIES:
        look = _LOOKS[policy]
        known = {places[one.variation]: latency(one) for one in pick(found, policy=policy)}
        drawn = {place: one for place, one in known.items() if one is not None}
        if not drawn:
            lost.append(NAMES[policy])
            continue
        values = [one.value for one in drawn.values()]
        axes.errorbar(
            list(drawn), values,
            yerr=[[one.value - one.low for one in drawn.values()], [one.high - one.value for one in drawn.values()]],
            marker=look.marker, color=look.color, linestyle=look.line, capsize=3, elinewidth=1.0,
            markersize=10 if look.marker == "*" else 6, linewidth=2.4 if policy == "central" else 1.8,
        )  # fmt: skip
        ends[policy] = values[-1]
    for policy, height in _apart(ends).items():
        axes.annotate(
            NAMES[policy], (len(places) - 1, height), xytext=(10, 0), textcoords="offset points",
            va="center", fontsize=9, color=INK, path_effects=_HALO,
        )  # fmt: skip
    if lost:
        axes.annotate(
            f"{' and '.join(lost)}:\nno latency, the slow node gets more than it can do", (0.02, 0.98),
            xycoords="axes fraction", va="top", fontsize=9, color=DARK_TO_LIGHT[1].color, fontweight="bold",
        )  # fmt: skip
    axes.set_xticks(list(places.values()), [_named(variation) for variation in places])
    axes.set_xlim(-0.3, len(places) - 1 + 1.5)


def _named(variation: float) -> str:
    law = _LAWS.get(variation)
    return f"{variation:g}\n{law}" if law else f"{variation:g}"


def _apart(ends: Mapping[str, float], least: float = 1.16) -> dict[str, float]:
    """Return heights for labels on a logarithmic axis, each at least so many times the one below."""
    placed: dict[str, float] = {}
    below = 0.0
    for policy, value in sorted(ends.items(), key=lambda end: end[1]):
        placed[policy] = below = max(value, below * least)
    return placed
