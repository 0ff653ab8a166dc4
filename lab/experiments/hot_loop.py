"""What does one request cost? The hot loop alone, per kernel, with no server around it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from lab import hotloop, units
from lab.checks import Count, Positive, Whole
from lab.figures import HALO, INK, SERVERS, canvas, plain_log_ticks
from lab.hotloop import SummingName
from lab.models.statistics import Estimate, quantile
from lab.study.estimates import Stated, linked, stated
from lab.study.parameters import ListOf, RunToAddTo
from lab.study.parameters import Parameters as _Parameters
from lab.study.run import Run

EXPERIMENT = "hot-loop"


class Parameters(_Parameters):
    """What notebook 01 lets its reader set."""

    run: RunToAddTo
    kernels: Annotated[ListOf[SummingName], Field(min_length=1)]
    iterations: Whole
    repeats: Count
    rate: Positive


def measure(run: Run, kernels: Sequence[str], iterations: int, repeats: int) -> pd.DataFrame:
    """Return a row per loop: kernel, iterations, repeat, wall_s, cpu_s; a run measures these once."""
    name = f"{EXPERIMENT}-{'-'.join(kernels)}-{iterations}-{repeats}"
    return run.table(name, lambda: _measure(kernels, iterations, repeats))


def _measure(kernels: Sequence[str], iterations: int, repeats: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kernel": kernel,
            "iterations": iterations,
            "repeat": number,
            "wall_s": cost.wall_s,
            "cpu_s": cost.cpu_s,
        }
        for kernel in kernels
        for number, cost in enumerate(hotloop.measure(kernel, iterations, repeats), start=1)
    )


def agreement(kernels: Sequence[str]) -> pd.DataFrame:
    """Compare each kernel's sum over the article's 7^7 steps with the reference, and show its tolerance."""
    sums = {kernel: hotloop.kernel(kernel)(hotloop.ITERATIONS) for kernel in kernels}
    return pd.DataFrame(
        {
            "kernel": kernel,
            "sum": repr(total),
            "relative difference": f"{abs(total / hotloop.REFERENCE_SUM - 1):.1e}",
            "tolerance": f"{hotloop.TOLERANCE[kernel]:.0e}",
        }
        for kernel, total in sums.items()
    )


def costs(loops: pd.DataFrame) -> pd.DataFrame:
    """Summarise the loops, a row per kernel, the slowest first.

    Columns: min_s, median_s, p95_s, max_s, cpu_share, loops_rps (of one core), times_as_fast (as it); and
    iterations, if the loops say how many.
    """
    rows = []
    for kernel, mine in loops.groupby("kernel", sort=False):
        wall_s = mine["wall_s"].to_numpy()
        median_s = quantile(wall_s, 0.5)
        rows.append(
            {
                "kernel": kernel,
                "min_s": float(wall_s.min()),
                "median_s": median_s,
                "p95_s": quantile(wall_s, 0.95),
                "max_s": float(wall_s.max()),
                "cpu_share": min(1.0, mine["cpu_s"].sum() / wall_s.sum()),  # of two clocks
                "loops_rps": 1 / median_s,
            }
        )
    costs = pd.DataFrame(rows).sort_values("median_s", ascending=False, ignore_index=True)
    return costs.assign(
        times_as_fast=costs["median_s"].max() / costs["median_s"], **loops.filter(["iterations"]).iloc[0]
    )


def _about(cost: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what names the loop of a row of `costs`."""
    long = {"iterations": int(cost["iterations"])} if "iterations" in cost else {}
    return {"kernel": cost["kernel"]} | long


def _faster_than(slowest: Mapping[Any, Any]) -> str:
    return f"times as fast as kernel {slowest['kernel']}"


_TIME = "time of one loop, median"


