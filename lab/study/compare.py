"""Whether two runs of one machine agree: which of the numbers that both state can be true together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from lab.models.statistics import Interval

OVERLAP, HELD = 0.95, 0.80
"""The least shares of intervals that overlap, and that hold the other run's value.

Of honest 95 % intervals about 99 % overlap, and about 83 % hold the value of an equal, independent run.
"""

_NAME = ["experiment", "quantity", "factors", "unit"]


@dataclass(frozen=True)
class Agreement:
    """How two runs agree: `counts` by experiment, `pairs` with every estimate that both state.

    `counts` has a row per experiment, and one of all, named "all": `both` is how many intervals both state,
    `overlap` how many pairs overlap, `held` how many of the 2 x `both` intervals hold the other's value;
    `searches` how many bounds of searches both state, `disjoint` how many of those cannot be true together;
    `ranges` how many numbers have no interval in one of the runs, and so say nothing here.
    `pairs` has the columns of estimates twice, ending in _one and _other, and `overlap`.
    """

    counts: pd.DataFrame
    pairs: pd.DataFrame

    @property
    def apart(self) -> pd.DataFrame:
        """The pairs of intervals and of bounds that do not overlap."""
        return self.pairs[(_of(self.pairs, _COVERING) | _of(self.pairs, _SEARCHED)) & ~self.pairs["overlap"]]

    def misses(self) -> list[str]:
        """Say in what the runs disagree, a line each; nothing if they agree."""
        total = self.counts.iloc[-1]
        if not total["both"]:
            return ["the runs state no interval in common: measure at least six blocks in both"]
        bars = {
            "overlap": (total["overlap"] / total["both"], OVERLAP),
            "hold the other's value": (total["held"] / (2 * total["both"]), HELD),
        }
        lines = [
            f"{share:.1%} of the intervals {what}, fewer than {bar:.0%}"
            for what, (share, bar) in bars.items()
            if share < bar
        ]
        if total["disjoint"]:
            lines.append(f"{total['disjoint']} of {total['searches']} bounds of a search are disjoint")
        return lines


_COVERING = frozenset(kind.value for kind in Interval if kind.covers)
_SEARCHED = frozenset([Interval.SEARCH.value])


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> Agreement:
    """Compare the estimates of two runs: tables as `lab.study.estimates.table_of` makes them.

    Numbers are paired by experiment, quantity, factors and unit. A bound that a search did not find is open.
    """
    pairs = one.drop_duplicates(_NAME).merge(
        other.drop_duplicates(_NAME), on=_NAME, suffixes=("_one", "_other"), validate="one_to_one"
    )
    pairs["overlap"] = _at_most(pairs["low_one"], pairs["high_other"]) & _at_most(
        pairs["low_other"], pairs["high_one"]
    )
    names = list(dict.fromkeys(pairs["experiment"]))
    counts = [_counted(name, pairs[pairs["experiment"] == name]) for name in names]
    return Agreement(pd.DataFrame([*counts, _counted("all", pairs)]), pairs)


def _counted(name: str, pairs: pd.DataFrame) -> Mapping[str, object]:
    covering, searched = _of(pairs, _COVERING), _of(pairs, _SEARCHED)
    mine = pairs[covering]
    return {
        "experiment": name,
        "both": len(mine),
        "overlap": int(mine["overlap"].sum()),
        "held": int(_holds(mine, "one", "other").sum() + _holds(mine, "other", "one").sum()),
        "searches": int(searched.sum()),
        "disjoint": int((~pairs.loc[searched, "overlap"]).sum()),
        "ranges": int((~covering & ~searched).sum()),
    }


def _of(pairs: pd.DataFrame, kinds: Iterable[str]) -> "pd.Series[bool]":
    """Mark the pairs of which both runs have such an interval."""
    return pairs["interval_one"].isin(kinds) & pairs["interval_other"].isin(kinds)


def _holds(pairs: pd.DataFrame, one: str, other: str) -> "pd.Series[bool]":
    value = pairs[f"value_{other}"]
    return (pairs[f"low_{one}"] <= value) & (value <= pairs[f"high_{one}"])


def _at_most(low: "pd.Series[float]", high: "pd.Series[float]") -> "pd.Series[bool]":
    return (low <= high) | low.isna() | high.isna()
