"""Whether the machine was as fast during a trial as during those it is compared with, by what a loop cost."""

import math

import pandas as pd

from lab.study.columns import NOT_LABELS
from lab.study.plan import FACTORS

MOST_OFF = 0.15
"""A loop that costs more than this share more or less, and the machine was another one meanwhile.

Trials on a quiet machine scatter by a few percent; the conditions that notebooks tell apart differ by more
than this: by another worker, or the next offered rate.
"""

LOOPS_TOOK, DRIFTED = "its loops took", "the loop's cost drifted"
"""How the reasons begin that are about the machine's speed: times change with it, other facts need not."""

_FEWEST = 3
"""Of fewer blocks nobody can say which is off."""


def judged(trials: pd.DataFrame) -> pd.DataFrame:
    """Add `loop_ratio`, and to `invalid_because` what is to be said of the machine's speed.

    `loop_ratio` is the trial's median service time over that of its condition's usual trial, the median over
    blocks: the loops that were measured are a better witness than calibrations seconds before and after. A
    condition is compared with itself only, as boost clocks and hyper-threads let a loop cost more beside
    others. With fewer than three blocks it is nan, and the calibrations around the trial must agree.
    """
    labels = [name for name in trials.columns if name not in NOT_LABELS]
    service_s = trials.groupby([*FACTORS, *labels], dropna=False)["service_p50_s"]
    usual_s = service_s.transform("median").where(service_s.transform("count") >= _FEWEST)
    judged = trials.assign(loop_ratio=trials["service_p50_s"] / usual_s)
    because = [
        "; ".join(filter(None, [earlier, _unsteady(ratio, drift)]))
        for earlier, ratio, drift in zip(
            judged["invalid_because"], judged["loop_ratio"], judged["loop_drift"], strict=True
        )
    ]
    return judged.assign(invalid_because=because, valid=[not reason for reason in because])


def _unsteady(loop_ratio: float, loop_drift: float) -> str:
    if abs(loop_ratio - 1) > MOST_OFF:
        return f"{LOOPS_TOOK} {loop_ratio:.2f} times as long as in its other blocks"
    if math.isnan(loop_ratio) and abs(loop_drift - 1) > MOST_OFF:
        return f"{DRIFTED} by {loop_drift - 1:+.0%} within the block"
    return ""
