"""Figures: the one style. The same thing has the same look everywhere, on a phone and in grey, too."""

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

WIDTH = 5.4
"""Inches of every figure: its letters can still be read when a phone shows it 340 pixels wide."""

INK = "#1f2933"
QUIET = "#5f6b76"
GRID = "#e4e7eb"
PALE = "#aebdca"
"""What is there, but is not what matters."""
LIGHTER = "#4f93bd"
"""A second number of the same thing, beside `#0b3c5d`."""
BAD = "#b8334a"
"""What failed, was lost, or was told apart."""

SMALL = 9.5
"""Points of notes and direct labels."""

HALO: dict[str, Any] = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
"""The box of words, which keeps them readable over what is drawn below them."""


@dataclass(frozen=True)
class Look:
    """How one thing is drawn everywhere: colour, marker and line differ, so grey print keeps them apart."""

    color: str
    marker: str
    line: Any = "-"


ONE = Look("#d9660f", "o", "-")
"""One process."""

SERVERS: dict[str, Look] = {
    "one process": ONE,
    "round-robin": Look("#0b3c5d", "s", "--"),
    "reuseport": Look("#a4243b", "^", "-."),
    "pool of processes": Look("#6c5aa5", "P", (0, (6, 1.5))),
    "least-busy": Look("#4db6a9", "D", ":"),
    "shared": Look("#8ecae6", "v", (0, (3, 1.5))),
    "threads": Look("#f4d35e", "X", (0, (1, 1))),
}
"""Topologies and dispatches: a cluster looks like its dispatch."""


def server_look(name: str) -> Look:
    """Return the look of a server by its name: "one process", "2 workers, shared", "threads, numba"."""
    return next((look for part, look in SERVERS.items() if part in name), SERVERS["round-robin"])


DARK_TO_LIGHT = (
    Look("#0b3c5d", "o", "-"),
    Look("#b8334a", "s", "--"),
    Look("#4db6a9", "^", "-."),
    Look("#f0c14b", "D", ":"),
)
"""The looks of things without one of their own, such as runs or lengths of loops."""

IDEAL: dict[str, Any] = {"color": QUIET, "linewidth": 1.2, "linestyle": (0, (1, 1.5)), "zorder": 1}
"""The most that could be had; its line is always named."""

THEORY: dict[str, Any] = {"color": INK, "linewidth": 1.3, "linestyle": "-"}
"""What theory says; nothing in it is fitted."""

SLO: dict[str, Any] = {"color": "#8e2a6b", "linewidth": 1.2, "linestyle": (0, (7, 2, 1.5, 2)), "zorder": 1}
"""An objective, and the rates that meet it."""

_BASE: dict[str, Any] = {"color": QUIET, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1}

_RC = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
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
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}

_TITLE_PT = 13
_TITLE_CHARACTERS = 44
"""So many bold letters of a title fit on a line of that width."""


