"""Latency over the course of an attack, beside what the deterministic theory of overload predicts."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures.style import DARK_TO_LIGHT, INK, canvas, reference_line

_FAILED = ("x", "+", "1", "2")
"""The markers of failures: a server is told by its shape here too, not by its colour alone."""


def latency_over_time(requests: pd.DataFrame, theory: pd.DataFrame, loop_s: float, title: str) -> Figure:
    """Draw each request's latency where it was due, and the predicted line of its server.

    `requests` has columns server, due_s, latency_s, outcome; `theory` has server, due_s, latency_s.
    A request that failed is a cross, of its server's shape, at the time it took to fail.
    """
    servers = list(requests["server"].unique())
    with canvas(title) as (figure, (axes,)):
        for server, look, cross in zip(servers, DARK_TO_LIGHT, _FAILED, strict=False):
            mine = requests[requests["server"] == server]
            ok = mine["outcome"] == "ok"
            axes.plot(
                mine.loc[ok, "due_s"], mine.loc[ok, "latency_s"], look.marker, color=look.color,
                markersize=4, alpha=0.65, rasterized=True, label=f"{server}: answered",
            )  # fmt: skip
            if not ok.all():
                axes.plot(
                    mine.loc[~ok, "due_s"], mine.loc[~ok, "latency_s"], cross, color=look.color,
                    markersize=5, rasterized=True, label=f"{server}: failed",
                )  # fmt: skip
            line = theory[theory["server"] == server]
            axes.plot(line["due_s"], line["latency_s"], linestyle=look.line, color=INK, linewidth=1.3)
            _label_line(axes, line)
        top_s = np.nanmax(np.concatenate([requests["latency_s"], theory["latency_s"]]))
        axes.set_ylim(0, 1.12 * top_s)
        reference_line(axes, y=loop_s, text="the loop alone")
        axes.set_xlabel("when the request was due, s from the start")
        axes.set_ylabel("latency from the due time, s")
        axes.legend(loc="upper left")
    return figure


def _label_line(axes: Axes, line: pd.DataFrame) -> None:
    end = line.iloc[-1]
    axes.annotate(
        "theory", (end["due_s"], end["latency_s"]), xytext=(3, 0), textcoords="offset points",
        va="center", fontsize=8.5, color=INK,
    )  # fmt: skip
