"""How quiet the machine is: what others took of its CPUs while a trial ran."""

import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import psutil

from lab.flags import Flag, passed
from lab.hotloop import measure
from lab.models.statistics import estimate, fewest_trials
from lab.study.plan import FACTORS, LOOP, NOT_LABELS, Block, share_of_limit
from lab.study.store import Store

MOST_STEAL = 0.02
"""If the hypervisor takes more than one moment in fifty, a p99 may consist of its pauses."""

MOST_OTHERS_CPU = 0.10
"""If other processes use more than this share of all CPUs, what a worker gets depends on them.

An idle desktop uses 1 to 3 %. On a large machine nobody may miss these CPUs; a trial is flagged all the same.
"""

_RESOLUTION_S = 0.05
"""How far apart counters may be that tick in hundredths of a second, at different moments."""


@dataclass(frozen=True)
class Snapshot:
    """Counters of CPU seconds over all CPUs; `stalled_s` is None if the kernel does not count it."""

    total_s: float
    idle_s: float
    stolen_s: float
    own_s: float
    wall_s: float
    stalled_s: float | None
    load1: float


@dataclass(frozen=True)
class Noise:
    """What happened between two snapshots, as shares of all CPU time (`cpu_pressure`: of wall time).

    `steal`: taken by the hypervisor. `others_cpu`: used by other processes than ours. `cpu_pressure`: time
    during which something waited for a CPU, our own processes included. `load1`: the load average before.
    """

    steal: float
    others_cpu: float
    cpu_pressure: float | None
    load1: float

    def flags(self) -> list[Flag]:
        """Return what spoils a trial; load average and CPU pressure do not, as a full server raises both."""
        return passed(
            [Flag("steal", self.steal, MOST_STEAL), Flag("others_cpu", self.others_cpu, MOST_OTHERS_CPU)]
        )


def snapshot(root: Path = Path("/")) -> Snapshot:
    """Read the counters now; `root` is where /proc is found."""
    times = psutil.cpu_times()
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # already in user and nice
    own = os.times()
    return Snapshot(
        total_s=sum(times) - guests,
        idle_s=times.idle + getattr(times, "iowait", 0.0),
        stolen_s=getattr(times, "steal", 0.0),
        own_s=own.user + own.system + own.children_user + own.children_system,
        wall_s=own.elapsed,
        stalled_s=_stalled_s(root / "proc/pressure/cpu"),
        load1=os.getloadavg()[0],
    )


def _stalled_s(pressure: Path) -> float | None:
    """Parse `some avg10=0.00 avg60=0.04 avg300=0.20 total=8463364`, where total is in microseconds."""
    try:
        some = next(line for line in pressure.read_text().splitlines() if line.startswith("some "))
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, StopIteration, ValueError):
        return None


def between(before: Snapshot, after: Snapshot) -> Noise:
    """Return the noise between two snapshots; every process started in between must have been reaped."""
    total_s = max(after.total_s - before.total_s, 1e-9)
    stolen_s = after.stolen_s - before.stolen_s
    busy_s = total_s - (after.idle_s - before.idle_s) - stolen_s
    pressure = None
    if before.stalled_s is not None and after.stalled_s is not None:
        pressure = _share(after.stalled_s - before.stalled_s, max(after.wall_s - before.wall_s, 1e-9))
    return Noise(
        steal=_share(stolen_s, total_s),
        others_cpu=_share(busy_s - (after.own_s - before.own_s) - _RESOLUTION_S, total_s),
        cpu_pressure=pressure,
        load1=before.load1,
    )


def _share(part: float, whole: float) -> float:
    """Keep the ratio of two clocks that tick apart between 0 and 1."""
    return min(max(part / whole, 0.0), 1.0)


_KIND = "calibrations"
_FEWEST_LOOPS, _MOST_LOOPS = 5, 25
_LONG_ENOUGH_S = 0.25
"""A shorter look at the loop shows what the machine does for a moment, not how fast it is."""

_LOOP = ["block", "kernel", "iterations"]


def calibrate(store: Store, block: Block, end: str) -> dict[tuple[str, int], float]:
    """Time the loops of the block's trials now, and keep that for the block's `end`: start or end.

    Returns what `measured_loop_s` says, by kernel and iterations.
    """
    loops = sorted({(trial.condition.kernel, trial.condition.iterations) for trial in block.trials})
    now = datetime.now(UTC)
    rows = [
        (block.number, kernel, iterations, now, measured_loop_s(kernel, iterations))
        for kernel, iterations in loops
    ]
    frame = pd.DataFrame(rows, columns=[*_LOOP, "at", "loop_s"])
    place = f"{block.experiment}.b{block.number:02d}"
    store.save_table(_KIND, f"{place}.{len(store.names(_KIND, place)):02d}-{end}", frame)
    return {(kernel, iterations): loop_s for _, kernel, iterations, _, loop_s in rows}