@contextmanager
def canvas(
    title: str, rows: int = 1, columns: int = 1, height: float = 3.6, *, width: float = WIDTH, **grid: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a titled figure, `height` inches without its title, and its axes, row by row, in the one style.

    A long title takes several lines; the figure's label has it in one.
    """
    words = _in_lines(title, int(_TITLE_CHARACTERS * width / WIDTH))
    with drawing():
        size = width, height + 0.26 * (1 + words.count("\n"))
        figure = Figure(figsize=size)  # not pyplot's, so neither backend nor state matters
        figure.set_label(title)
        axes = figure.subplots(rows, columns, squeeze=False, **grid)
        figure.suptitle(words, x=0.01, ha="left", fontsize=_TITLE_PT, fontweight="bold", linespacing=1.25)
        yield figure, list(axes.flat)


def title_of(figure: Figure) -> str:
    """Return what a figure says above all, in one line."""
    return str(figure.get_label()) or figure.get_suptitle()


def _in_lines(title: str, most: int) -> str:
    """Break a title into as few lines as it takes, of like lengths; two lines after a stop, if they can."""
    fewest = textwrap.wrap(title, most)
    if len(fewest) == 2:
        words = title.split()
        halves = [(" ".join(words[:n]), " ".join(words[n:])) for n in range(1, len(words))]
        fit = [both for both in halves if max(map(len, both)) <= most]
        fewest = [*min(fit, key=lambda both: (not both[0].endswith((":", ";", ",")), max(map(len, both))))]
    elif len(fewest) > 2:
        widths = range(most // 2, most + 1)
        tried = [textwrap.wrap(title, width) for width in widths]
        fewest = next(lines for lines in tried if len(lines) == len(fewest))
    return "\n".join(fewest)


def drawing() -> AbstractContextManager[None]:
    """Draw with matplotlib's defaults and the lab's style, whatever the user has set."""
    return mpl.style.context(["default", _RC])


_SAVED: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "pil_kwargs": {"compress_level": 0}},  # `_in_few_colors` compresses it
    "svg": {"dpi": 160, "metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}
_FONT = (b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, Geneva, sans-serif")
"""Letters in an SVG are text; where DejaVu Sans is missing, these are no wider."""


def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure as `png`, `svg` or `pdf`; the same figure gives the same file."""
    buffer = io.BytesIO()
    with drawing(), mpl.rc_context({"svg.hashsalt": "scaling-lab", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, **_SAVED[kind])
    content = buffer.getvalue()
    return {"png": _in_few_colors, "svg": _in_few_letters}.get(kind, bytes)(content)


MOST_BYTES = 100_000
"""Of a picture in a report."""
_LIGHT_BYTES = 25_000
"""An SVG that is no heavier is as light as any picture of it."""


def picture(figure: Figure, files: Mapping[str, bytes] | None = None) -> tuple[str, bytes]:
    """Return a figure for a page, and its media type: SVG, or a picture if so many marks are lighter so.

    `files` holds what it was already rendered as, by kind: drawing it takes longer than all else a page does.
    """
    known = files or {}
    svg = known.get("svg") or rendered(figure, "svg")
    if len(svg) > _LIGHT_BYTES and len(png := known.get("png") or rendered(figure, "png")) < len(svg):
        return "image/png", png
    return "image/svg+xml", svg


def _in_few_letters(svg: bytes) -> bytes:
    """Round coordinates to a hundredth of a point, and leave out what nobody sees or refers to."""
    svg = re.sub(rb"<!--.*?-->|<metadata>.*?</metadata>", b"", svg, flags=re.DOTALL)
    svg = re.sub(rb"<[^>]+>", lambda tag: re.sub(rb"(\.\d\d)\d+", rb"\1", tag[0]), svg)
    svg = re.sub(rb'<g id="[^"]*">', b"<g>", svg)
    return re.sub(rb"\n *", b"\n", svg).replace(*_FONT)


def _in_few_colors(png: bytes) -> bytes:
    """Write a picture with a palette: as many colours, and then as many pixels, as `MOST_BYTES` allow."""
    from PIL import Image  # takes a moment to import

    whole = Image.open(io.BytesIO(png)).convert("RGB")
    for colors, scale in ((128, 1.0), (48, 1.0), (24, 1.0), (32, 0.7), (16, 0.5)):
        size = round(whole.width * scale), round(whole.height * scale)
        smaller = whole if scale == 1 else whole.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        smaller.quantize(colors, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
        if buffer.tell() <= MOST_BYTES:
            break
    return buffer.getvalue()


class _InSight(LogLocator):
    """Ticks of each decade, or finer ones where fewer than two of them are in sight: one gives no scale."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        found = np.asarray(super().tick_values(vmin, vmax))
        for finer in (LogLocator(subs=(1, 2, 5)), MaxNLocator(3, steps=[1, 2, 5, 10])):
            if np.sum((found >= vmin) & (found <= vmax)) < 2:
                found = np.asarray(finer.tick_values(vmin, vmax))
        return found


def plain_log_ticks(
    axis: Axis, write: Callable[[float], str] = "{:g}".format, *, most: int | None = None
) -> None:
    """Tick a logarithmic axis at 1, 2 and 5 of each decade, and write the values without powers of ten.

    For an axis with room for only so many (`most`), at powers of ten. Where two of these are not in sight,
    ticks are finer.
    """
    axis.set_major_locator(_InSight(subs=(1,), numticks=most) if most else _InSight(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_minor_formatter(NullFormatter())


def cross_flagged(axes: Axes, trials: pd.DataFrame, x: str, y: str) -> None:
    """Cross out the flagged trials: they are drawn like all others, but should be trusted less."""
    if not (flagged := trials[~trials["valid"]]).empty:
        axes.plot(flagged[x], flagged[y], "x", color=INK, markersize=7, label="a flagged trial", zorder=4)


def reference_line(
    axes: Axes,
    *,
    x: float | None = None,
    y: float | None = None,
    text: str,
    left: bool = False,
    below: bool = False,
    **style: Any,
) -> None:
    """Draw a thin labelled line to compare with; the label of a `y` may stand on the left, or `below` it."""
    style = _BASE | style
    words: dict[str, Any] = {"fontsize": SMALL, "color": style["color"], "bbox": HALO, "zorder": 5}
    if x is not None:
        axes.axvline(x, **style)
        axes.annotate(
            text, (x, 1), xycoords=("data", "axes fraction"), xytext=(3, -2), textcoords="offset points",
            va="top", **words,
        )  # fmt: skip
    if y is not None:
        axes.axhline(y, **style)
        axes.annotate(
            text, (0 if left else 1, y), xycoords=("axes fraction", "data"),
            xytext=(4 if left else -2, -3 if below else 3), textcoords="offset points",
            ha="left" if left else "right", va="top" if below else "baseline", **words,
        )  # fmt: skip


def beside(axes: Axes, labels: Sequence[tuple[float, float, str, str]], gap: float = 1.25) -> None:
    """Write labels to the right of points, as (x, y, text, colour), far enough apart to be read.

    Call it last: the limits of the axes must stand.
    """
    if not labels:
        return
    if (figure := axes.get_figure(root=True)) is None:
        raise ValueError("these axes belong to no figure")
    figure.draw_without_rendering()  # finds the layout
    points = axes.transData.transform([(x, y) for x, y, *_ in labels])[:, 1] * 72 / figure.dpi
    line_pt, below = SMALL * gap, -np.inf
    placed = np.zeros(len(labels))
    for index in np.argsort(points, kind="stable"):
        placed[index] = below = max(points[index], below + line_pt * (1 + labels[index][2].count("\n")))
    placed -= max(0.0, (placed - points).max() / 2)
    for (x, y, text, color), at, own in zip(labels, placed, points, strict=True):
        axes.annotate(
            text, (x, y), xytext=(7, at - own), textcoords="offset points", va="center", fontsize=SMALL,
            color=color, bbox=HALO, zorder=6, annotation_clip=False,
        )  # fmt: skip


def legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Put the legend of these axes below the figure, where no data can be."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, columnspacing=1.2)
