"""Sustained rates as pages state them: what one process sustains, what a cluster does, and how many times."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from lab import units
from lab.checks import Positive, Seconds
from lab.experiments.common import by_server, resolve
from lab.models.statistics import Interval
from lab.servers.spec import DispatchName
from lab.study import searches
from lab.study.estimates import Stated, named
from lab.study.parameters import Parameters
from lab.study.plan import Condition
from lab.study.run import Run
from lab.study.searches import Objective, Percentile, times_as_much
from lab.study.sustained import Precision

KEPT = "sustained-rates"
"""The table in which a run keeps the searches of a page, before the name of its experiment."""


class Sought(Parameters):
    """What a notebook that searches lets its reader set about it."""

    slo_percentile: Percentile
    slo_loops: Positive
    precision: Precision
    search_s: Seconds

    @property
    def objective(self) -> Objective:
        """What a rate must meet to be sustained."""
        return Objective(self.slo_percentile, self.slo_loops, self.precision)


def pair(workers: int | str, dispatch: DispatchName, **load: Any) -> list[Condition]:
    """Return one process and a cluster, to be searched; `load` is what else a condition takes."""
    cluster: dict[str, Any] = {"topology": "cluster", "workers": resolve(workers), "dispatch": dispatch}
    return [Condition(rate=1.0, **load), Condition(rate=1.0, **load, **cluster)]


def searched(
    run: Run, experiment: str, servers: Sequence[Condition], objective: Objective, *, seed: int
) -> pd.DataFrame:
    """Search for the sustained rate of each server, and return `searches.bounds` of them."""
    trials = searches.search(run, servers, objective, seed=seed)
    run.keep(f"{KEPT}-{experiment}", trials)
    return searches.bounds(trials)


def kept(run: Run, experiment: str) -> pd.DataFrame | None:
    """Return the bounds that an experiment of the run has found, or None."""
    trials = run.newest(f"{KEPT}-{experiment}")
    return None if trials is None else searches.bounds(trials)


def answer(found: pd.DataFrame, *, shares: bool = True) -> str:
    """Say which rates are sustained, how many times one process's the cluster's is, and as which share."""
    text = "; ".join(_sustains(server, row) for server, row in _each(found))
    text = f"**Answer.** {text[0].upper()}{text[1:]} ({found['objective'].iloc[0]})."
    if found["lower_rps"].isna().all():
        return text
    if (times := _times(found)) is not None:
        text += f" That is {times}."
    if shares:
        parts = [f"{_span(row, 'share', units.percent)} for {server}" for server, row in _each(found)]
        text += f" As shares of what their own service times allow: {', '.join(parts)}."
    if not found["consistent"].all():
        advice = ": trust the shares, not the rates" if shares else ""
        text += f" **The machine changed its speed during a search{advice}.**"
    return text


def title(found: pd.DataFrame) -> str:
    """Say up to which share of their own limit the servers hold the SLO."""
    known = _each(found.dropna(subset=["lower_share", "upper_share"], how="all"))
    parts = [f"{server} {_span(row, 'share', _whole_percent)}" for server, row in known]
    if not parts:
        return "No sustained rate was found"
    return f"Sustained: {', '.join(parts)} of the own limit".replace(" % to ", " to ")


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Put the bounds in words, a row per server."""
    return pd.DataFrame(
        {
            "server": server,
            "sustained rate": _span(row, "rps", units.per_second),
            "of the own limit": _span(row, "share", units.percent),
            "worth of calibrated CPUs": _span(row, "cpus", units.digits),
            "trials": f"{row['trials']}, {row['flagged']} flagged",
            "doubts": row["reason"] or ("" if row["consistent"] else "the machine changed its speed"),
        }
        for server, row in _each(found)
    )


def estimates(experiment: str, found: pd.DataFrame) -> list[Stated]:
    """State the bounds of each server, in requests/s and as shares of its own limit.

    A search that ended with both bounds before it was done has confirmed neither: they are not stated.
    """
    unconfirmed = (found["reason"] != "") & found[["lower_rps", "upper_rps"]].notna().all(axis=1)
    rows = []
    for _, row in found[~unconfirmed].iterrows():
        several = {} if row["topology"] == "single" else {"dispatch": row["dispatch"]}
        about = named(
            topology=row["topology"], workers=row["workers"], slo=row["objective"], loop=row["iterations"],
            arrivals=row["arrivals"], **several,
        )  # fmt: skip
        for quantity, of, unit in _QUANTITIES:
            low, high = row[f"lower_{of}"], row[f"upper_{of}"]
            middle = pd.Series([low, high]).mean()
            rows.append(
                Stated(experiment, quantity, about, middle, low, high, unit, Interval.SEARCH, row["trials"])
            )
    return rows


_QUANTITIES = (
    ("sustained rate", "rps", "requests/s"),
    ("sustained rate, of the own limit", "share", ""),
)


def _whole_percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _each(found: pd.DataFrame) -> list[tuple[str, "pd.Series[Any]"]]:
    """Return each server's name, without its dispatch where all have the same, and its row."""
    return [(server.partition(",")[0], rows.iloc[0]) for server, rows in by_server(found)]


def _sustains(server: str, row: "pd.Series[Any]") -> str:
    if pd.isna(row["lower_rps"]):
        return f"for {server}, no sustained rate was found: {row['reason']}"
    does = "sustains" if row["topology"] == "single" or row["workers"] == 1 else "sustain"
    doubt = f" ({row['reason']})" if row["reason"] else ""
    return f"{server} {does} **{_span(row, 'rps', units.per_second)}**{doubt}"


def _times(found: pd.DataFrame) -> str | None:
    """Say how many times the cluster's rate is, in words; None if `times_as_much` cannot tell."""
    single, several = found[found["topology"] == "single"], found[found["topology"] == "cluster"]
    if single.empty or several.empty:
        return None
    middle, low, high = times_as_much(single.iloc[0], several.iloc[-1])
    if math.isnan(middle):
        return None
    text = f"**{units.digits(middle)} times as much** ({units.digits(low)} to {units.digits(high)})"
    if middle > several["workers"].iloc[-1]:
        text += ", more than its workers can: the machine changed its speed"
    return text


def _span(row: "pd.Series[Any]", what: str, write: Callable[[float], str]) -> str:
    return units.bounds(row[f"lower_{what}"], row[f"upper_{what}"], write)
