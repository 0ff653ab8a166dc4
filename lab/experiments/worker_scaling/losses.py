"""Where the rest of the ideal speed-up went: a stack of factors per block, and what all blocks tell."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from lab import units
from lab.experiments.common import time_of, worded
from lab.experiments.worker_scaling.trials import highest
from lab.models.stack import LOSSES, speedup_stack
from lab.models.statistics import Estimate, estimate

FACTORS = {
    "busy": "busy (dispatch)",
    "in_loop": "in the loop (overhead)",
    "on_cpu": "on a CPU (waiting)",
    "cpu_speed": "speed of the CPU",
}
"""What each factor of a stack is called where it stands beside the others, and what its loss is."""

LOST_BY = {
    "busy": "lost while workers are idle",
    "in_loop": "lost to more overhead per request",
    "on_cpu": "waiting for a CPU",
    "cpu_speed": "lost to slower CPUs",
}
"""What becomes of the part of the ideal that each factor takes."""


def stacks(trials: pd.DataFrame) -> pd.DataFrame:
    """Return a row per block and number of workers above 1: workers, block, speedup, factors, losses.

    Factors and losses are those of `lab.models.stack.Stack`; a loss is `lost_` and its factor's name, as a
    share of the ideal. There is no row where the CPU time of the loops is not known.
    """
    rows: list[dict[str, Any]] = []
    told = highest(trials)
    for block, mine in told[told["loop_cpu_s"] > 0].groupby("block"):
        times = {int(trial["workers"]): time_of(trial) for _, trial in mine.iterrows()}
        if (one := times.pop(1, None)) is None:
            continue
        for workers, many in sorted(times.items()):
            stack = speedup_stack(one, many)
            lost = {f"lost_{name}": loss / workers for name, loss in stack.losses.items()}
            rows.append(
                {"workers": workers, "block": block, "speedup": stack.speedup, **stack.factors, **lost}
            )
    columns = ["workers", "block", "speedup", *LOSSES, *(f"lost_{name}" for name in LOSSES)]
    return pd.DataFrame(rows, columns=columns)


def table(stacks: pd.DataFrame) -> pd.DataFrame:
    """Put the factors of each number of workers in words, as medians over blocks with their intervals."""
    if stacks.empty:
        return pd.DataFrame(
            {"": ["Cannot be told: no block has the CPU time of loops with one worker and more."]}
        )
    return pd.DataFrame(
        {"workers": workers, "speed-up": worded(estimate(list(mine["speedup"])))}
        | {called: worded(estimate(list(mine[name]))) for name, called in FACTORS.items()}
        | {"blocks": len(mine)}
        for workers, mine in stacks.groupby("workers")
    )


def middle(stacks: pd.DataFrame) -> "pd.Series[float]":
    """Return the stack in the middle by speed-up, of one number of workers, or the mean of the middle two.

    So its speed-up is the median, and its losses add up to what the median lacks of the ideal: the median of
    each loss by itself would not.
    """
    ordered = stacks.sort_values("speedup", kind="stable")
    half = (len(ordered) - 1) // 2
    return ordered.iloc[half : len(ordered) - half].mean(numeric_only=True)


@dataclass(frozen=True)
class Largest:
    """The largest loss of a number of workers: its name in `LOSSES`, and its share of the ideal.

    `is_told` is whether the blocks tell that it is a loss at all, and larger than each of the others.
    """

    workers: int
    name: str
    share: Estimate
    is_told: bool


def largest(stacks: pd.DataFrame, workers: int) -> Largest | None:
    """Return the largest loss with this many workers, by its median over blocks; None without a stack."""
    mine = stacks[stacks["workers"] == workers]
    if mine.empty:
        return None
    lost = {name: mine[f"lost_{name}"] for name in LOSSES}
    name = max(lost, key=lambda name: float(lost[name].median()))
    over = [lost[name], *(lost[name] - other for rival, other in lost.items() if rival != name)]
    leads = [estimate(list(lead)) for lead in over]
    is_told = all(lead.is_interval and lead.low > 0 for lead in leads)
    return Largest(workers, name, leads[0], is_told)


def in_words(loss: Largest) -> str:
    """Say what the largest loss is, as a share of the ideal; or that the blocks cannot tell."""
    if not loss.share.is_interval:
        return f"which loss is the largest cannot be told from {units.counted(loss.share.trials, 'block')}"
    share = f"{_percent(loss.share.value)} % of the ideal"
    where = f"({_percent(loss.share.low)} to {_percent(loss.share.high)} %)"
    if not loss.is_told:
        return f"no loss stands out from the others: {LOSSES[loss.name]} takes {share} {where}"
    return f"**{share}** {where} **is {LOST_BY[loss.name]}**, the largest loss"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if abs(share) >= 0.1 else f"{100 * share + 0.0:.1f}"
