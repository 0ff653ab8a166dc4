"""The runs that are put beside each other, and what their comparison found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field

from lab import files
from lab.errors import LabError, one_line
from lab.experiments import rate_sweep, summary
from lab.experiments.worker_scaling import scaling
from lab.figures import DARK_TO_LIGHT, Look
from lab.models.scaling import Point
from lab.study.compare import Comparison, Difference, check_alike, compare
from lab.study.estimates import factors_in_words
from lab.study.manifest import Manifest
from lab.study.parameters import ListOf
from lab.study.parameters import Parameters as _Parameters
from lab.study.run import Run
from lab.study.runs import run_in

_MOST_OTHERS = len(DARK_TO_LIGHT) - 1


class Parameters(_Parameters):
    """What notebook 11 lets its reader set: `run` is put beside `runs`, of which the first is the base."""

    run: str
    runs: Annotated[ListOf[str], Field(max_length=_MOST_OTHERS)]


@dataclass(frozen=True)
class Shown:
    """One of the runs, under the name by which it is told from the others, and the look of its curves."""

    name: str
    run: Run
    look: Look

    @cached_property
    def manifest(self) -> Manifest:
        """Where and with what it was measured."""
        return self.run.manifest

    @property
    def cpus(self) -> int:
        """The CPUs that count on its machine."""
        return self.manifest.machine.available_cpus

    @cached_property
    def points(self) -> list[Point]:
        """The points of its scaling curve; none if it was not measured."""
        trials = self.run.trials(scaling.EXPERIMENT)
        return scaling.points(scaling.accounted(self.run, trials)) if len(trials) else []

    @cached_property
    def sweep(self) -> pd.DataFrame:
        """The trials of its rate sweep with the most workers; none if it was not measured."""
        trials = self.run.trials(rate_sweep.EXPERIMENT)
        return trials.query("workers == workers.max()")


@dataclass(frozen=True)
class Beside:
    """Runs, and what their comparison found; None where they cannot be compared, and `refused` says why."""

    shown: tuple[Shown, ...]
    found: Comparison | None
    refused: str

    @property
    def differences(self) -> list[Difference]:
        """The numbers that all the runs state with an interval, as ratios to the first run."""
        return [one for one in self.found.differences if one.told is not None] if self.found else []

    def key(self, one: Difference) -> str:
        """Return the key of a number's estimate if it is of the run whose page this is: the last."""
        return one.key if one.run == self.shown[-1].name else ""


def opened(p: Parameters) -> tuple[Shown, ...]:
    """Open the runs to compare, the base first. Without names it is the reference, where there is one.

    A name with a slash is the path of a run's folder. Raises LabError for one that is not there.
    """
    own = _opened(p.run)
    others = [_opened(name) for name in p.runs] or [_reference() or own]
    looks = cycle(DARK_TO_LIGHT)
    shown: list[Shown] = []
    labels = Counter(run.manifest.machine.label for run in (*others, own))
    for run in (*others, own):
        same = sum(run.run_id == earlier.run.run_id for earlier in shown)
        name = f"{run.run_id} ({same + 1})" if same else run.run_id
        if labels[label := run.manifest.machine.label] == 1:
            name = label or name
        shown.append(Shown(name, run, next(looks)))
    return tuple(shown)


def _opened(name: str) -> Run:
    return run_in(Path(name)) if "/" in name else summary.open_for_reading(name)


def _reference() -> Run | None:
    """Return the reference run: this home's, else that of the checkout; None if neither has one."""
    places = [files.data() / files.REFERENCE, files.reference()]
    return next((run_in(place) for place in places if place and place.is_dir()), None)


def beside(shown: Sequence[Shown]) -> Beside:
    """Compare runs with the first of them; not those of different plans, nor those that share nothing."""
    try:
        check_alike([one.manifest for one in shown])
        runs = {one.run.path: one.run for one in shown}
        stated = {path: summary.estimates(run) for path, run in runs.items()}
        found = compare([(one.name, stated[one.run.path]) for one in shown])
    except LabError as error:
        return Beside(tuple(shown), None, one_line(error))
    return Beside(tuple(shown), found, "")


def named(one: Difference, space: str = " ") -> str:
    """Name the number that differs, and what it is of in brackets."""
    of = factors_in_words(one.factors)
    return f"{one.quantity}{space}({of})" if of else one.quantity