def measured_loop_s(kernel: str, iterations: int) -> float:
    """Time the loop now, and return its median CPU time, which no neighbour's burst prolongs.

    It is in seconds; for a loop that only sleeps, it is how long it takes.
    """
    costs = measure(kernel, iterations, _FEWEST_LOOPS)
    enough = math.ceil(_LONG_ENOUGH_S / median(cost.wall_s for cost in costs))
    if (more := min(enough, _MOST_LOOPS) - _FEWEST_LOOPS) > 0:
        costs += measure(kernel, iterations, more)
    return median(cost.wall_s if kernel == "sleep" else cost.cpu_s for cost in costs)


def is_closed(store: Store, block: Block) -> bool:
    """Say whether the block's last calibration is the one at its end: if not, a kill came first."""
    names = store.names(_KIND, f"{block.experiment}.b{block.number:02d}")
    return bool(names) and names[-1].endswith("-end")


def calibrations(store: Store) -> pd.DataFrame:
    """Return every calibration of a run: block, kernel, iterations, at, loop_s."""
    tables = store.tables(_KIND, "*").values()
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*_LOOP, "at", "loop_s"])


def with_calibration(store: Store, experiment: str, trials: pd.DataFrame) -> pd.DataFrame:
    """Add `loop_s`, the mean of the block's next calibrations before and after, and `loop_drift`.

    `loop_drift` is after / before: above 1, the machine became slower.
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


def offered_rps(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return the rate that each trial was offered: of random arrivals, by as many as fell due."""
    fell_due_rps = (trials["planned"] / trials["duration_s"]).where(trials["arrivals"] == "poisson")
    return fell_due_rps.fillna(trials["rate"])


def with_utilisation(trials: pd.DataFrame, cpus: int) -> pd.DataFrame:
    """Add `utilisation`: the offered rate as a `share_of_limit`, on a machine of so many CPUs.

    A load is what was planned by the calibration; this is what came of it, at the speed of the trial itself.
    It is nan if nothing was answered.
    """
    its_cpus = trials["quota_cpus"].astype(float).fillna(cpus).clip(upper=cpus)
    return trials.assign(
        utilisation=share_of_limit(
            offered_rps(trials),
            trials["service_mean_s"],
            trials["service_cpu_mean_s"].astype(float),
            trials["workers"],
            its_cpus.mask(trials["kernel"] == "sleep", math.inf),
        )
    )


_SAME_MOMENT = pd.Timedelta(60, "s")


def of_two_sizes(calibrations: pd.DataFrame) -> pd.DataFrame:
    """Compare the calibrations of two sizes of one loop wherever they were made within the same minute.

    A row per kernel and pair of sizes: kernel, shorter and longer (iterations), pairs, shorter_step_s and
    longer_step_s (medians of the time of one iteration), most_apart (the ratio of the two, shorter over
    longer, that is furthest from 1) and contradictions (the pairs that are more than `MOST_OFF` apart).
    """
    steps = calibrations.assign(step_s=calibrations["loop_s"] / calibrations["iterations"]).sort_values("at")
    rows = []
    for kernel, mine in steps.groupby("kernel"):
        sizes = {size: timed[["at", "step_s"]] for size, timed in mine.groupby("iterations") if size}
        for shorter, longer in combinations(sizes, 2):
            pairs = pd.merge_asof(
                sizes[shorter], sizes[longer], on="at", direction="nearest", tolerance=_SAME_MOMENT,
                suffixes=("_shorter", "_longer"),
            ).dropna()  # fmt: skip
            if not pairs.empty:
                ratio = pairs["step_s_shorter"] / pairs["step_s_longer"]
                rows.append(
                    {
                        "kernel": kernel,
                        "shorter": shorter,
                        "longer": longer,
                        "pairs": len(pairs),
                        "shorter_step_s": pairs["step_s_shorter"].median(),
                        "longer_step_s": pairs["step_s_longer"].median(),
                        "most_apart": max(ratio, key=lambda one: abs(math.log(one))),
                        "contradictions": int(ratio.map(_is_off).sum()),
                    }
                )
    return pd.DataFrame(rows)


