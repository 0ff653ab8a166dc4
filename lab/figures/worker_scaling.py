"""Workers against highest throughput and efficiency, with the ideal line and the number of CPUs."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab.figures.style import DARK_TO_LIGHT, QUIET, canvas, cross_flagged, reference_line


def worker_scaling(trials: pd.DataFrame, scaling: pd.DataFrame, cpus: float, title: str) -> Figure:
    """Draw the scaling curve.

    `trials` has workers, throughput_rps and valid, a row each; `scaling` has workers and, for throughput_rps
    and efficiency, the value and its interval in *_low and *_high; `cpus` is what this process may use.
    """
    look = DARK_TO_LIGHT[0]
    most = int(scaling["workers"].max())
    base_rps = float(scaling["throughput_rps"].iloc[0] / scaling["workers"].iloc[0])
    with canvas(title, rows=2, size=(7.4, 6.6), sharex=True, height_ratios=(2, 1)) as (figure, (rate, share)):
        ideal = [0, most]
        rate.plot(ideal, [base_rps * n for n in ideal], color=QUIET, linewidth=1.2)
        rate.annotate(
            "ideal: every worker adds as much as the first", (most, base_rps * most), ha="right", va="top",
            xytext=(-12, 4), textcoords="offset points", fontsize=8.5, color=QUIET,
        )  # fmt: skip
        rate.plot(
            trials["workers"], trials["throughput_rps"], ".", color=look.color, alpha=0.45, label="a trial"
        )
        _with_interval(rate, scaling, "throughput_rps", label="median over blocks")
        cross_flagged(rate, trials, "workers", "throughput_rps")
        rate.set_ylabel("highest throughput, requests/s")
        rate.set_ylim(bottom=0)
        rate.legend(loc="lower right")
        share.axhline(1, color=QUIET, linewidth=1.2)
        _with_interval(share, scaling, "efficiency")
        share.set_ylabel("efficiency: speed-up / workers")
        share.set_ylim(0, max(1.15, 1.05 * float(scaling["efficiency_high"].max())))
        share.set_xlabel("workers")
        share.set_xlim(0.5, most + 0.5)
        share.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (rate, share):
            reference_line(axes, x=cpus, text=f"{cpus:g} CPUs")
    return figure


def _with_interval(axes: Axes, scaling: pd.DataFrame, column: str, label: str = "") -> None:
    look = DARK_TO_LIGHT[0]
    values, low, high = scaling[column], scaling[f"{column}_low"], scaling[f"{column}_high"]
    axes.errorbar(
        scaling["workers"], values, yerr=[values - low, high - values], marker=look.marker,
        color=look.color, capsize=4, elinewidth=1.2, label=label or None,
    )  # fmt: skip
