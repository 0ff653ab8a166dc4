"""Figures: the one look that all have, and an attack second by second, which several parts draw."""

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from lab import units

INK = "#1f2933"
QUIET = "#7b8794"
GRID = "#e4e7eb"


@dataclass(frozen=True)
class Look:
    """How one series is drawn everywhere: colour, marker and line differ, so grey print keeps them apart."""

    color: str
    marker: str
    line: str = "-"


DARK_TO_LIGHT = (
    Look("#0b3c5d", "o", "-"),
    Look("#b8334a", "s", "--"),
    Look("#4db6a9", "^", "-."),
    Look("#f0c14b", "D", ":"),
)

_RC = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}


_TITLE_PT = 12.5
"""Of a title that fits into its figure; a longer one is smaller."""


@contextmanager
def canvas(
    title: str, rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.4, 4.2), **grid: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a titled figure and its axes, row by row, in the lab's style alone."""
    with drawing():
        figure = Figure(figsize=size)  # not pyplot's, so neither backend nor state matters
        axes = figure.subplots(rows, columns, squeeze=False, **grid)
        wide = TextPath((0, 0), title, size=_TITLE_PT, prop=FontProperties(weight="bold")).get_extents().width
        fits = min(1.0, 0.95 * 72 * size[0] / wide)
        figure.suptitle(title, x=0.01, ha="left", fontsize=_TITLE_PT * fits, fontweight="bold")
        yield figure, list(axes.flat)


def drawing() -> AbstractContextManager[None]:
    """Draw with matplotlib's defaults and the lab's style, whatever the user has set."""
    return mpl.style.context(["default", _RC])


_SAVED: dict[str, dict[str, Any]] = {
    "png": {"dpi": 160, "pil_kwargs": {"optimize": True}},
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}


def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure as `png`, `svg` or `pdf`; the same figure gives the same file."""
    buffer = io.BytesIO()
    with drawing(), mpl.rc_context({"svg.hashsalt": "scaling-lab"}):
        figure.savefig(buffer, format=kind, **_SAVED[kind])
    return buffer.getvalue()


def plain_log_ticks(axis: Axis, write: Callable[[float], str] = "{:g}".format) -> None:
    """Tick a logarithmic axis at 1, 2 and 5 of each decade, and write the values without powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_minor_formatter(NullFormatter())


def cross_flagged(axes: Axes, trials: pd.DataFrame, x: str, y: str) -> None:
    """Cross out the flagged trials: they are drawn like all others, but should be trusted less."""
    if not (flagged := trials[~trials["valid"]]).empty:
        axes.plot(flagged[x], flagged[y], "x", color=INK, markersize=8, label="a flagged trial", zorder=4)


def reference_line(axes: Axes, *, x: float | None = None, y: float | None = None, text: str) -> None:
    """Draw a thin labelled line for the reader to compare with."""
    style: dict[str, Any] = {"color": QUIET, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1}
    halo = [withStroke(linewidth=2.5, foreground="white")]  # readable over dots
    if x is not None:
        axes.axvline(x, **style)
        axes.annotate(
            text, (x, 1), xycoords=("data", "axes fraction"), xytext=(3, -3), textcoords="offset points",
            va="top", fontsize=8.5, color=QUIET,
            path_effects=halo, zorder=5,
        )  # fmt: skip
    if y is not None:
        axes.axhline(y, **style)
        axes.annotate(
            text, (1, y), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
            ha="right", fontsize=8.5, color=QUIET,
            path_effects=halo, zorder=5,
        )  # fmt: skip


_FAILURES = ("http_error", "timeout", "refused", "reset", "client_error", "dropped")
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")
_QUANTILES = ("p50_s", "p90_s", "p99_s")

Edges = NDArray[np.float64]


def over_time(rows: pd.DataFrame, title: str, stopped_s: float | None = None, subtitle: str = "") -> Figure:
    """Draw the rows that `lab.load.summary` makes: three panels over one axis of seconds.

    `stopped_s`, marked in the figure, is when the attack was interrupted.
    """
    bin_s = float(rows["start_s"].diff().iloc[1]) if len(rows) > 1 else 1.0
    edges_s = np.append(rows["start_s"], rows["start_s"].iloc[-1] + bin_s)
    with canvas(title, rows=3, size=(8.6, 7.0), sharex=True, height_ratios=(3, 3, 2)) as (figure, axes):
        _throughput(axes[0], rows, edges_s, bin_s)
        _latency(axes[1], rows, edges_s[:-1] + bin_s / 2)
        _in_flight(axes[2], rows, edges_s)
        if stopped_s is not None:
            for panel in axes:
                reference_line(panel, x=max(stopped_s, 0.0), text="interrupted" if panel is axes[0] else "")
        axes[0].set_title(subtitle, fontsize=9, fontweight="normal", parse_math=False)
        figure.align_ylabels()
    return figure


def _throughput(axes: Axes, rows: pd.DataFrame, edges_s: Edges, bin_s: float) -> None:
    """Stack what ended, good answers below and failures above, under the line of what fell due."""
    ok_look, bad_look = DARK_TO_LIGHT[2], DARK_TO_LIGHT[1]
    below = rows["ok"] / bin_s
    axes.bar(edges_s[:-1], below, 0.9 * bin_s, align="edge", color=ok_look.color, label="ok")
    for name, hatch in zip(_FAILURES, _HATCHES, strict=True):
        if rows[name].any():
            axes.bar(
                edges_s[:-1], rows[name] / bin_s, 0.9 * bin_s, bottom=below, align="edge",
                color=bad_look.color, hatch=hatch, edgecolor="white", linewidth=0, label=name,
            )  # fmt: skip
            below = below + rows[name] / bin_s
    due_rps = np.append(rows["due"], rows["due"].iloc[-1]) / bin_s
    axes.step(edges_s, due_rps, where="post", color=INK, linewidth=1.2, label="offered")
    axes.set_ylim(0, 1.25 * max(below.max(), due_rps.max()))
    axes.set_ylabel("requests per second")
    axes.legend(loc="upper right", ncols=len(_FAILURES) + 2, columnspacing=1.4)


def _latency(axes: Axes, rows: pd.DataFrame, at_s: Edges) -> None:
    """Draw the quantiles of what was due in each bin, and shade from the median to the slowest hundredth."""
    shade: dict[str, Any] = {"color": DARK_TO_LIGHT[2].color, "alpha": 0.18, "linewidth": 0}
    axes.fill_between(at_s, rows["p50_s"], rows["p99_s"], **shade)
    for name, look in zip(_QUANTILES, DARK_TO_LIGHT, strict=False):
        line = axes.plot(at_s, rows[name], look.marker + look.line, color=look.color, markersize=3.5)[0]
        line.set_label(name.removesuffix("_s"))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: units.seconds(y)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if rows["p50_s"].notna().any():  # room for the legend, and no exaggerated wiggles
        axes.set_ylim(rows["p50_s"].min() / 2, 4 * rows["p99_s"].max())
    axes.set_ylabel("latency, by due time")
    axes.legend(loc="upper right", ncols=3)


def _in_flight(axes: Axes, rows: pd.DataFrame, edges_s: Edges) -> None:
    """Draw how many requests were unanswered at each edge of the bins."""
    unanswered = np.append(0, rows["in_flight"])
    axes.fill_between(edges_s, unanswered, color=INK, alpha=0.15, linewidth=0)
    axes.plot(edges_s, unanswered, color=INK)
    axes.set_ylim(0, max(1.0, 1.1 * unanswered.max()))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlim(0, edges_s[-1])
    axes.set_ylabel("requests in flight")
    axes.set_xlabel("seconds from the start")
