"""What the hot loop costs at both ends of a block: whether the machine was the same machine all along."""

import math
from datetime import UTC, datetime
from statistics import median

import pandas as pd

from lab.hotloop import measure
from lab.study.plan import Block
from lab.study.store import Store

_KIND = "calibrations"
_FEWEST_LOOPS, _MOST_LOOPS = 5, 25
_LONG_ENOUGH_S = 0.25
"""A shorter look at the loop sees what the machine does for a moment, not how fast it is."""

_LOOP = ["block", "kernel", "iterations"]


def calibrate(store: Store, block: Block, end: str) -> None:
    """Measure the loops of the block's trials now, and keep that as the block's `end`: start or end."""
    loops = sorted({(trial.condition.kernel, trial.condition.iterations) for trial in block.trials})
    now = datetime.now(UTC)
    rows = [
        (block.number, kernel, iterations, now, _loop_s(kernel, iterations)) for kernel, iterations in loops
    ]
    frame = pd.DataFrame(rows, columns=[*_LOOP, "at", "loop_s"])
    place = f"{block.experiment}.b{block.number:02d}"
    store.save_table(_KIND, f"{place}.{len(store.names(_KIND, place)):02d}-{end}", frame)


def _loop_s(kernel: str, iterations: int) -> float:
    walls_s = [cost.wall_s for cost in measure(kernel, iterations, _FEWEST_LOOPS)]
    enough = math.ceil(_LONG_ENOUGH_S / median(walls_s))
    if (more := min(enough, _MOST_LOOPS) - _FEWEST_LOOPS) > 0:
        walls_s += [cost.wall_s for cost in measure(kernel, iterations, more)]
    return median(walls_s)


def is_closed(store: Store, block: Block) -> bool:
    """Say whether the block's last calibration is one at its end: if not, a kill came before."""
    names = store.names(_KIND, f"{block.experiment}.b{block.number:02d}")
    return bool(names) and names[-1].endswith("-end")


def with_calibration(store: Store, experiment: str, trials: pd.DataFrame) -> pd.DataFrame:
    """Add `loop_s`, the mean of the block's next calibrations before and after, and `loop_drift`.

    `loop_drift` is after / before: above 1 the machine became slower.
    """
    calibrations = store.tables(_KIND, experiment)
    if trials.empty or not calibrations:
        return trials.assign(loop_s=float("nan"), loop_drift=float("nan"))
    loops = pd.concat(calibrations.values()).sort_values("at")
    loops["at"] = loops["at"].astype(trials["started_at"].dtype)
    ordered = trials.sort_values("started_at")
    before, after = (
        pd.merge_asof(ordered, loops, left_on="started_at", right_on="at", by=_LOOP, direction=direction)[
            "loop_s"
        ]
        for direction in ("backward", "forward")
    )
    joined = ordered.reset_index(drop=True)
    joined["loop_s"] = pd.concat([before, after], axis=1).mean(axis=1)
    joined["loop_drift"] = after / before
    return joined
