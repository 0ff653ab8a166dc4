"""The trials of every arrangement: figures with their titles, and a table beside theory."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lab import units
from lab.experiments.dispatch.answer import exceeds, listed, over_blocks, standings, to_choose_by
from lab.experiments.dispatch.theory import Queue, curve
from lab.experiments.dispatch.trials import by_arrangement
from lab.figures.style import DARK_TO_LIGHT, GRID, INK, QUIET, Look, canvas, plain_log_ticks, reference_line


def theory_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put measured latency beside that of the same arrivals in each queue; new connections only."""
    tail, rows = tail_name(trials), []
    of_new = trials[~trials["keepalive"]].sort_values(["arrivals", "load"], ascending=[False, True])
    for _, at_load in of_new.groupby(["arrivals", "load"], sort=False):
        for name, mine in by_arrangement(at_load):
            row = mine.median(numeric_only=True)
            holds_gil = mine["queue"].iloc[0] == Queue.GIL
            rows.append(
                {
                    "arrangement": name,
                    "planned": f"{mine['arrivals'].iloc[0]}, {units.percent(row['load'])}",
                    "trials": len(mine),
                    "utilisation": units.percent(row["utilisation"]),
                    "mean, measured": units.seconds(row["latency_mean_s"]),
                    "mean, theory": units.seconds(row["mean_theory_s"]),
                    "ratio": units.digits(_over_theory(mine)),
                    f"{tail}, measured": units.seconds(row["tail_s"]),
                    f"{tail}, theory": units.seconds(row["tail_theory_s"]),
                    "on top of a loop": units.seconds(math.nan if holds_gil else row["overhead_s"]),
                }
            )
    return pd.DataFrame(rows)


def _over_theory(trials: pd.DataFrame) -> float:
    return float((trials["latency_mean_s"] / trials["mean_theory_s"]).median())


def tail_name(trials: pd.DataFrame) -> str:
    """Return the name of the percentile for which these trials have enough samples: p99, p95, p90 or p50."""
    return f"p{100 * trials['tail_share'].iloc[0]:.0f}"


_MOST_COLUMNS = 4
_TAIL, _P50 = DARK_TO_LIGHT[1], DARK_TO_LIGHT[0]


def latency_figure(trials: pd.DataFrame, arrivals: str) -> Figure | None:
    """Draw latency against utilisation, a panel per arrangement, beside its theory; a dot is one trial.

    It covers new connections and these arrivals; None if they were not measured.
    """
    mine = trials[(trials["arrivals"] == arrivals) & ~trials["keepalive"]]
    if mine.empty:
        return None
    groups = by_arrangement(mine)
    rows = math.ceil(len(groups) / _MOST_COLUMNS)
    columns = math.ceil(len(groups) / rows)
    size = (max(7.4, 2.6 * columns), 2.9 * rows + 0.4)
    with canvas(_title(groups, arrivals), rows, columns, size, sharex=True, sharey=True) as (figure, panels):
        for axes, (name, group) in zip(panels, groups, strict=False):
            _panel(axes, group, int(mine["workers"].max()), arrivals)
            axes.set_title(name)
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        panels[0].set_yscale("log")
        panels[0].set_ylim(0.8, 2.2 * max(10.0, float(mine["tail"].max())))
        right = max(1.05, 1.05 * float(mine["utilisation"].max()))
        panels[0].set_xlim(0, right)
        panels[0].xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))  # also far beyond 100 %
        plain_log_ticks(panels[0].yaxis)
        panels[0].xaxis.set_major_formatter(PercentFormatter(1))
        for axes in panels[::columns]:
            axes.set_ylabel("latency, service times")
        for axes in panels[len(groups) - columns : len(groups)]:  # those with none below them
            axes.set_xlabel("utilisation")
            axes.tick_params(labelbottom=True)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _title(groups: list[tuple[str, pd.DataFrame]], arrivals: str) -> str:
    kind = "Random arrivals" if arrivals == "poisson" else "A constant rate"
    ratios = [ratio for _, group in groups if not math.isnan(ratio := _over_theory(group))]
    if not ratios:
        return kind
    span = " to ".join(dict.fromkeys(f"{ratio:.2f}" for ratio in (min(ratios), max(ratios))))
    return f"{kind}: mean latency is {span} times theory's"


