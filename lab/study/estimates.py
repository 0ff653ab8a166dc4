"""What a run states: each number with its interval, in one shape; and whether two runs agree."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace

import pandas as pd

from lab.models.statistics import Estimate, Interval
from lab.units import ANCHOR, counted, digits


@dataclass(frozen=True)
class Stated:
    """A number that a page states, as the functions behind its answer, tables and figure compute it.

    `quantity` says what it is, and `factors` of what, such as "dispatch=least-busy, workers=2": together they
    name it, so that no other number goes by them. `unit` is "" for a ratio or a share, which no machine's
    speed is in. A bound of a search that was not found is nan. `n` counts what is independent: blocks,
    events, or the trials of a search. `compares` is of a ratio of two conditions; `smallest_told` is then the
    smallest difference that would have been seen, as a share, or None if these blocks would have shown none.
    `sources` are what it was computed from: trials by their ids, or tables of the run by their names. `key`
    stands for quantity and factors where pages link to it (`key_of`).
    """

    experiment: str
    quantity: str
    factors: str
    value: float
    low: float
    high: float
    unit: str
    interval: Interval
    n: int
    compares: bool = False
    smallest_told: float | None = None
    sources: tuple[str, ...] = ()
    key: str = ""


def stated(
    experiment: str,
    quantity: str,
    found: Estimate,
    unit: str = "",
    *,
    compares: bool = False,
    sources: Iterable[str] = (),
    **factors: object,
) -> Stated:
    """State an estimate. `compares` is for a ratio of two conditions: it says what would have been seen."""
    return Stated(
        experiment, quantity, named(**factors), found.value, found.low, found.high, unit, found.interval,
        found.trials, compares, found.smallest_told if compares else None,
        tuple(dict.fromkeys(sources)), key_of(quantity, **factors),
    )  # fmt: skip


def key_of(quantity: str, **factors: object) -> str:
    """Return the name by which pages link to this number of a run: ten hexadecimal digits."""
    return hashlib.sha256(f"{quantity}/{named(**factors)}".encode()).hexdigest()[:10]


def named(**factors: object) -> str:
    """Write factors as text, in the order of their names: dispatch=least-busy, workers=2."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in sorted(factors.items())
    )


_BEFORE_VALUE = re.compile(r"(?:^|, )(\w+)=")


def factors_in_words(factors: str) -> str:
    """Write factors as people do, the server first: 2 workers, least-busy, loop of 117,649 iterations."""
    names_and_values = _BEFORE_VALUE.split(factors)[1:]
    of = dict(zip(names_and_values[::2], names_and_values[1::2], strict=True))
    if of.get("topology") == "single":
        of.pop("workers", None)
    known = [write(of.pop(name)) for name, write in _IN_WORDS.items() if name in of]
    return ", ".join(filter(None, [*known, *(f"{name} {value}" for name, value in of.items())]))


def _count(value: str, noun: str) -> str:
    return counted(int(value), noun) if value.isdecimal() else f"{value} {noun}s"


_IN_WORDS: dict[str, Callable[[str], str]] = {
    "topology": lambda value: {"single": "one process", "cluster": ""}.get(value, value),
    "workers": lambda value: _count(value, "worker"),
    "arrangement": str,
    "server": str,
    "over": "over {}".format,
    "dispatch": str,
    "connections": "{} connections".format,
    "generator": str,
    "api": "by {}".format,
    "quota": lambda value: f"quota of {value if 'CPU' in value else f'{value} CPUs'}",
    "cpus": lambda value: f"machines of {_count(value, 'CPU')}",
    "kernel": "kernel {}".format,
    "load": "load {}".format,
    "rate": str,
    "duration": "offered for {}".format,
    "arrivals": lambda value: {"poisson": "random arrivals", "constant": "constant rate"}.get(value, value),
    "percentile": "p{}".format,
    "loops": "within {} times the loop".format,
    "slo": str,
    "headroom": "headroom {}".format,
    "per_core_hour": "{} per core-hour".format,
    "requests": lambda value: f"after {_count(value, 'request')}",
    "iterations": lambda value: f"loop of {_count(value, 'iteration')}",
    "loop": lambda value: f"loop of {_count(value, 'iteration')}",
}
"""How each factor is written, in the order in which they stand."""


def linked(text: str, quantity: str, **factors: object) -> str:
    """Return a number's text as a link, in Markdown, to where a page says what it was computed from."""
    return anchored(text, key_of(quantity, **factors))


def anchored(text: str, key: str) -> str:
    """Return a text as such a link, to the estimate of that key; as it is without a key."""
    return f"[{text}](#{ANCHOR}{key})" if key else text


_LINK = re.compile(rf"\[([^]]*)\]\(#{ANCHOR}[0-9a-f]{{10}}\)")


def unlinked(text: str) -> str:
    """Return a text in Markdown without its links to estimates: only what they say."""
    return _LINK.sub(r"\1", text)


COUNTS = frozenset({"workers", "machines"})
"""Units of what is counted: its numbers are whole."""


def written(value: float, unit: str) -> str:
    """Write the digits of a value in its unit: three significant ones, or all of a count."""
    return f"{value:,.0f}" if unit in COUNTS and value == value else digits(value)


