"""What the trials of every dispatch look like: figures with their titles, and a table beside theory."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lab import units
from lab.experiments.dispatch.answer import compared, exceeds, listed, over_blocks, standings
from lab.experiments.dispatch.theory import Queue, curves
from lab.experiments.dispatch.trials import KEPT, NEW
from lab.figures.style import DARK_TO_LIGHT, GRID, INK, QUIET, Look, canvas, plain_log_ticks, reference_line


def theory_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put measured latency beside what the same arrivals make in each queue; new connections only."""
    name, rows = tail_name(trials), []
    of_new = trials[~trials["keepalive"]].sort_values(
        ["arrivals", "load", "place"], ascending=[False, True, True]
    )
    for _, mine in of_new.groupby(["arrivals", "load", "place"], sort=False):
        first, row = mine.iloc[0], mine.median(numeric_only=True)
        over_theory = (mine["latency_mean_s"] / mine["mean_theory_s"]).median()
        rows.append(
            {
                "arrangement": first["server"],
                "arrivals": first["arrivals"],
                "planned": units.percent(first["load"]),
                "trials": len(mine),
                "utilisation": units.percent(row["utilisation"]),
                "mean, measured": units.seconds(row["latency_mean_s"]),
                "mean, theory": units.seconds(row["mean_theory_s"]),
                "measured over theory": units.digits(over_theory),
                "mean, ideal": units.seconds(row["mean_ideal_s"]),
                f"{name}, measured": units.seconds(row["tail_s"]),
                f"{name}, theory": units.seconds(row["tail_theory_s"]),
                "on top of a loop": units.seconds(row["overhead_s"]),
            }
        )
    return pd.DataFrame(rows)


def tail_name(trials: pd.DataFrame) -> str:
    """Return the name of the percentile that these trials have samples enough for: p99, p95, p90 or p50."""
    return f"p{100 * trials['tail_share'].iloc[0]:.0f}"


def latency_figure(trials: pd.DataFrame, arrivals: str) -> Figure | None:
    """Draw latency against utilisation for new connections and these arrivals, if they were measured."""
    mine = trials[(trials["arrivals"] == arrivals) & ~trials["keepalive"]]
    if mine.empty:
        return None
    queues: dict[str, Queue] = dict(zip(mine["server"], mine["queue"], strict=True))
    theory = curves(queues, int(mine["workers"].max()), arrivals, float(mine["tail_share"].iloc[0]))
    kind = "Random arrivals" if arrivals == "poisson" else "A constant rate"
    near = (mine["latency_mean_s"] / mine["mean_theory_s"]).groupby(mine["server"]).median().dropna()
    title = f"{kind}: mean latency is {_span(near)} theory's" if len(near) else kind
    return dispatch_latency(
        mine, theory, {name: q.value for name, q in queues.items()}, tail_name(mine), title
    )


def ranking_figure(trials: pd.DataFrame, requests: pd.DataFrame) -> Figure | None:
    """Draw who answered, and mean latency over ideal, at the highest Poisson load; `requests` are theirs."""
    calm = compared(trials)
    if calm.empty:
        return None
    rows = [
        {"server": server, "connections": connections, **vars(over_blocks(mine))}
        for (server, connections), mine in calm.groupby(["server", "connections"], sort=False)["excess"]
    ]
    share = shares(requests[requests["trial_id"].isin(calm["trial_id"])])
    worse = [s.name for s in standings(trials) if exceeds(s.over_best)]
    title = (
        f"Random arrivals: requests take longer with {listed(worse)}"
        if worse
        else "Random arrivals: who answered, and how much longer requests take than ideal"
    )
    return dispatch_evenness(share, calm, pd.DataFrame(rows), int(calm["workers"].max()), title)


def shares(requests: pd.DataFrame) -> pd.DataFrame:
    """Return what share of a trial's answers each worker gave, busiest first.

    Columns server, connections, rank (1 is the busiest) and share, the median over trials.
    """
    answered = requests[requests["worker"].notna()]
    of_trial = ["server", "keepalive", "trial_id"]
    share = answered.groupby(of_trial)["worker"].value_counts(normalize=True).rename("share").reset_index()
    share["rank"] = share.groupby(of_trial)["share"].rank(ascending=False, method="first").astype(int)
    share["connections"] = share["keepalive"].map({True: KEPT, False: NEW})
    return pd.DataFrame(share.groupby(["server", "connections", "rank"])["share"].median()).reset_index()


def _span(ratios: "pd.Series[float]") -> str:
    low, high = f"{ratios.min():.2f}", f"{ratios.max():.2f}"
    return f"{low} times" if low == high else f"{low} to {high} times"


_MOST_COLUMNS = 4
_TAIL, _P50 = DARK_TO_LIGHT[1], DARK_TO_LIGHT[0]
_KINDS = (DARK_TO_LIGHT[0], DARK_TO_LIGHT[1])
_SHADES = ("#0b3c5d", "#3a9188", "#5b7c99", "#7fb5ae")