MOST_OFF = 0.15
"""A loop's cost is off if it is this share above what is usual, or as many times below it.

Trials on a quiet machine scatter by a few percent. The conditions that notebooks tell apart differ by more
than this: by another worker, or the next offered rate.
"""

_FEWEST = 3
"""With fewer blocks, it is impossible to tell which is off."""


def judged(trials: pd.DataFrame, of_run: pd.DataFrame) -> pd.DataFrame:
    """Add `loop_ratio`, and to `flags` any doubt about the machine's speed.

    `loop_ratio` is the CPU time of the trial's median loop divided by what is `usual` for that `LOOP` in
    `of_run`, all trials of the run: few blocks of one condition may all meet the machine at another speed.
    Only a condition that differs in all of its blocks, with enough of them for an interval, is compared with
    itself: boost clocks and hyper-threads make a loop cost more beside others. Runs that kept no CPU time
    compare the loop's wall time with the median over the condition's blocks, if there are three. Where there
    is nothing to compare with, it is nan, and the calibrations around the trial must agree.
    """
    labels = [name for name in trials.columns if name not in NOT_LABELS]
    planned = trials.assign(rate=trials["rate"].where(trials["load"].isna()))  # a load has a rate per block
    condition = [planned[name] for name in (*FACTORS, *labels)]
    ratio = _of_usual(trials, of_run)
    ratio /= ratio.groupby(condition, dropna=False).transform(_own)
    walls_s = trials["service_p50_s"].groupby(condition, dropna=False)
    median_s = walls_s.transform("median").where(walls_s.transform("count") >= _FEWEST)
    judged = trials.assign(loop_ratio=ratio.where(_cpu_s(trials).notna(), trials["service_p50_s"] / median_s))
    flags = [
        (*earlier, *_unsteady(ratio, drift))
        for earlier, ratio, drift in zip(
            judged["flags"], judged["loop_ratio"], judged["loop_drift"], strict=True
        )
    ]
    return judged.assign(
        flags=pd.Series(flags, judged.index, dtype=object), valid=[not found for found in flags]
    )


def usual(costs: "pd.Series[float]") -> float:
    """Return the cost that most of a run's trials agree on; nan if there is none.

    It is the median of the most trials that lie within `MOST_OFF` of one middle. Two groups of one size, or
    fewer trials than an interval needs, tell nothing. Medians are of logarithms, to which faster and slower
    are alike.
    """
    known = np.sort(costs[costs > 0].to_numpy(np.float64))
    if len(known) < fewest_trials():
        return math.nan
    ends = np.searchsorted(known, known * (1 + MOST_OFF) ** 2, side="right")
    sizes = ends - np.arange(len(known))
    logs = np.log(known)
    middles = [np.median(logs[first : ends[first]]) for first in np.flatnonzero(sizes == sizes.max())]
    return math.nan if _is_off(math.exp(middles[-1] - middles[0])) else float(np.exp(np.median(middles)))


def _of_usual(trials: pd.DataFrame, of_run: pd.DataFrame) -> "pd.Series[float]":
    usual_s = {key: usual(_cpu_s(alike)) for key, alike in of_run.groupby(LOOP)}
    keys = zip(*(trials[name] for name in LOOP), strict=True)
    return _cpu_s(trials) / pd.Series([usual_s.get(key, math.nan) for key in keys], trials.index, float)


def _cpu_s(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return the CPU time of the median loop; nan where the loop only sleeps, or the run did not keep it."""
    return trials["service_cpu_p50_s"].mask(trials["kernel"] == "sleep")


def _own(ratios: "pd.Series[float]") -> float:
    """Return what a condition's loops cost on their own, relative to the usual: 1 unless all differ."""
    if ratios.count() < fewest_trials():
        return 1.0
    found = estimate(list(ratios.dropna()), between_runs=0)
    differ = found.low > 1 + MOST_OFF or found.high < 1 / (1 + MOST_OFF)
    return found.value if differ else 1.0


def _is_off(ratio: float) -> bool:
    return max(ratio, 1 / ratio) > 1 + MOST_OFF


def _unsteady(loop_ratio: float, loop_drift: float) -> list[Flag]:
    if not math.isnan(loop_ratio):
        limit = (1 + MOST_OFF) ** math.copysign(1, loop_ratio - 1)
        return [Flag("loop_ratio", loop_ratio, limit)] if _is_off(loop_ratio) else []
    if abs(loop_drift - 1) > MOST_OFF:
        return [Flag("loop_drift", loop_drift - 1, math.copysign(MOST_OFF, loop_drift - 1))]
    return []
