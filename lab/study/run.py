"""A run: all trials of one sitting on one machine, measured once, kept, and resumed where they stopped."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from lab import files
from lab.cards import Card, Shown, listed
from lab.errors import LabError, UsageError
from lab.hotloop import ITERATIONS, measure
from lab.progress import Countdown
from lab.study import manifest as manifests
from lab.study.manifest import Manifest
from lab.study.plan import FACTORS, NOT_LABELS, Block, Condition, Trial, make_plan
from lab.study.stability import (
    between,
    calibrate,
    calibrations,
    is_closed,
    judged,
    snapshot,
    with_calibration,
    with_utilisation,
)
from lab.study.store import Store
from lab.study.trial import Execute, make_row, serve_and_attack

_LOOP_REPEATS = 9

_ASKED = "asked"
"""The kind of table that lists which trials of an experiment were last asked for."""


class Run(Shown):
    """One run, open for reading and adding; `open_run` makes it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.run_id = folder.name
        self._store = Store(folder)
        self._asked: dict[str, list[str]] = {}

    def __repr__(self) -> str:
        return f"<Run {self.run_id}>"

    def _card(self) -> Card:
        about, flags = self.manifest, self.flagged()
        trials, flagged = sum(len(each) for each in flags.values()), sum(map(sum, flags.values()))
        return Card(
            f"Run {self.run_id}",
            {
                "begun": f"{about.started_at:%Y-%m-%d %H:%M} UTC",
                "profile": f"{about.profile or 'by hand'}, {about.status}",
                "machine": about.machine,
                "notebooks": listed(self.executed()),
                "trials": f"{trials}, {flagged} flagged",
                "measured": listed(flags),
            },
        )

    def names(self) -> set[str]:
        """Name its trials, and the tables that it keeps."""
        tables = {path.stem for path in (self.path / "tables").glob("*.parquet")}
        return tables | self._store.trial_ids()

    def trial_count(self) -> int:
        """How many trials it has."""
        return len(self._store.trial_ids())

    def newest_trial(self) -> dict[str, Any] | None:
        """Return the row of the trial that was finished last, as it was kept then; None if there is none."""
        return self._store.newest_trial()

    def executed(self) -> list[str]:
        """Name the notebooks that `lab study` executed into the run, in order."""
        return sorted(path.stem for path in (self.path / "notebooks").glob("*.ipynb"))

    def flagged(self) -> dict[str, list[bool]]:
        """Say, for each experiment of the run, of which of its trials to doubt the result."""
        experiments = dict.fromkeys(sorted(name.partition(".")[0] for name in self._store.trial_ids()))
        return {name: (~self._all_trials(name)["valid"]).tolist() for name in experiments}

    @property
    def figures(self) -> Path:
        """The folder for the run's figures."""
        return files.figures() / self.run_id

    @property
    def manifest(self) -> Manifest:
        """The run's manifest, read from disk now."""
        return self._store.manifest()

    def loop_cpu_s(self, kernel: str = "python", iterations: int = ITERATIONS) -> float:
        """Return the median CPU seconds of a loop, timed once per run so that what follows never changes."""
        name = f"loop-{kernel}-{iterations}"
        return float(self.table(name, lambda: _time_loops(kernel, iterations))["cpu_s"].median())

    def table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return the table of that name; `make` is called only if the run does not have it yet.

        Raises UsageError if the name cannot name a file.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise UsageError(f"a table's name consists of lower-case letters, digits and -, got {name!r}")
        if not self._store.has_table("tables", name):
            with self._adding():
                self._store.save_table("tables", name, make())
        return self._store.table("tables", name)

    def keep(self, name: str, frame: pd.DataFrame) -> None:
        """Keep a table that follows from the rest of the run, in place of an earlier one of that name.

        A run that takes nothing more stays as it is: a complete one, one of another machine, one that is
        being measured.
        """
        with suppress(LabError):
            self._replace("tables", name, frame)

    def newest(self, beginning: str) -> pd.DataFrame | None:
        """Return the table kept last of those whose names begin like this; None if there is none."""
        names = self.by_age(beginning)
        return self.kept(names[-1]) if names else None

    def kept(self, name: str) -> pd.DataFrame:
        """Return the table of that name. Raises LabError if the run does not have it."""
        return self._store.table("tables", name)

    def by_age(self, beginning: str) -> list[str]:
        """Name the tables whose names begin like this, the one kept last at the end."""
        return self._store.by_age("tables", beginning)

    def measure(
        self,
        experiment: str,
        conditions: Sequence[Condition],
        *,
        blocks: int,
        seed: int,
        execute: Execute = serve_and_attack,
    ) -> pd.DataFrame:
        """Measure every condition once in each of `blocks` randomized blocks, and return a row per trial.

        Only trials that are not on disk are measured, each by `execute` on a fresh server, with the loop
        calibrated at both ends of its block. A load becomes a rate by the calibration before the trial: that
        of its block's start, or of where the block was resumed, as the machine's speed may have changed by
        then. Interrupt it at will: finished trials are kept, and an unfinished one leaves no trace.
        `plan.TRIALS` lists the columns; `trial.make_row` and `stability.judged` say what flags a row.
        """
        plan = make_plan(experiment, conditions, blocks=blocks, seed=seed)
        if not all(self._is_finished(block) for block in plan):
            with self._adding():
                self._measure_missing(experiment, plan, execute)
        asked = [trial.trial_id for block in plan for trial in block.trials]
        self._asked[experiment] = [*self._asked.get(experiment, ()), *asked]
        self._note_what_was_asked(experiment)
        rows = self._all_trials(experiment).set_index("trial_id", drop=False)
        return rows.loc[asked].reset_index(drop=True)

    def trials(self, experiment: str) -> pd.DataFrame:
        """Return the trials of an experiment that were last asked for, in the order of their measurement.

        A run may hold more, if a notebook ran again with other parameters.
        """
        rows = self._all_trials(experiment)
        if not self._store.has_table(_ASKED, f"{experiment}.last"):
            return rows
        asked = self._store.table(_ASKED, f"{experiment}.last")["trial_id"]
        return rows[rows["trial_id"].isin(asked)].reset_index(drop=True)

    def _all_trials(self, experiment: str) -> pd.DataFrame:
        trials = with_utilisation(self._store.trials(experiment), self.manifest.machine.available_cpus)
        return judged(with_calibration(self._store, experiment, trials), self._store.costs())

    def _note_what_was_asked(self, experiment: str) -> None:
        frame = pd.DataFrame({"trial_id": sorted(set(self._asked[experiment]))})
        self._replace(_ASKED, f"{experiment}.last", frame)

    def _replace(self, kind: str, name: str, frame: pd.DataFrame) -> None:
        same = self._store.has_table(kind, name) and self._store.table(kind, name).equals(frame)
        if not same and self.manifest.state == "unfinished":  # a complete run stays as it is
            with self._adding():
                self._store.save_table(kind, name, frame)

    def requests(self, trials: pd.DataFrame | str) -> pd.DataFrame:
        """Return the requests of these trials, or of an experiment's, with latency and factors.

        Times are seconds from the trial's start; `latency_s` counts from the due time.
        """
        rows = self.trials(trials) if isinstance(trials, str) else trials
        labels = [name for name in rows.columns if name not in NOT_LABELS]
        records = self._store.requests(list(rows["trial_id"]))
        records["latency_s"] = records["end_s"] - records["due_s"]
        return records.merge(
            rows[["trial_id", "block", *FACTORS, *labels]], on="trial_id", validate="many_to_one"
        )

    def glimpse(self, trial_id: str, rows: int = 0) -> tuple[int, pd.DataFrame]:
        """Return how many requests a trial has, and the first of them, without reading the rest."""
        return self._store.glimpse(trial_id, rows)

    def calibrations(self) -> pd.DataFrame:
        """Return every calibration of the run: block, kernel, iterations, at, loop_s."""
        return calibrations(self._store)

    def events(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Return what was done to the servers of these trials: trial_id and `plan.EVENTS`."""
        return self._store.events(list(trials["trial_id"]))

    def seal(self) -> Manifest:
        """Mark the run as complete, with the checksum of each file; adding to it later reopens it."""
        return self._store.seal()

    @contextmanager
    def _adding(self) -> Iterator[None]:
        """Hold the run for writing. Raises LabError if nothing can be added to it."""
        if reason := manifests.takes_nothing_more(self.manifest, self.path):
            raise LabError(f"nothing can be added to run {self.run_id}: {reason}")
        with self._store.writing():
            yield

    def _is_finished(self, block: Block) -> bool:
        return not _missing(block, self._store.trial_ids()) and is_closed(self._store, block)

    def _measure_missing(self, experiment: str, plan: Sequence[Block], execute: Execute) -> None:
        finished = self._store.trial_ids()
        blocks = [replace(block, trials=_missing(block, finished)) for block in plan]
        todo = [trial for block in blocks for trial in block.trials]
        on_disk = sum(len(block.trials) for block in plan) - len(todo)
        progress = Countdown(self.path, experiment, [trial.condition.duration_s for trial in todo], on_disk)
        try:
            for whole, block in zip(plan, blocks, strict=True):
                self._measure_block(whole, block, progress, execute)
        finally:
            progress.finish()

    def _measure_block(self, whole: Block, missing: Block, progress: Countdown, execute: Execute) -> None:
        loops_s = calibrate(self._store, missing, "start") if missing.trials else {}
        for trial in missing.trials:
            condition = trial.condition
            planned = condition.planned(loops_s[condition.kernel, condition.iterations])
            progress.begins(str(planned))
            self._measure_trial(replace(trial, condition=planned), execute)
            progress.ends()
        if not is_closed(self._store, whole):
            calibrate(self._store, whole, "end")

    def _measure_trial(self, trial: Trial, execute: Execute) -> None:
        started_at, before = datetime.now(UTC), snapshot()
        result = execute(trial.condition, trial.seed)
        noise, throttling = between(before, snapshot()), getattr(result, "throttling", None)
        row = make_row(trial, result.summary, noise, started_at, throttling)
        self._store.save_trial(row, result.requests, getattr(result, "events", None))


def _missing(block: Block, finished: set[str]) -> tuple[Trial, ...]:
    return tuple(trial for trial in block.trials if trial.trial_id not in finished)


def _time_loops(kernel: str, iterations: int) -> pd.DataFrame:
    return pd.DataFrame(
        [{"wall_s": cost.wall_s, "cpu_s": cost.cpu_s} for cost in measure(kernel, iterations, _LOOP_REPEATS)]
    )


def table_name(kind: str, *settings: object) -> str:
    """Name a table by the settings it was made with: other settings, another table."""
    return f"{kind}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:10]}"
