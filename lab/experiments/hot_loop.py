"""What does one request cost? The hot loop alone, per kernel, with no server around it."""

from collections.abc import Sequence
from typing import Annotated

import pandas as pd
from pydantic import Field

from lab import formats, hotloop
from lab.models.statistics import quantile
from lab.study.parameters import Count, KernelName, ListOf, Positive, Whole
from lab.study.parameters import Parameters as _Parameters
from lab.study.run import Run


class Parameters(_Parameters):
    """What notebook 01 lets its reader set."""

    run: str
    kernels: Annotated[ListOf[KernelName], Field(min_length=1)]
    iterations: Whole
    repeats: Count
    rate: Positive


def measure(run: Run, kernels: Sequence[str], iterations: int, repeats: int) -> pd.DataFrame:
    """Return a row per loop: kernel, repeat, wall_s, cpu_s; measured once per run and set of parameters."""
    name = f"hot-loop-{'-'.join(kernels)}-{iterations}-{repeats}"
    return run.table(name, lambda: _measure(kernels, iterations, repeats))


def _measure(kernels: Sequence[str], iterations: int, repeats: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"kernel": kernel, "repeat": number, "wall_s": cost.wall_s, "cpu_s": cost.cpu_s}
        for kernel in kernels
        for number, cost in enumerate(hotloop.measure(kernel, iterations, repeats), start=1)
    )


def agreement(kernels: Sequence[str]) -> pd.DataFrame:
    """Compare each kernel's sum over the article's 7^7 steps with the reference, beside its tolerance."""
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
    """Summarise the loops, a row per kernel: median_s, p95_s, cpu_share, loops_rps (of one core)."""
    rows = []
    for kernel, mine in loops.groupby("kernel", sort=False):
        wall_s = mine["wall_s"].to_numpy()
        median_s = quantile(wall_s, 0.5)
        rows.append(
            {
                "kernel": kernel,
                "median_s": median_s,
                "p95_s": quantile(wall_s, 0.95),
                "cpu_share": mine["cpu_s"].sum() / wall_s.sum(),
                "loops_rps": 1 / median_s,
            }
        )
    return pd.DataFrame(rows).sort_values("median_s", ascending=False, ignore_index=True)


def cost_table(costs: pd.DataFrame, rate_rps: float) -> pd.DataFrame:
    """Put the costs in words, with the cores that an offered rate would keep busy."""
    return pd.DataFrame(
        {
            "kernel": costs["kernel"],
            "one loop, median": costs["median_s"].map(formats.seconds),
            "p95": costs["p95_s"].map(formats.seconds),
            "of it on the CPU": costs["cpu_share"].map(formats.percent),
            "loops/s per core": costs["loops_rps"].map(formats.digits),
            f"cores busy at {formats.per_second(rate_rps)}": (rate_rps * costs["median_s"]).map(
                formats.digits
            ),
        }
    )


def title(costs: pd.DataFrame) -> str:
    """Say in a figure's title what the slowest kernel costs."""
    slowest = costs.iloc[0]
    return (
        f"One request costs {formats.seconds(slowest['median_s'])} of a core with kernel {slowest['kernel']}"
    )


def answer(costs: pd.DataFrame, rate_rps: float) -> str:
    """Say what a request costs and what that means for one core."""
    slowest, fastest = costs.iloc[0], costs.iloc[-1]
    text = (
        f"**Answer.** With kernel `{slowest['kernel']}` one request costs "
        f"**{formats.seconds(slowest['median_s'])}** of one core, so a core answers at most "
        f"**{formats.per_second(slowest['loops_rps'])}**; {formats.per_second(rate_rps)} would keep "
        f"{formats.digits(rate_rps * slowest['median_s'])} cores busy."
    )
    if len(costs) > 1:
        ratio = slowest["median_s"] / fastest["median_s"]
        text += (
            f" Kernel `{fastest['kernel']}` does the same work {formats.digits(ratio)} times as fast: "
            f"before clustering, look at the loop."
        )
    return text


def reading(costs: pd.DataFrame) -> str:
    """Read the distribution: how far the slow loops are from the median, and whether the CPU was ours."""
    worst = costs.iloc[int((costs["p95_s"] / costs["median_s"]).to_numpy().argmax())]
    return (
        f"The widest spread is that of `{worst['kernel']}`: one loop in twenty takes "
        f"{formats.digits(worst['p95_s'] / worst['median_s'])} times its median or longer. "
        f"Each kernel was on the CPU for at least {formats.percent(costs['cpu_share'].min())} of its time; "
        f"for the rest of it, it waited."
    )
