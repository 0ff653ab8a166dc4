"""One look for every figure: quiet axes, colours that differ even in grey, a marker for each series."""

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

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
