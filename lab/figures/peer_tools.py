"""Load generators side by side: what each says of the same server at the same rate."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lab import formats
from lab.figures.style import DARK_TO_LIGHT, QUIET, canvas, plain_log_ticks

_SHOWN = {"p50_s": -0.22, "p90_s": 0.0, "p99_s": 0.22}
"""Quantiles, and how far below its tool's line each is drawn."""


def peer_tools(seen: pd.DataFrame, title: str) -> Figure | None:
    """Draw p50, p90 and p99 of each tool, the first row on top; a bar spans what a tool rounds away.

    `seen` has columns tool, schedule, resolution_s, throughput_rps, p50_s, p90_s, p99_s. None for one tool.
    """
    told = seen[seen["p50_s"].notna()].reset_index(drop=True)
    if len(told) < 2:
        return None
    least_s = 0.7 * min(told[name].where(told[name] > told["resolution_s"]).min() for name in _SHOWN)
    with canvas(title, size=(7.8, 2.0 + 0.5 * len(told))) as (figure, (axes,)):
        for (name, below), look in zip(_SHOWN.items(), DARK_TO_LIGHT, strict=False):
            for place, (_, row) in enumerate(told.iterrows()):
                height = [place + below] * 2
                color = QUIET if row["schedule"] == "closed" else look.color
                span_s = np.array([-1, 1]) * row["resolution_s"] + row[name]
                axes.plot(span_s.clip(least_s), height, color=color, linewidth=4, alpha=0.35)
                axes.plot(max(row[name], least_s), height[0], look.marker, color=color, markersize=7)
            axes.axvline(told[name].iloc[0], color=look.color, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
            axes.plot([], [], look.marker, color=look.color, label=name.removesuffix("_s"))
        axes.set_yticks(range(len(told)), [_label(row) for _, row in told.iterrows()])
        axes.invert_yaxis()
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis, formats.seconds)
        axes.set_xlabel("latency (log scale); dashed: ours; grey: a closed loop, at a rate of its own")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=len(_SHOWN))
    return figure


def _label(row: "pd.Series[float]") -> str:
    return f"{row['tool']}, {formats.per_second(row['throughput_rps'])}"
