"""A report's first screen: one sentence, one number with its interval, one picture; then the verdicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lab import units
from lab.experiments import rate_sweep, single_vs_cluster, summary, sustained
from lab.experiments.claims import Verdict, Word
from lab.experiments.searches import is_steady
from lab.experiments.worker_scaling import scaling
from lab.experiments.worker_scaling.answer import SPEEDUP
from lab.study.estimates import key_of
from lab.study.manifest import Manifest
from lab.study.run import Run


@dataclass(frozen=True)
class Mark:
    """How many times one worker's rate that of `workers` is: the value, and where it may lie."""

    workers: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{units.digits(self.value)} times ({units.digits(self.low)} to {units.digits(self.high)})"


_STEPS = [n * 10**power for power in range(6) for n in (1, 2, 5)]
"""From one tick of an axis to the next."""


@dataclass(frozen=True)
class Picture:
    """Speed-up against workers: `answered` of the highest throughput, `sustained` of the sustained rate."""

    answered: tuple[Mark, ...]
    sustained: Mark | None
    cpus: int

    @property
    def most(self) -> int:
        """The most workers that were measured."""
        return max(mark.workers for mark in (*self.answered, self.sustained) if mark)

    @property
    def top(self) -> float:
        """The upper end of the axis: the ideal of the most workers, or what was measured above it."""
        marks = [mark for mark in (*self.answered, self.sustained) if mark]
        return max(float(self.most), *(mark.high for mark in marks))

    @property
    def ticks(self) -> dict[str, list[int]]:
        """Where the axes are ticked: at a few multiples, and at the numbers of workers that have room."""
        step = next(n for n in _STEPS if self.top / n <= 6)
        workers = sorted({mark.workers for mark in (*self.answered, self.sustained) if mark})
        apart = [n for at, n in enumerate(workers) if at == 0 or n - workers[at - 1] > self.most / 16]
        return {"ticks": list(range(0, math.floor(self.top) + 1, step)), "columns": apart}

    def __str__(self) -> str:
        rates = [f"{units.counted(mark.workers, 'worker')} {mark}" for mark in self.answered[1:]]
        parts = [f"highest throughput: {'; '.join(rates)}"] if rates else []
        if self.sustained:
            workers = units.counted(self.sustained.workers, "worker")
            parts.append(f"sustained rate: {workers} {self.sustained}")
        return (
            f"Times one worker, by number of workers. {'. '.join(parts)}. The ideal is one for each worker."
        )


@dataclass(frozen=True)
class Headline:
    """What a run found, at a glance: a sentence, its number and what that is, and what to know beside it.

    `experiments` may have measured it; `key` is that of the number's estimate (`estimates.key_of`).
    """

    experiments: tuple[str, ...]
    sentence: str
    number: Mark
    key: str
    meaning: str
    notes: tuple[str, ...]
    picture: Picture


def headline(run: Run, trials: dict[str, pd.DataFrame]) -> Headline | None:
    """Return how far clustering goes: by the sustained rates, or else by the highest throughput.

    `trials` are those of `summary.trials_of`. None if the run has measured neither.
    """
    cpus = run.manifest.machine.available_cpus
    scaled = trials.get(scaling.EXPERIMENT)
    points = [] if scaled is None else scaling.points(scaled)
    answered = tuple(
        Mark(point.workers, point.speedup.value, point.speedup.low, point.speedup.high) for point in points
    )
    found = summary.sustained_rates(run)
    if found is not None and (told := _by_sustained_rates(found, answered, cpus)):
        return told
    if scaled is None or (top := scaling.per_cpu(points, cpus)) is None:
        return None
    number = next(mark for mark in answered if mark.workers == top.workers)
    blocks = units.counted(top.speedup.trials, "block")
    kind = "95 % interval" if top.speedup.is_interval else "Range"
    base = units.per_second(points[0].throughput_rps.value)
    notes = [f"{kind} over {blocks}; the base is {base} with one worker"]
    if number.value > min(top.workers, cpus):
        notes.append(f"More than {units.counted(cpus, 'CPU')} can give: the machine's speed changed")
    return Headline(
        (scaling.EXPERIMENT,),
        f"{units.counted(top.workers, 'worker')} on {units.counted(cpus, 'CPU')} answer up to"
        f" {units.per_second(top.throughput_rps.value)}: {units.digits(number.value)} times one",
        number,
        key_of(SPEEDUP, workers=top.workers, dispatch=scaled["dispatch"].iloc[0]),
        "times the highest throughput of one worker",
        (*notes, *_flagged(int((~scaled["valid"]).sum()), len(scaled))),
        Picture(answered, None, cpus),
    )


