"""An attack second by second: throughput by outcome, latency quantiles, and requests in flight."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lab import formats
from lab.figures.style import DARK_TO_LIGHT, INK, canvas

_FAILURES = ("http_error", "timeout", "refused", "reset", "client_error", "dropped")
_QUANTILES = ("p50_s", "p90_s", "p99_s")


def over_time(rows: pd.DataFrame, title: str) -> Figure:
    """Draw the rows that `lab.load.over_time` makes: three panels over one axis of seconds."""
    bin_s = float(rows["start_s"].diff().iloc[1]) if len(rows) > 1 else 1.0
    at_s = rows["start_s"] + bin_s / 2
    with canvas(title, rows=3, size=(8.6, 7.0), sharex=True, height_ratios=(3, 3, 2)) as (figure, axes):
        _throughput(axes[0], rows, at_s, bin_s)
        for name, look in zip(_QUANTILES, DARK_TO_LIGHT, strict=False):
            axes[1].plot(
                at_s, rows[name], look.marker + look.line, color=look.color, label=name.removesuffix("_s")
            )
        axes[1].set_yscale("log")
        axes[1].yaxis.set_major_formatter(FuncFormatter(lambda y, _: formats.seconds(y)))
        axes[1].set_ylabel("latency of those due then")
        axes[1].legend(loc="upper left", ncols=3)
        axes[2].step(rows["start_s"] + bin_s, rows["in_flight"], where="post", color=INK)
        axes[2].set_ylim(bottom=0)
        axes[2].set_ylabel("in flight")
        axes[2].set_xlabel("seconds from the start")
    return figure


def _throughput(axes: Axes, rows: pd.DataFrame, at_s: "pd.Series[float]", bin_s: float) -> None:
    """Stack what came to an end, well above, badly below the line of what fell due."""
    failed = rows[list(_FAILURES)].sum(axis="columns")
    ok_look, bad_look = DARK_TO_LIGHT[2], DARK_TO_LIGHT[1]
    axes.bar(at_s, rows["ok"] / bin_s, 0.9 * bin_s, color=ok_look.color, label="ok")
    for name, hatch in zip(_FAILURES, ("", "//", "\\\\", "xx", "..", "++"), strict=True):
        if rows[name].any():
            below = rows["ok"] + rows[list(_FAILURES[: _FAILURES.index(name)])].sum(axis="columns")
            axes.bar(
                at_s, rows[name] / bin_s, 0.9 * bin_s, bottom=below / bin_s,
                color=bad_look.color, hatch=hatch, edgecolor="white", linewidth=0, label=name,
            )  # fmt: skip
    axes.step(rows["start_s"], rows["due"] / bin_s, where="post", color=INK, linewidth=1.2, label="offered")
    axes.set_ylim(0, 1.25 * max((rows["ok"] + failed).max(), rows["due"].max()) / bin_s)
    axes.set_ylabel("requests per second")
    axes.legend(loc="upper right", ncols=4)