def _panel(axes: Axes, trials: pd.DataFrame, workers: int, arrivals: str) -> None:
    queue, tail = trials["queue"].iloc[0], tail_name(trials)
    theory = curve(queue, workers, arrivals, float(trials["tail_share"].iloc[0]))
    axes.axvspan(1, 9, color=GRID, zorder=0)  # from here on, the queue grows without end
    axes.axhline(1, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(0.03, 0.97, queue, transform=axes.transAxes, va="top", fontsize=8, color=QUIET, style="italic")
    drawn = {"tail": (tail, _TAIL, "-"), "p50": ("p50", _P50, (0, (2, 1)))}
    for column, (name, look, line) in drawn.items() if tail != "p50" else [("p50", drawn["p50"])]:
        axes.plot(theory["utilisation"], theory[column], color=look.color, linestyle=line, linewidth=1.3,
                  alpha=0.75, label=f"{name}, theory")  # fmt: skip
        axes.plot(trials["utilisation"], trials[column], look.marker, color=look.color,
                  markeredgecolor="white", markersize=7, label=f"{name}, a trial")  # fmt: skip


_KINDS = {False: "a connection per request", True: "kept connections"}
_SHADES = ("#0b3c5d", "#3a9188", "#5b7c99", "#7fb5ae")


def ranking_figure(trials: pd.DataFrame, requests: pd.DataFrame) -> Figure | None:
    """Draw who answered, and mean latency over ideal: a row for each arrangement and kind of connections.

    `requests` are those at the highest Poisson load; None if no trial had a steady state.
    """
    steady = to_choose_by(trials)
    if steady.empty:
        return None
    groups = by_arrangement(steady)[::-1]
    kinds = [kept for kept in _KINDS if kept in set(steady["keepalive"])]
    worse = [standing.name for standing in standings(trials) if exceeds(standing.over_best)]
    title = (
        f"Random arrivals: requests take longer with {listed(worse)}"
        if worse
        else "Random arrivals: who answered, and how much longer requests take than ideal"
    )
    with canvas(
        title, columns=2, size=(10.4, 1.7 + 0.62 * len(groups)), sharey=True, width_ratios=(1, 1.1)
    ) as (figure, (left, right)):
        for number, (kept, look) in enumerate(zip(kinds, DARK_TO_LIGHT, strict=False)):
            offset = 0.21 * (len(kinds) - 1) - 0.42 * number
            for place, (_, group) in enumerate(groups):
                mine = group[group["keepalive"] == kept]
                _stack(left, place + offset, shares(requests[requests["trial_id"].isin(mine["trial_id"])]))
                _spread(right, place + offset, mine["excess"], look)
            right.plot([], [], look.marker, color=look.color, label=_KINDS[kept])
        left.set_yticks(range(len(groups)), [name for name, _ in groups])
        left.set_xlim(0, 1)
        left.xaxis.set_major_formatter(PercentFormatter(1))
        left.set_xlabel(f"share of the answers; upper bar: {_KINDS[kinds[0]]}")
        left.axvline(1 / int(steady["workers"].max()), color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        left.set_title("Who answered: a colour per worker")
        right.set_title("How much longer requests take than ideal")
        right.set_xlabel("mean latency, multiples of an ideal central queue's")
        right.set_xlim(min(0.9, float(steady["excess"].min())), 1.15 * float(steady["excess"].max()))
        reference_line(right, x=1, text="")
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds))
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
    return figure


def shares(requests: pd.DataFrame) -> "pd.Series[float]":
    """Return what share of a trial's answers each worker gave, busiest first: the median over trials."""
    answered = requests[requests["worker"].notna()]
    share = answered.groupby("trial_id")["worker"].value_counts(normalize=True)
    rank = share.groupby("trial_id").rank(ascending=False, method="first").astype(int)
    return share.groupby(rank).median()


def _stack(axes: Axes, height: float, shares: "pd.Series[float]") -> None:
    left = 0.0
    for number, share in enumerate(shares):
        axes.barh(height, share, left=left, height=0.36, color=_SHADES[number % len(_SHADES)],
                  edgecolor="white", linewidth=0.8)  # fmt: skip
        if share > 0.08:
            axes.text(left + share / 2, height, f"{share:.0%}", ha="center", va="center", fontsize=8.5,
                      color="white")  # fmt: skip
        left += share


def _spread(axes: Axes, height: float, excess: "pd.Series[float]", look: Look) -> None:
    axes.plot(excess, [height] * len(excess), look.marker, color=look.color, alpha=0.35, markersize=6)
    if len(excess):
        median = over_blocks(excess)
        axes.plot([median.low, median.high], [height, height], color=look.color, linewidth=2.2)
        axes.plot(median.value, height, look.marker, color=look.color, markersize=8)
        axes.annotate(f"{median.value:.2f}", (median.value, height), xytext=(0, 5),
                      textcoords="offset points", ha="center", va="bottom", fontsize=9)  # fmt: skip
