"""Latency over time: few requests are dots, many a heat map with a lane for each worker.

A queue is seen to form as a dark ridge that climbs in the lane of the worker that has it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lab import units
from lab.figures import (
    BAD,
    HALO,
    INK,
    PALE,
    QUIET,
    SERVERS,
    SMALL,
    beside,
    canvas,
    plain_log_ticks,
    reference_line,
)

MANY = 400
"""From so many requests on, dots would hide each other."""

NOBODY = "no answer"
"""The lane of requests that no worker answered."""

MOST_LANES = 4
"""More workers share one lane."""

HEAT = LinearSegmentedColormap.from_list("heat", ["#d3e5f1", "#4f93bd", "#0b3c5d", "#0a1622"])
"""From one request in a cell to the most in any: the darker, the more; in grey, too."""

_DOT = SERVERS["round-robin"].color

Edges = NDArray[np.float64]


def workers_apart(requests: pd.DataFrame, trial: str | None = None) -> list[tuple[str, pd.DataFrame]]:
    """Split requests by the worker that answered, with a name for each; all in one if there are too many.

    Workers are numbered in the order of their first answers, in each `trial` anew. Requests that no worker
    answered come last.
    """
    if "worker" not in requests:
        return [("", requests)]
    known = requests[requests["worker"].notna()]
    each = [known] if trial is None else [rows for _, rows in known.groupby(trial, sort=False)]
    numbers = [rows.sort_values("end_s")["worker"].drop_duplicates() for rows in each]
    most = max(map(len, numbers), default=0)
    if most < 2:
        return [("", requests)]
    if most > MOST_LANES:
        return [(f"all {most} workers", requests)]
    lanes = [
        rows.assign(lane=rows["worker"].map({pid: lane for lane, pid in enumerate(pids, start=1)}))
        for rows, pids in zip(each, numbers, strict=True)
    ]
    found = [(f"worker {lane}", rows) for lane, rows in pd.concat(lanes).groupby("lane")]
    nobodys = requests[requests["worker"].isna() & requests["end_s"].notna()]
    return found + ([(NOBODY, nobodys)] if len(nobodys) else [])


def draw_lanes(
    axes: Sequence[Axes], lanes: Sequence[tuple[str, pd.DataFrame]], *, x: str = "due_s", log: bool = False
) -> None:
    """Draw when the requests of each lane were due, and how long they took; all on the same scales.

    Few are dots, many a heat map. Each lane is named in its corner, and a note says what is drawn. `axes`
    share both axes.
    """
    known = pd.concat([rows for _, rows in lanes]).dropna(subset=[x, "latency_s"])
    known = known[known["latency_s"] > 0]
    if known.empty:
        return
    times_s = np.linspace(known[x].min(), known[x].max() + 1e-9, 61)
    low_s, high_s = (known["latency_s"].min() / 1.1, known["latency_s"].max() * 1.1)
    heights_s = np.geomspace(low_s, high_s, 21) if log else np.linspace(0, high_s, 21)
    if many := len(known) >= MANY:
        counts = [np.histogram2d(rows[x], rows["latency_s"], (times_s, heights_s))[0] for _, rows in lanes]
        most = max(2.0, *(float(count.max()) for count in counts))
        norm = PowerNorm(0.6, 1, most)
        for one, count in zip(axes, counts, strict=True):
            cells = np.ma.masked_equal(count.T, 0)
            one.pcolormesh(times_s, heights_s, cells, cmap=HEAT, norm=norm, rasterized=True)
    for one, (name, rows) in zip(axes, lanes, strict=True):
        if not many:
            one.plot(rows[x], rows["latency_s"], "o", color=_DOT, alpha=0.75, markersize=4.5)
        if name:
            one.annotate(
                name, (0, 1), xycoords="axes fraction", xytext=(5, -4), textcoords="offset points", va="top",
                fontsize=SMALL, fontweight="bold", bbox=HALO, zorder=6,
            )  # fmt: skip
    if log:
        axes[0].set_yscale("log")
        axes[0].set_ylim(low_s / 1.3, high_s * 2.5)  # room for the name
        for one in axes:
            plain_log_ticks(one.yaxis, units.seconds, most=4)
    says = f"the darker, the more requests: up to {most:.0f}" if many else "a dot is a request"
    axes[0].annotate(
        says, (1, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha="right",
        va="bottom", fontsize=SMALL, color=QUIET,
    )  # fmt: skip


FEWEST = {"p50_s": 10, "p90_s": 20, "p99_s": 100}
"""A percentile is drawn only of so many requests: below, it says little more than the slowest does."""

_FAILURES = ("http_error", "timeout", "refused", "reset", "client_error", "dropped")
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")
_LEAST_BINS, _LEAST_IN_FLIGHT = 3, 2


def over_time(
    rows: pd.DataFrame,
    requests: pd.DataFrame,
    title: str,
    stopped_s: float | None = None,
    subtitle: str = "",
) -> Figure:
    """Draw an attack over one axis of seconds: throughput, latency, requests in flight.

    `rows` are what `lab.load.summary.over_time` makes of the requests. Fewer than three of them say nothing
    of throughput, and have no panel; nor has one request in flight at a time. `stopped_s`, marked in the
    figure, is when the attack was interrupted.
    """
    requests = requests.assign(latency_s=requests["end_s"] - requests["due_s"])
    many = len(requests) >= MANY
    lanes = workers_apart(requests) if many else [("", requests)]
    bars, queue = len(rows) >= _LEAST_BINS, bool(rows["in_flight"].max() >= _LEAST_IN_FLIGHT)
    ratios = [2.0] * bars + [1.5 if len(lanes) > 1 else 2.4] * len(lanes) + [1.3] * queue
    grid: dict[str, Any] = {"rows": len(ratios), "sharex": True, "height_ratios": ratios}
    with canvas(title, height=0.9 + 0.85 * sum(ratios), **grid) as (figure, panels):
        first, last, latency = panels[0], panels[-1], panels[bars : bars + len(lanes)]
        bin_s = _width_s(rows, requests)
        edges_s = np.append(rows["start_s"], rows["start_s"].iloc[-1] + bin_s)
        if bars:
            _throughput(first, rows, edges_s, bin_s)
        for one in latency[1:]:
            one.sharey(latency[0])
        if many:
            draw_lanes(latency, lanes, log=True)
            for axes, (name, mine) in zip(latency, lanes, strict=True):
                if name != NOBODY:
                    _percentiles(axes, mine, edges_s)
        else:
            _dots(latency[0], requests)
        for axes in latency:
            axes.set_ylabel("latency")
        if queue:
            _in_flight(last, rows, edges_s)
        last.set_xlim(0, edges_s[-1])
        last.set_xlabel("seconds from the start")
        if stopped_s is not None:
            for panel in panels:
                reference_line(panel, x=max(stopped_s, 0.0), text="interrupted" if panel is first else "")
        first.set_title(subtitle, fontsize=9, fontweight="normal", parse_math=False)
        figure.align_ylabels()
    return figure


def _width_s(rows: pd.DataFrame, requests: pd.DataFrame) -> float:
    """Return the width of the bins; of a single one, so much that all requests are in it."""
    if len(rows) > 1:
        return float(rows["start_s"].iloc[1] - rows["start_s"].iloc[0])
    return 1.02 * max(0.1, float(np.nanmax(requests[["due_s", "end_s"]].to_numpy(float))))


def _throughput(axes: Axes, rows: pd.DataFrame, edges_s: Edges, bin_s: float) -> None:
    """Stack what ended, good answers below and failures above, under the line of what fell due."""
    below = rows["ok"] / bin_s
    axes.bar(edges_s[:-1], below, bin_s, align="edge", color=PALE, edgecolor="white", linewidth=0.5,
             label="answered well")  # fmt: skip
    for name, hatch in zip(_FAILURES, _HATCHES, strict=True):
        if rows[name].any():
            axes.bar(
                edges_s[:-1], rows[name] / bin_s, bin_s, bottom=below, align="edge",
                color=BAD, hatch=hatch, edgecolor="white", linewidth=0, label=name.replace("_", " "),
            )  # fmt: skip
            below = below + rows[name] / bin_s
    due_rps = np.append(rows["due"], rows["due"].iloc[-1]) / bin_s
    axes.step(edges_s, due_rps, where="post", color=INK, linewidth=1.2, label="offered")
    columns = 3
    entries = len(axes.get_legend_handles_labels()[1])
    axes.set_ylim(0, (1.3 + 0.2 * ((entries - 1) // columns)) * max(below.max(), due_rps.max(), 1e-9))
    axes.set_ylabel("requests/s")
    axes.legend(loc="upper right", ncols=columns, columnspacing=1.2)


def _dots(axes: Axes, requests: pd.DataFrame) -> None:
    """Draw each request where it was due, a failed one as a cross at the time that it took to fail."""
    ok = requests["outcome"] == "ok"
    drawn: dict[str, Any] = {"linestyle": "none", "markersize": 5, "clip_on": False}
    axes.plot(
        requests.loc[ok, "due_s"], requests.loc[ok, "latency_s"], marker="o", color=_DOT, alpha=0.75,
        label="a request", **drawn,
    )  # fmt: skip
    if (~ok).any():
        axes.plot(
            requests.loc[~ok, "due_s"], requests.loc[~ok, "latency_s"], marker="x", color=BAD,
            label="a failed one", **drawn,
        )  # fmt: skip
        axes.legend(loc="upper right", ncols=2)
    slowest_s = requests["latency_s"].max()
    if slowest_s > 0:
        axes.set_ylim(0, 1.2 * slowest_s)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value_s, _: units.seconds(value_s) if value_s else "0")


def _percentiles(axes: Axes, requests: pd.DataFrame, edges_s: Edges) -> None:
    """Draw the percentiles of what was due in each bin of time, where there are enough requests for them."""
    known = requests.dropna(subset=["latency_s"])
    bins = np.digitize(known["due_s"], edges_s) - 1
    of_bin = known["latency_s"].groupby(bins)
    ends: list[tuple[float, float, str, str]] = []
    for name, fewest in FEWEST.items():
        found = of_bin.quantile(int(name[1:-2]) / 100)[of_bin.count() >= fewest]
        if name == "p90_s" or found.empty:  # between the two others, it says little
            continue
        every = found.reindex(range(int(found.index.min()), int(found.index.max()) + 1))
        at_s = edges_s[every.index.to_numpy(int)] + (edges_s[1] - edges_s[0]) / 2
        style: dict[str, Any] = {"color": INK if name == "p50_s" else BAD, "linewidth": 1.2}
        axes.plot(at_s, every, "." if len(every) == 1 else "-", label=name.removesuffix("_s"), **style)
        ends.append((float(at_s[-1]), float(every.iloc[-1]), name.removesuffix("_s"), str(style["color"])))
    beside(axes, ends)


def _in_flight(axes: Axes, rows: pd.DataFrame, edges_s: Edges) -> None:
    """Draw how many requests were unanswered at each edge of the bins."""
    unanswered = np.append(0, rows["in_flight"])
    axes.fill_between(edges_s, unanswered, color=PALE, linewidth=0)
    axes.plot(edges_s, unanswered, color=INK, linewidth=1.4)
    axes.set_ylim(0, max(1.0, 1.15 * unanswered.max()))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.set_ylabel("in flight")
