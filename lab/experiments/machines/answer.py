"""What machines, software and numbers of several runs have to say: tables, and the answer."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from lab import units
from lab.experiments import summary
from lab.experiments.machines.beside import Beside, Shown, named
from lab.models.statistics import CONFIDENCE
from lab.study.compare import Difference, software
from lab.study.estimates import anchored, factors_in_words, written


def machines_table(shown: Sequence[Shown]) -> pd.DataFrame:
    """Put the machines in words, a column each."""
    facts = [summary.machine_table(one.manifest.machine).set_index("") for one in shown]
    table = pd.concat(facts, axis=1).set_axis([one.name for one in shown], axis=1)
    if "name" in table.index:  # of some machine
        table = table.reindex(["name", *table.index.drop("name")]).fillna("")
    table.loc["run"] = [one.run.run_id for one in shown]
    table.loc["begun"] = [f"{one.manifest.started_at:%Y-%m-%d %H:%M} UTC" for one in shown]
    table.loc["profile"] = [one.manifest.profile or "by hand" for one in shown]
    return table.rename_axis("").reset_index()


def software_table(shown: Sequence[Shown]) -> pd.DataFrame:
    """List the software whose version differs, a column for each run."""
    rows = software([one.manifest for one in shown])
    if not rows:
        return pd.DataFrame({"": ["No version differs."]})
    names = ["", *(one.name for one in shown)]
    cells = [[row["name"], *(version or "none" for version in row["versions"])] for row in rows]
    return pd.DataFrame(cells, columns=names)


def differences_table(compared: Beside) -> pd.DataFrame:
    """Put every difference in words: the ratio to the base, its interval, and what that tells."""
    if compared.found is None:
        return pd.DataFrame({"": [f"Not compared: {compared.refused}."]})
    several = len(compared.shown) > 2
    return pd.DataFrame(
        ({"run": one.run} if several else {})
        | {
            "experiment": one.experiment,
            "quantity": f"{one.quantity}, {one.unit}" if one.unit else one.quantity,
            "of": factors_in_words(one.factors),
            f"in {one.base}": written(one.base_value, one.unit),
            "in the run": units.Number(written(one.value, one.unit), key=compared.key(one)),
            f"ratio to {one.base}": _ratio(one),
            "": one.in_words,
        }
        for one in compared.found.differences
    )


def _ratio(one: Difference) -> units.Number:
    """Return a ratio with its interval, as the place to which the answer leads."""
    low, high = (None if end is None else units.plain(end) for end in (one.low, one.high))
    return replace(units.plain(one.ratio), low=low, high=high, anchor=one.ratio_key)


def left_out(compared: Beside) -> str:
    """Say which numbers were not compared, a sentence per run."""
    if compared.found is None:
        return f"Not compared: {compared.refused}."
    lines = [f"- Not compared, {line}." for line in compared.found.left_out]
    return "\n".join(lines) or "Every number that the runs state is compared."


def answer(compared: Beside) -> str:
    """Say how many differences are told, the largest one, or how small one would have been seen."""
    base, *others = (one.name for one in compared.shown)
    names = f"{', '.join(others)} beside {base}"
    if compared.found is None:
        return f"**Answer.** No comparison: {compared.refused}. Machines and curves are shown all the same."
    alone = len({one.run.path for one in compared.shown}) == 1
    said = f"There is only one run to compare, beside itself ({names})" if alone else names
    start = f"**Answer.** {said}: "
    known = compared.differences
    if not known:
        return f"{start}nothing can be told, as the runs share no number that has an interval in both."
    told = [one for one in known if one.told]
    count = units.counted(len(known), "number")
    seen = sorted(known, key=lambda one: one.smallest_told or 0.0)
    least, middle = (units.percent(one.smallest_told or 0.0) for one in (seen[0], seen[len(seen) // 2]))
    if not told:
        return (
            f"{start}no difference in {count} that this could have seen. Half of them would have shown a"
            f" difference of {middle} or less; the most precise one, of {anchored(least, seen[0].ratio_key)}."
        )
    most = max(told, key=lambda one: abs(math.log(one.ratio)))
    ratio = anchored(units.digits(most.ratio), most.ratio_key)
    return (
        f"{start}**{units.counted(len(told), 'difference')} told in {count}**, with"
        f" {units.percent(CONFIDENCE)} confidence for all together. The largest: {named(most)} is {ratio}"
        f" times as large in {most.run} ({units.digits(most.low or 0)} to {units.digits(most.high or 0)})."
        f" {_speed(told, known)}"
    )


def _speed(told: Sequence[Difference], known: Sequence[Difference]) -> str:
    """Say how many of the differences no machine's speed is in; nothing if there are no such numbers."""
    apart, all_apart = (sum(not one.unit for one in some) for some in (told, known))
    if not all_apart:
        return ""
    numbers = units.counted(all_apart, "number")
    are = "is" if apart == 1 else "are"
    return (
        f"Of these, {apart or 'none'} {are} among the {numbers} without a unit, free of any machine's speed."
    )
