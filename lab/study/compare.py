"""Runs beside each other: what both state, each difference with its interval, what could have been seen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from lab.errors import LabError, UsageError
from lab.models.statistics import CONFIDENCE
from lab.study.estimates import COVERING, NAME, agreement, key_of
from lab.study.manifest import Manifest
from lab.units import percent


@dataclass(frozen=True)
class Difference:
    """One number of `run` over the same number of `base`: `ratio`, and how far off it may be.

    `value` and `base_value` are the two numbers, in `unit`. All intervals of one comparison hold together
    with `CONFIDENCE`. `told` is True if the interval leaves 1 out, False if not, and None where one of the
    runs has no interval (`low` and `high` are then None too). `smallest_told` is the smallest difference that
    this could have seen, as a share. `key` is that of the number's estimate in `run`.
    """

    base: str
    run: str
    experiment: str
    quantity: str
    factors: str
    unit: str
    value: float
    base_value: float
    ratio: float
    low: float | None
    high: float | None
    told: bool | None
    smallest_told: float | None
    key: str = ""

    @property
    def ratio_key(self) -> str:
        """The key by which pages link to the ratio, as `key` is that of the number."""
        name = {"experiment": self.experiment, "unit": self.unit, "factors": self.factors}
        return key_of(f"{self.quantity}, over that of {self.base}", run=self.run, **name)

    @property
    def in_words(self) -> str:
        """Whether it is told, and if not, how large it had to be to be seen."""
        if self.told is None:
            return "cannot be told"
        if self.told:
            return "differs"
        smallest = percent(self.smallest_told or 0.0)
        return f"no difference that this could have seen (the smallest: {smallest})"


@dataclass(frozen=True)
class Comparison:
    """Runs beside the first of them: `family` counts the intervals that hold together.

    `left_out` says, a line per run, how many of its numbers were not compared.
    """

    differences: tuple[Difference, ...]
    family: int
    left_out: tuple[str, ...]


Named = TypeVar("Named")


def fewest_two(runs: Sequence[Named]) -> Sequence[Named]:
    """Return the runs. Raises UsageError if there are fewer than two to compare."""
    if len(runs) < 2:
        raise UsageError("name at least two runs to compare, or one of them twice: `lab runs` lists them")
    return runs


def compare(runs: Sequence[tuple[str, pd.DataFrame]]) -> Comparison:
    """Compare the estimates of runs, (id, `estimates.table_of`) each, with those of the first.

    Numbers are paired by experiment, quantity, factors and unit; blocks of different sittings are
    independent, and so never paired. Numbers that are 0 have no ratio, and are left out too. Raises
    UsageError if there are fewer than two runs, LabError if a run shares no number with the first.
    """
    (base, first), *others = fewest_two(runs)
    rows: list[tuple[str, dict[str, Any]]] = []
    left_out: list[str] = []
    for run, table in others:
        pairs = agreement(first, table).pairs
        pairs = pairs[(pairs["value_one"] > 0) & (pairs["value_other"] > 0)]
        if pairs.empty:
            raise LabError(
                f"{base} and {run} share no number of the same experiment and factors ({base} has"
                f" {_experiments(first)}; {run} has {_experiments(table)}):"
                " measure both with the same parameters"
            )
        rows += [(run, {str(name): value for name, value in row.items()}) for row in pairs.to_dict("records")]
        left_out += _left_out((base, first), (run, table), len(pairs))
    widths = [_mover(row) for _, row in rows]
    family = sum(width is not None for width in widths)
    found = (
        _difference(base, run, row, width, family) for (run, row), width in zip(rows, widths, strict=True)
    )
    return Comparison(tuple(found), family, tuple(left_out))


def _experiments(table: pd.DataFrame) -> str:
    return ", ".join(dict.fromkeys(table["experiment"])) or "nothing"


def _left_out(one: tuple[str, pd.DataFrame], other: tuple[str, pd.DataFrame], shared: int) -> list[str]:
    """Say of each run how many of its numbers are not compared, if any."""
    totals = {name: len(table.drop_duplicates(NAME)) for name, table in (one, other)}
    return [
        f"{name}: {total - shared} of {total} numbers (they are 0, or of other experiments or factors)"
        for name, total in totals.items()
        if total > shared
    ]


def _mover(row: Mapping[str, Any]) -> tuple[float, float, int] | None:
    """Return how far the log of the ratio may be too high, and too low, and the fewer trials of the two.

    The distances of the two independent intervals add in quadrature (Zou & Donner's MOVER, Statistics in
    Medicine 27, 2008). None where one of the two is no interval, has no width, or no logarithm.
    """
    if not {row["interval_one"], row["interval_other"]} <= COVERING:
        return None
    ends = {name: float(row[name]) for name in row if name.startswith(("value_", "low_", "high_"))}
    if min(ends.values()) <= 0 or any(ends[f"low_{of}"] == ends[f"high_{of}"] for of in ("one", "other")):
        return None  # blocks that are all equal say nothing of how far off they are
    log = {name: math.log(value) for name, value in ends.items()}
    down = math.hypot(log["value_other"] - log["low_other"], log["high_one"] - log["value_one"])
    up = math.hypot(log["high_other"] - log["value_other"], log["value_one"] - log["low_one"])
    return down, up, min(int(row["n_one"]), int(row["n_other"]))


def _difference(
    base: str, run: str, row: Mapping[str, Any], width: tuple[float, float, int] | None, family: int
) -> Difference:
    value, base_value = float(row["value_other"]), float(row["value_one"])
    ratio = value / base_value
    low = high = told = smallest = None
    if width is not None:
        down, up, trials = width
        wider = _wider(trials, family)
        low, high = ratio * math.exp(-down * wider), ratio * math.exp(up * wider)
        told, smallest = not low <= 1 <= high, math.expm1(wider * max(down, up))
    experiment, quantity, factors, unit = (str(row[name]) for name in NAME)
    return Difference(
        base, run, experiment, quantity, factors, unit, value, base_value, ratio, low, high, told, smallest,
        str(row["key_other"]),
    )  # fmt: skip


def _wider(trials: int, family: int) -> float:
    """Return how many times as wide an interval is if `family` of them hold together (Bonferroni)."""
    from scipy.special import stdtrit  # takes a moment to import

    tail = (1 - CONFIDENCE) / 2
    return float(stdtrit(trials - 1, 1 - tail / family) / stdtrit(trials - 1, 1 - tail))


def check_alike(manifests: Sequence[Manifest]) -> None:
    """Check that runs were made with one profile and the same changed parameters.

    Estimates do not name all that a profile sets, such as the length of a trial: without this, two plans
    would be told apart as if they were two machines. Raises LabError if they differ, and says in what.
    """
    first = manifests[0]
    for other in manifests[1:]:
        if first.profile != other.profile:
            of_one, of_other = (manifest.profile or "none (by hand)" for manifest in (first, other))
            raise LabError(
                f"{first.run_id} and {other.run_id} are of different profiles ({of_one}; {of_other}),"
                " which plan different trials: compare runs of one profile"
            )
        if first.parameters != other.parameters:
            names = sorted(
                name
                for name in first.parameters.keys() | other.parameters.keys()
                if first.parameters.get(name) != other.parameters.get(name)
            )
            raise LabError(
                f"{first.run_id} and {other.run_id} were made with different parameters"
                f" ({', '.join(names)}): measure both with the same"
            )


def software(manifests: Sequence[Manifest]) -> list[dict[str, Any]]:
    """Return what differs in software: a row per name, with each run's version in the order of the runs."""
    known: list[dict[str, Any]] = [
        {
            "schema": manifest.schema_version,
            "commit": manifest.git_commit,
            "Python": manifest.machine.python,
            "kernel": manifest.machine.kernel,
            **manifest.packages,
        }
        for manifest in manifests
    ]
    names = dict.fromkeys(name for versions in known for name in versions)
    rows = ((name, [versions.get(name) for versions in known]) for name in names)
    return [{"name": name, "versions": versions} for name, versions in rows if len(set(versions)) > 1]
