"""The report judged by the twelve rules of Hoefler and Belli, each by what the run itself shows.

Scientific Benchmarking of Parallel Computing Systems, SC15. The rules are in our words. What a run does not
show is not kept, whatever the code intends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from lab.machine import Machine
from lab.models.statistics import QUANTILE_METHOD, Interval, samples_needed
from lab.study.estimates import COVERING
from lab.study.manifest import Manifest
from lab.study.plan import FACTORS
from lab.units import counted, digits, per_second, percent, seconds

Kept = Literal["yes", "in part", "no"]
Found = tuple[Kept, str]


_FOUND = (Interval.SEARCH.value,)
"""Bounds of a search are no summary of numbers."""

_FREE = (Interval.MEDIAN.value, Interval.PROPORTION.value, Interval.CROSSING.value)
"""The intervals that hold whatever the distribution is."""

_SYMMETRIC = 1e-6
"""A value as near to the middle of its interval, as a share of it, is in the middle."""


@dataclass(frozen=True)
class Evidence:
    """What a run shows of itself: its estimates, its trials by experiment, its manifest, and its figures."""

    estimates: pd.DataFrame
    trials: Mapping[str, pd.DataFrame]
    manifest: Manifest
    figures: Sequence[Figure] = ()

    @property
    def machine(self) -> Machine:
        """The machine that was measured."""
        return self.manifest.machine

    @property
    def compared(self) -> pd.DataFrame:
        """The ratios of two conditions."""
        return self.estimates[self.estimates["compares"]]

    @property
    def all_trials(self) -> pd.DataFrame:
        """The trials of all experiments."""
        return pd.concat(self.trials.values()) if self.trials else pd.DataFrame(columns=["planned"])

    def of(self, quantity: str) -> pd.DataFrame:
        """The estimates whose quantity has these words."""
        return self.estimates[self.estimates["quantity"].str.contains(quantity, regex=False)]


def table(evidence: Evidence) -> pd.DataFrame:
    """Say of each rule whether this run keeps it, and what shows that."""
    judged = [(rule, *judge(evidence)) for rule, judge in RULES.items()]
    return pd.DataFrame(
        {
            "": range(1, len(judged) + 1),
            "rule": [rule for rule, _, _ in judged],
            "kept": [kept for _, kept, _ in judged],
            "evidence": [shown for _, _, shown in judged],
        }
    )


def _grade(wholly: bool, partly: bool) -> Kept:
    return "yes" if wholly else "in part" if partly else "no"


def _base(run: Evidence) -> Found:
    speedups, bases = run.of("speed-up over one worker"), run.of("highest throughput")
    bases = bases[bases["unit"] != ""]  # those in requests/s
    bases = bases[["workers=1" in factors.split(", ") for factors in bases["factors"]]]
    if speedups.empty or bases.empty:
        return "no", "no speed-up over one worker"
    rates = ", ".join(map(per_second, bases["value"]))
    return "yes", f"{counted(len(speedups), 'speed-up')} over one worker, which answers {rates}"


def _resources(run: Evidence) -> Found:
    cpus, host = run.machine.available_cpus, run.machine.host_cpus
    most = int(run.all_trials["workers"].max()) if len(run.all_trials) else 0
    shown = f"up to {counted(most, 'worker')} on {cpus} of {counted(host, 'CPU')}; one kind of work"
    return _grade(most >= cpus == host, most >= cpus), shown


def _means(run: Evidence) -> Found:
    rates = run.estimates[run.estimates["unit"].str.endswith("/s") & ~run.estimates["interval"].isin(_FOUND)]
    if rates.empty:
        return "no", "no rate"
    # the median of an even number of blocks is the mean of the middle two
    means = rates["quantity"].str.contains("mean", regex=False) | (rates["n"] % 2 == 0)
    shown = f"arithmetic means: {means.sum()} of {counted(len(rates), 'rate')}"
    return _grade(not means.any(), not means.all()), shown


def _ratios(run: Evidence) -> Found:
    return "no", f"{counted(len(run.compared), 'ratio')}, each a median of those within blocks"


def _intervals(run: Evidence) -> Found:
    return _with_interval(run.estimates[~run.estimates["interval"].isin(_FOUND)], "estimate")


def _with_interval(rows: pd.DataFrame, noun: str) -> Found:
    told = rows["interval"].isin(COVERING)
    shown = f"with a 95 % interval: {told.sum()} of {counted(len(rows), noun)}"
    return _grade(bool(len(rows) and told.all()), bool(told.any())), shown


def _normality(run: Evidence) -> Found:
    told = run.estimates[run.estimates["interval"].isin(COVERING)]
    free = told["interval"].isin(_FREE)
    wide = told[told["high"] > told["low"]]
    middle = (wide["high"] + wide["low"]) / 2
    lopsided = (wide["value"] - middle).abs() > _SYMMETRIC * (wide["high"] - wide["low"])
    shown = f"intervals that hold for any distribution: {free.sum()} of {len(told)}"
    shown += f"; lopsided, as those of normal theory never are: {lopsided.sum()} of {len(wide)}"
    none = not free.any() or bool(len(wide) and not lopsided.any())
    return _grade(not none and bool(free.all()) and 2 * int(lopsided.sum()) >= len(wide), not none), shown


def _comparisons(run: Evidence) -> Found:
    kept, shown = _with_interval(run.compared, "comparison")
    if len(smallest := run.compared["smallest_told"].dropna()):
        shown += f"; would have shown: {percent(smallest.min())} to {percent(smallest.max())}"
    return kept, shown


def _percentiles(run: Evidence) -> Found:
    needed = samples_needed(0.99)
    stated = len(run.of("p99")) + len(run.of("slowest"))
    enough = int((run.all_trials["planned"] >= needed).sum())
    shown = f"{counted(stated, 'estimate')} of a p99 or the slowest; the {needed} requests that a p99 takes: "
    shown += f"{enough} of {counted(len(run.all_trials), 'trial')}"
    return _grade(bool(stated and 0 < enough == len(run.all_trials)), stated > 0), shown


def _setup(run: Evidence) -> Found:
    manifest = run.manifest
    clean = manifest.git_commit is not None and manifest.git_dirty is False
    shown = f"commit {(manifest.git_commit or 'unknown')[:7]}{'' if clean else ', or something near it'}; "
    shown += f"{len(manifest.packages)} packages; {run.machine.cpu_model}, kernel {run.machine.kernel}; "
    shown += f"{len(FACTORS)} factors of each trial"
    known = bool(manifest.packages) and len(run.all_trials) > 0
    return _grade(clean and known, known), shown


def _timing(run: Evidence) -> Found:
    if run.all_trials.empty:
        return "no", "no trial"
    lag_s = run.all_trials["send_lag_p99_s"]
    shown = f"one clock, from the due time; send lag (p99 of a trial) at most {seconds(lag_s.max())}; "
    shown += f"quantiles by '{QUANTILE_METHOD}'; flagged, and kept: "
    shown += f"{(~run.all_trials['valid']).sum()} of {counted(len(lag_s), 'trial')}"
    return _grade(bool(lag_s.notna().all()), True), shown


def _bounds(run: Evidence) -> Found:
    limits, speedups = run.of("of the own limit"), run.of("speed-up over one worker")
    told = [f"{counted(len(limits), 'share')} of what the loops alone allow"]
    if len(speedups):
        cpus = counted(run.machine.available_cpus, "CPU")
        told.append(f"a speed-up of {digits(speedups['value'].max())} on {cpus}")
    return _grade(bool(len(limits) or len(speedups)), False), "; ".join(told)


def _plots(run: Evidence) -> Found:
    every = [_Drawn(axes) for figure in run.figures for axes in figure.axes]
    points, joined = sum(one.points for one in every), sum(len(one.joined) for one in every)
    jumps = sum(one.jumps for one in every)
    nameless, bare = sum(not one.is_named for one in every), sum(one.is_bare for one in every)
    shown = (
        f"{counted(points, 'measurement')} and {counted(joined, 'line')} in {counted(len(every), 'panel')}; "
        f"lines over what has no order: {jumps}; panels without both axes' names: {nameless}, "
        f"with lines alone: {bare}"
    )
    sound = points > 0 and not jumps
    return _grade(sound and not nameless and not bare, sound), shown


class _Drawn:
    """What a panel shows: how many single measurements, and which lines that join points."""

    def __init__(self, axes: Axes) -> None:
        self._axes = axes
        bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
        caps = {cap for _, ends, _ in (one.lines for one in bars) for cap in ends}
        lines = [line for line in axes.get_lines() if line not in caps]
        data = [line for line in lines if line.get_transform() == axes.transData]
        loose = [line for line in data if line.get_linestyle() == "None" and line.get_marker() != "None"]
        self.points = sum(len(np.asarray(line.get_xdata())) for line in loose)
        xs = [np.asarray(line.get_xdata(), float) for line in data if line.get_linestyle() != "None"]
        self.joined = [x for x in xs if len(x) > 1]

    @property
    def jumps(self) -> int:
        """How many lines join what has no order: they go back, or the axis has names and not numbers."""
        if any(label.get_text()[:1].isalpha() for label in self._axes.get_xticklabels()):
            return len(self.joined)
        return sum(bool((np.diff(x) < 0).any()) for x in self.joined)

    @property
    def is_named(self) -> bool:
        """Whether both axes say what they show; panels above one another may share a name."""
        alike = self._axes.get_shared_x_axes().get_siblings(self._axes)
        return bool(self._axes.get_ylabel()) and any(one.get_xlabel() for one in alike)

    @property
    def is_bare(self) -> bool:
        """Whether its lines have neither measurements nor bars beside them."""
        bars = any(isinstance(one, ErrorbarContainer) for one in self._axes.containers)
        return bool(self.joined) and not (self.points or bars)


RULES: dict[str, Callable[[Evidence], Found]] = {
    "A speed-up says what it is relative to, and how fast that is": _base,
    "If only part of the machine or of the work is used, the report says why": _resources,
    "Costs are averaged arithmetically and rates harmonically, if at all": _means,
    "Ratios are not summarised themselves; the costs or rates behind them are": _ratios,
    "What varies is stated with a confidence interval": _intervals,
    "No distribution is taken to be normal without a test": _normality,
    "Differences are told from chance by a sound test": _comparisons,
    "Where a centre says too little, percentiles are stated": _percentiles,
    "Factors, hardware, software and settings are all on record": _setup,
    "The report says how times are measured, synchronised and summarised": _timing,
    "Measured values stand beside the best that is possible": _bounds,
    "Figures show what it takes to read them; lines join only what has an order": _plots,
}
"""The rules in our words, and what judges each."""