def estimates(loops: pd.DataFrame, sources: Sequence[str] = ()) -> list[Stated]:
    """State what a loop takes, and how many times as fast each other kernel is as the slowest.

    All loops are of one minute of one machine: one look at its speed, however many they are, so the range of
    their times is no interval. `sources` names the table that holds them.
    """
    slowest, *faster = known = costs(loops).to_dict("records")
    times = [
        stated(
            EXPERIMENT, _TIME, Estimate(cost["median_s"], cost["min_s"], cost["max_s"], trials=1), "s",
            sources=sources, **_about(cost),
        )
        for cost in known
    ]  # fmt: skip
    return times + [
        stated(
            EXPERIMENT, _faster_than(slowest), Estimate(ratio, ratio, ratio, trials=1), compares=True,
            sources=sources, **_about(cost),
        )
        for cost in faster
        for ratio in [cost["times_as_fast"]]
    ]  # fmt: skip


def cost_table(costs: pd.DataFrame, rate_rps: float) -> pd.DataFrame:
    """Put the costs in words, with the number of cores that an offered rate would keep busy."""
    return pd.DataFrame(
        {
            "kernel": costs["kernel"],
            "one loop, median": costs["median_s"].map(units.in_seconds),
            "p95": costs["p95_s"].map(units.in_seconds),
            "of it on the CPU": costs["cpu_share"].map(units.in_percent),
            "loops/s per core": costs["loops_rps"].map(units.plain),
            f"cores busy at {units.per_second(rate_rps)}": (rate_rps * costs["median_s"]).map(units.plain),
        }
    )


def answer(costs: pd.DataFrame, rate_rps: float) -> str:
    """Say what a request costs and what that means for one core."""
    rows = costs.to_dict("records")
    slowest, fastest = rows[0], rows[-1]
    time = linked(units.seconds(slowest["median_s"]), _TIME, **_about(slowest))
    text = (
        f"**Answer.** While these loops were timed, one of kernel `{slowest['kernel']}` took "
        f"{time} of a core in the median. At that speed, "
        f"{units.per_second(rate_rps)} keep {units.digits(rate_rps * slowest['median_s'])} cores busy; at "
        "another time, this machine may be faster or slower."
    )
    if len(costs) > 1:
        times = linked(units.digits(fastest["times_as_fast"]), _faster_than(slowest), **_about(fastest))
        text += (
            f" Kernel `{fastest['kernel']}` does the same work {times} times as fast: "
            "before clustering, look at the loop."
        )
    return text


def figure(loops: pd.DataFrame, costs: pd.DataFrame) -> Figure:
    """Draw the wall time of every loop, and the median of each kernel, the slowest on top."""
    slowest = costs.iloc[0]
    cost = f"{units.seconds(slowest['median_s'])} of a core"
    title = f"One request took {cost} with kernel {slowest['kernel']}"
    if len(costs) > 1:
        fastest = costs.iloc[-1]
        title += f", and {units.seconds(fastest['median_s'])} with {fastest['kernel']}"
    kernels = list(costs["kernel"])[::-1]
    with canvas(title, height=0.9 + 0.7 * len(kernels)) as (figure, (axes,)):
        for row, kernel in enumerate(kernels):
            times_ms = 1000 * loops.loc[loops["kernel"] == kernel, "wall_s"].to_numpy()
            spread = np.linspace(0.22, -0.22, len(times_ms))
            axes.plot(
                times_ms, row + spread, "o", color=SERVERS["round-robin"].color, alpha=0.55, markersize=4.5
            )
            median_ms = float(np.median(times_ms))
            axes.plot([median_ms, median_ms], [row - 0.32, row + 0.32], color=INK, linewidth=2.2)
            axes.annotate(
                units.seconds(median_ms / 1000), (median_ms, row + 0.34), ha="center", va="bottom",
                fontweight="bold", bbox=HALO,
            )  # fmt: skip
        axes.set_yticks(range(len(kernels)), kernels)
        axes.set_ylim(-0.6, len(kernels) - 0.3)
        axes.margins(x=0.12)
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis)
        axes.set_xlabel("time of one loop, ms (log scale); a bar marks the median")
        axes.grid(visible=False, axis="y")
    return figure