COLUMNS = tuple(field.name for field in fields(Stated))


def table_of(rows: Iterable[Stated]) -> pd.DataFrame:
    """Return a row per estimate, in the order of `COLUMNS`; those without a value are left out."""
    frame = pd.DataFrame([vars(row) for row in rows], columns=list(COLUMNS))
    frame = frame.astype(
        {"value": float, "low": float, "high": float, "smallest_told": float, "n": int, "compares": bool}
    )
    texts = frame.assign(interval=frame["interval"].map(str), sources=frame["sources"].map(list))
    return texts[frame["value"].notna()].reset_index(drop=True)


def rows_of(frame: pd.DataFrame) -> list[Stated]:
    """Return the estimates that `table_of` put into a table."""
    rows = (Stated(**{str(name): value for name, value in row.items()}) for row in frame.to_dict("records"))
    return [replace(row, interval=Interval(row.interval), sources=tuple(row.sources)) for row in rows]


def contradictions(estimates: pd.DataFrame) -> pd.DataFrame:
    """Return the estimates that share quantity, factors and unit with another one, but not its numbers."""
    different = estimates.drop_duplicates(["quantity", "factors", "unit", "value", "low", "high"])
    return different[different.duplicated(["quantity", "factors", "unit"], keep=False)]


OVERLAP, HELD = 0.95, 0.80
"""The least shares of intervals that overlap, and that hold the other run's value.

Of honest 95 % intervals about 99 % overlap, and about 83 % hold the value of an equal, independent run.
"""

NAME = ["experiment", "quantity", "factors", "unit"]
"""The columns that name a number: together they are the same in two runs that state the same."""


@dataclass(frozen=True)
class Agreement:
    """How two runs agree: `counts` by experiment, `pairs` with every estimate that both state.

    `counts` has a row per experiment, and one of all, named "all": `both` is how many intervals both state,
    `overlap` how many pairs overlap, `held` how many of the 2 x `both` intervals hold the other's value;
    `searches` how many bounds of searches both state, `disjoint` how many of those cannot be true together.
    These are ratios and shares. What has a unit is true at the machine's speed of its run, which may not be
    the other's: `absolute` is how many such numbers both state, `changed` how many of them are disjoint.
    `ranges` is how many numbers have no interval in one of the runs, and so say nothing here.
    `pairs` has the columns of estimates twice, ending in _one and _other, and `overlap`.
    """

    counts: pd.DataFrame
    pairs: pd.DataFrame

    @property
    def apart(self) -> pd.DataFrame:
        """The pairs of intervals and of bounds that do not overlap, those with a unit too."""
        return self.pairs[_of(self.pairs, COVERING | _SEARCHED) & ~self.pairs["overlap"]]

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


COVERING = frozenset(kind.value for kind in Interval if kind.covers)
"""The kinds of intervals that promise to hold the true value, as tables name them."""

_SEARCHED = frozenset([Interval.SEARCH.value])


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> Agreement:
    """Compare the estimates of two runs: tables as `table_of` makes them.

    Numbers are paired by experiment, quantity, factors and unit. A bound that a search did not find is open.
    """
    pairs = one.drop_duplicates(NAME).merge(
        other.drop_duplicates(NAME), on=NAME, suffixes=("_one", "_other"), validate="one_to_one"
    )
    pairs["overlap"] = _at_most(pairs["low_one"], pairs["high_other"]) & _at_most(
        pairs["low_other"], pairs["high_one"]
    )
    names = list(dict.fromkeys(pairs["experiment"]))
    counts = [_counted(name, pairs[pairs["experiment"] == name]) for name in names]
    return Agreement(pd.DataFrame([*counts, _counted("all", pairs)]), pairs)


def _counted(name: str, pairs: pd.DataFrame) -> Mapping[str, object]:
    absolute, ends = pairs["unit"] != "", _of(pairs, COVERING | _SEARCHED)
    mine = pairs[_of(pairs, COVERING) & ~absolute]
    searched = _of(pairs, _SEARCHED) & ~absolute
    return {
        "experiment": name,
        "both": len(mine),
        "overlap": int(mine["overlap"].sum()),
        "held": int(_holds(mine, "one", "other").sum() + _holds(mine, "other", "one").sum()),
        "searches": int(searched.sum()),
        "disjoint": int((~pairs.loc[searched, "overlap"]).sum()),
        "absolute": int((ends & absolute).sum()),
        "changed": int((~pairs.loc[ends & absolute, "overlap"]).sum()),
        "ranges": int((~ends).sum()),
    }


def _of(pairs: pd.DataFrame, kinds: Iterable[str]) -> "pd.Series[bool]":
    """Mark the pairs of which both runs have such an interval."""
    return pairs["interval_one"].isin(kinds) & pairs["interval_other"].isin(kinds)


def _holds(pairs: pd.DataFrame, one: str, other: str) -> "pd.Series[bool]":
    value = pairs[f"value_{other}"]
    return (pairs[f"low_{one}"] <= value) & (value <= pairs[f"high_{one}"])


def _at_most(low: "pd.Series[float]", high: "pd.Series[float]") -> "pd.Series[bool]":
    return (low <= high) | low.isna() | high.isna()
