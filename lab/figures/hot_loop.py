"""What one run of the hot loop costs: every repetition as a dot, one row per kernel."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lab.figures.style import DARK_TO_LIGHT, INK, canvas


def loop_times(loops: pd.DataFrame, title: str) -> Figure:
    """Draw the wall time of every loop of `loops` (kernel, wall_s), and the median of each kernel."""
    kernels = list(loops.groupby("kernel")["wall_s"].median().sort_values().index)
    with canvas(title, size=(7.4, 1.3 + 0.75 * len(kernels))) as (figure, (axes,)):
        for row, (kernel, look) in enumerate(zip(kernels, DARK_TO_LIGHT, strict=False)):
            times_ms = 1000 * loops.loc[loops["kernel"] == kernel, "wall_s"].to_numpy()
            spread = np.linspace(-0.22, 0.22, len(times_ms))
            axes.plot(times_ms, row + spread, look.marker, color=look.color, alpha=0.6, markersize=4)
            median_ms = float(np.median(times_ms))
            axes.plot([median_ms, median_ms], [row - 0.32, row + 0.32], color=INK, linewidth=2.2)
            axes.annotate(
                f"median {median_ms:.1f} ms", (median_ms, row + 0.34), ha="center", va="bottom", fontsize=9
            )
        axes.set_yticks(range(len(kernels)), kernels)
        axes.set_ylim(-0.6, len(kernels) - 0.3)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: f"{x:g}" if _leads_with(x, "25") else ""))
        axes.set_xlabel("time of one loop, ms (log scale); a dot is one run, top to bottom in order")
        axes.grid(visible=False, axis="y")
    return figure


def _leads_with(x: float, digits: str) -> bool:
    return f"{x:e}"[0] in digits