def dispatch_latency(
    trials: pd.DataFrame, theory: pd.DataFrame, queues: dict[str, str], tail: str, title: str
) -> Figure:
    """Draw latency against utilisation, a panel per arrangement, beside its theory.

    `trials` and `theory` have server, utilisation, p50 and tail, in service times; a dot is one trial.
    `queues` maps each server, in the order of the panels, to what theory takes its queue to be. `tail` names
    the percentile in that column, such as p99.
    """
    rows = math.ceil(len(queues) / _MOST_COLUMNS)
    columns = math.ceil(len(queues) / rows)
    top = max(10.0, float(trials["tail"].max()))
    with canvas(
        title, rows, columns, size=(max(7.4, 2.6 * columns), 2.9 * rows + 0.4), sharex=True, sharey=True
    ) as (
        figure,
        panels,
    ):
        for axes, (server, queue) in zip(panels, queues.items(), strict=False):
            _panel(axes, trials[trials["server"] == server], theory[theory["server"] == server], tail)
            axes.set_title(server)
            axes.text(
                0.03, 0.97, queue, transform=axes.transAxes, va="top", fontsize=8, color=QUIET, style="italic"
            )
        for axes in panels[len(queues) :]:
            axes.set_axis_off()
        panels[0].set_yscale("log")
        panels[0].set_ylim(0.8, 2.2 * top)
        right = max(1.05, 1.05 * float(trials["utilisation"].max()))
        panels[0].set_xlim(0, right)
        panels[0].set_xticks(np.arange(0.5, right, 0.5))
        plain_log_ticks(panels[0].yaxis)
        panels[0].xaxis.set_major_formatter(PercentFormatter(1))
        for row in range(rows):
            panels[row * columns].set_ylabel("latency, service times")
        for axes in panels[len(queues) - columns : len(queues)]:  # those with none below them
            axes.set_xlabel("utilisation")
            axes.tick_params(labelbottom=True)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, trials: pd.DataFrame, theory: pd.DataFrame, tail: str) -> None:
    axes.axvspan(1, 9, color=GRID, zorder=0)  # from here on a queue never ends
    axes.axhline(1, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
    drawn = {"tail": (tail, _TAIL, "-"), "p50": ("p50", _P50, (0, (2, 1)))}
    for column, (name, look, line) in drawn.items() if tail != "p50" else [("p50", drawn["p50"])]:
        axes.plot(theory["utilisation"], theory[column], color=look.color, linestyle=line, linewidth=1.3,
                  alpha=0.75, label=f"{name}, theory")  # fmt: skip
        axes.plot(trials["utilisation"], trials[column], look.marker, color=look.color,
                  markeredgecolor="white", markersize=7, label=f"{name}, a trial")  # fmt: skip


def dispatch_evenness(
    shares: pd.DataFrame, trials: pd.DataFrame, spreads: pd.DataFrame, workers: int, title: str
) -> Figure:
    """Draw who answered, and mean latency over ideal: a row for each arrangement and kind of connections.

    `shares` has server, connections, rank and share of each worker; `trials` has server, connections, excess;
    `spreads` has server, connections, and value, low and high of the trials' excess.
    """
    servers = list(trials["server"].unique())[::-1]
    kinds = list(trials["connections"].unique())
    with canvas(
        title, columns=2, size=(10.4, 1.7 + 0.62 * len(servers)), sharey=True, width_ratios=(1, 1.1)
    ) as (figure, (left, right)):
        for number, kind in enumerate(kinds):
            look = _KINDS[number % len(_KINDS)]
            offset = 0.21 * (len(kinds) - 1) - 0.42 * number
            for place, server in enumerate(servers):
                _stack(left, place + offset, _of(shares, server, kind).sort_values("rank"))
                excess = _of(trials, server, kind)["excess"]
                heights = [place + offset] * len(excess)
                right.plot(excess, heights, look.marker, color=look.color, alpha=0.35, markersize=6)
                for _, spread in _of(spreads, server, kind).iterrows():
                    _value(right, spread, place + offset, look)
            right.plot([], [], look.marker, color=look.color, label=kind)
        left.set_yticks(range(len(servers)), servers)
        left.set_xlim(0, 1)
        left.xaxis.set_major_formatter(PercentFormatter(1))
        left.set_xlabel(f"share of the answers; upper bar: {kinds[0]}")
        left.axvline(1 / workers, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        left.set_title("Who answered: a colour per worker")
        right.set_title("How much longer requests take than ideal")
        right.set_xlabel("mean latency, multiples of an ideal central queue's")
        right.set_xlim(min(0.9, float(trials["excess"].min())), 1.15 * float(trials["excess"].max()))
        reference_line(right, x=1, text="")
        figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds))
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
    return figure


def _of(frame: pd.DataFrame, server: str, connections: str) -> pd.DataFrame:
    return frame[(frame["server"] == server) & (frame["connections"] == connections)]


def _value(axes: Axes, spread: "pd.Series[float]", height: float, look: Look) -> None:
    axes.plot([spread["low"], spread["high"]], [height, height], color=look.color, linewidth=2.2)
    axes.plot(spread["value"], height, look.marker, color=look.color, markersize=8)
    axes.annotate(f"{spread['value']:.2f}", (spread["value"], height), xytext=(0, 5),
                  textcoords="offset points", ha="center", va="bottom", fontsize=9)  # fmt: skip


def _stack(axes: Axes, height: float, shares: pd.DataFrame) -> None:
    left = 0.0
    for number, share in enumerate(shares["share"]):
        axes.barh(height, share, left=left, height=0.36, color=_SHADES[number % len(_SHADES)],
                  edgecolor="white", linewidth=0.8)  # fmt: skip
        if share > 0.08:
            axes.text(left + share / 2, height, f"{share:.0%}", ha="center", va="center", fontsize=8.5,
                      color="white")  # fmt: skip
        left += share