def _by_sustained_rates(found: pd.DataFrame, answered: tuple[Mark, ...], cpus: int) -> Headline | None:
    """Tell how many times the rate of one process a cluster sustains; None if a search did not end."""
    singles, clusters = (found[(found["topology"] == "single") == single] for single in (True, False))
    if singles.empty or clusters.empty:
        return None
    one, several = singles.iloc[0], clusters.iloc[0]
    times = sustained.times_as_much(one, several)
    if not all(map(math.isfinite, times)):
        return None
    workers, number = int(several["workers"]), Mark(int(several["workers"]), *times)
    many, single = (
        units.between(row["lower_rps"], row["upper_rps"], units.in_requests) for row in (several, one)
    )
    objective = _objective(several)
    steady = is_steady(several["objective"])
    uncounted = ", and waits that its changes cause do not count" if steady else ""
    notes = [
        f"One process sustains {single}",
        f"The objective, {objective}, is {several['slo_loops']:g} times the loop, the work of one request",
        f"The machine's speed varies: both were tried in turn, rates are at its average speed{uncounted}",
    ]
    if not found["consistent"].all():
        notes.append("During a search it varied much: trust the ratio rather than the rates")
    return Headline(
        (single_vs_cluster.EXPERIMENT, rate_sweep.EXPERIMENT),
        f"{units.counted(workers, 'worker')} sustain {many} at {objective}:"
        f" {units.digits(number.value)} times one process",
        number,
        key_of(sustained.RATIO, **sustained.about(several)),
        "times what one process sustains",
        (*notes, *_flagged(int(found["flagged"].sum()), int(found["trials"].sum()))),
        Picture(answered or (Mark(1, 1.0, 1.0, 1.0),), number, cpus),
    )


def _objective(row: "pd.Series[Any]") -> str:
    """Write what a sustained rate must meet, in seconds at the usual speed of its search."""
    return _unbroken(f"p{row['slo_percentile']} ≤ {units.seconds(row['slo_loops'] * row['loop_s'])}")


def _unbroken(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _flagged(flagged: int, trials: int) -> list[str]:
    told = ("is", "it") if flagged == 1 else ("are", "them")
    text = "{} of its {} trials {} flagged: something disturbed {}"
    return [text.format(flagged, trials, told[0], told[1])] if flagged else []


_TONES = {Word.HOLDS: "good", Word.IN_PART: "warn", Word.NOT_HERE: "bad", Word.UNTOLD: "untold"}


@dataclass(frozen=True)
class Judged:
    """A claim and its verdict, as the page shows them; `tone` is "" if nothing was measured.

    `experiment` names what it was judged by, whose notebook the verdict leads to.
    """

    claim: str
    word: str
    tone: str
    evidence: str
    experiment: str


def judged(verdicts: Sequence[Verdict]) -> list[Judged]:
    """Put verdicts into the page's words: a claim without evidence was not measured."""
    return [
        Judged(one.claim, one.word.value, _TONES[one.word], _evidence(one), one.experiment)
        if one.evidence
        else Judged(one.claim, "not measured", "", "", "")
        for one in verdicts
    ]


def _evidence(verdict: Verdict) -> str:
    flagged = f" ({verdict.flagged} of {verdict.trials} trials flagged)" if verdict.flagged else ""
    return f"{verdict.evidence}{flagged}"


def setting(manifest: Manifest) -> list[str]:
    """Say where and when a run was measured: its machine, its software, its day, its profile."""
    machine = manifest.machine
    return [
        str(machine),
        machine.python,
        f"{manifest.started_at.day} {manifest.started_at:%B %Y, %H:%M} UTC",
        *([f"profile {manifest.profile}"] if manifest.profile else []),
    ]
