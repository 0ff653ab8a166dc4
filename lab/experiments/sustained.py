"""Sustained rates: what the searches of a page found, and what it says of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lab import units
from lab.checks import Count, Positive, Seconds, Whole
from lab.experiments.common import by_server, resolve
from lab.experiments.searches import SERVER, Objective, Percentile, search, whole
from lab.hotloop import KernelName
from lab.models.statistics import Estimate, Interval
from lab.servers.spec import DispatchName
from lab.study.estimates import Stated, linked, stated
from lab.study.parameters import Parameters, RunToAddTo
from lab.study.plan import Condition
from lab.study.run import Run
from lab.study.sustained import Precision

_OF_ALL = (
    "objective", "slo_percentile", "slo_loops", "iterations", "arrivals", "reason", "consistent",
)  # fmt: skip
"""What all trials of a search have alike: what it asked, and how it ended."""


def bounds(trials: pd.DataFrame) -> pd.DataFrame:
    """Return what each search found, a row per server, fewest workers first.

    `lower_share` and `upper_share`, as own utilisation, do not depend on the machine's speed: they are shares
    of what the server's own service times allow. `lower_rps` and `upper_rps` are these at the usual speed of
    the search's trials, and `loop_s` is the CPU time of a loop then.
    """
    rows = []
    for server, mine in whole(trials).groupby(list(SERVER), sort=False):
        first, sound = mine.iloc[0], mine[mine["flags"].map(len) == 0]
        row: dict[str, Any] = dict(zip(SERVER, server, strict=True))
        for bound in ("lower", "upper"):
            row[f"{bound}_rps"], row[f"{bound}_share"] = first[f"{bound}_rps"], first[f"{bound}_share"]
        row["loop_s"] = sound["service_cpu_s"].median()
        limits_rps = (mine["rate"] / mine["utilisation"]).where(mine["flags"].map(len) == 0)
        row["limits_rps"] = limits_rps.tolist()
        row |= {name: first[name] for name in _OF_ALL}
        rows.append(row | {"trials": len(mine), "flagged": len(mine) - len(sound)})
    return pd.DataFrame(rows).sort_values(["workers", "topology"], ignore_index=True)


def times_as_much(less: "pd.Series[Any]", more: "pd.Series[Any]") -> tuple[float, float, float]:
    """Return how many times the sustained rate of one search is that of another: middle, least and most.

    Their trials took turns, so that both met the machine at the same speeds: of the limits that the pairs of
    trials tell, the ratio is the geometric mean, give or take two standard errors. All are nan where a search
    has a reason to say: a bound is missing, or not confirmed.
    """
    if less["reason"] or more["reason"]:
        return math.nan, math.nan, math.nan
    pairs = zip(less["limits_rps"], more["limits_rps"], strict=False)
    logs = np.array([math.log(many / one) for one, many in pairs if one > 0 and many > 0])
    if len(logs) < 2:
        return math.nan, math.nan, math.nan
    times, error = math.exp(logs.mean()), math.exp(2 * float(logs.std(ddof=1)) / math.sqrt(len(logs)))
    low = more["lower_share"] / less["upper_share"] * times
    high = more["upper_share"] / less["lower_share"] * times
    return float(np.sqrt(low * high)), float(low / error), float(high * error)


KEPT = "sustained-rates"
"""The table in which a run keeps the searches of a page, before the name of its experiment."""


class Sought(Parameters):
    """What the notebooks that also search for sustained rates let their readers set alike."""

    run: RunToAddTo
    duration_s: Seconds
    dispatch: DispatchName
    kernel: KernelName
    timeout_s: Seconds
    blocks: Count
    seed: Whole
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
    """Search for the sustained rate of each server, and return `bounds` of them."""
    trials = search(run, servers, objective, seed=seed)
    run.keep(table_name(experiment), trials)
    return bounds(trials)


def table_name(experiment: str) -> str:
    """Name the table in which a run keeps the trials of a page's searches."""
    return f"{KEPT}-{experiment}"


def kept(run: Run, experiment: str) -> pd.DataFrame | None:
    """Return the bounds that an experiment of the run has found, or None."""
    trials = run.newest(table_name(experiment))
    return None if trials is None else bounds(trials)


def answer(found: pd.DataFrame, *, shares: bool = True) -> str:
    """Say which rates are sustained, how many times one process's the cluster's is, and as which share."""
    text = "; ".join(_sustains(server, row) for server, row in _each(found))
    objective, loop_s = found.iloc[-1][["objective", "loop_s"]]
    loops = f"; a loop took {units.seconds(loop_s)}" if loop_s > 0 else ""
    text = f"**Answer.** {text[0].upper()}{text[1:]} ({objective}{loops})."
    if found["lower_rps"].isna().all():
        return text
    if (times := _times(found)) is not None:
        text += f" At the same speed of the machine, that is {times}."
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
            "sustained rate": _between(row, "rps", units.in_requests),
            "of the own limit": _between(row, "share", units.in_percent),
            "trials": row["trials"],
            "flagged": row["flagged"],
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
        for quantity, of, unit in _QUANTITIES:
            low, high = row[f"lower_{of}"], row[f"upper_{of}"]
            middle = float(pd.Series([low, high]).mean())
            bounds_ = Estimate(middle, low, high, row["trials"], Interval.SEARCH)
            rows.append(
                stated(experiment, quantity, bounds_, unit, sources=[table_name(experiment)], **about(row))
            )
    return [*rows, *_compared(experiment, found)]


RATIO = "sustained rate, over that of one process"
"""What `times_as_much` says, as an estimate."""


def _compared(experiment: str, found: pd.DataFrame) -> Iterator[Stated]:
    """State how many times the rate of one process each cluster sustains, where `times_as_much` can tell."""
    for one, row in _pairs(found):
        if not math.isnan((times := times_as_much(one, row))[0]):
            told = Estimate(*times, int(one["trials"] + row["trials"]), Interval.SEARCH)
            yield stated(experiment, RATIO, told, sources=[table_name(experiment)], **about(row))


def _pairs(found: pd.DataFrame) -> "list[tuple[pd.Series[Any], pd.Series[Any]]]":
    """Return the rows of one process and of each cluster."""
    single, several = (found[found["topology"] == topology] for topology in ("single", "cluster"))
    return [(one, row) for _, one in single.head(1).iterrows() for _, row in several.iterrows()]


def about(row: "pd.Series[Any]") -> dict[str, Any]:
    """Return the factors of a search: its server, and what it asked."""
    several = {} if row["topology"] == "single" else {"dispatch": row["dispatch"]}
    return several | {
        "topology": row["topology"], "workers": row["workers"], "slo": row["objective"],
        "loop": row["iterations"], "arrivals": row["arrivals"],
    }  # fmt: skip


_QUANTITIES = (("sustained rate", "rps", "requests/s"), ("sustained rate, of the own limit", "share", ""))


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
    rates = linked(_span(row, "rps", units.per_second), _QUANTITIES[0][0], **about(row))
    return f"{server} {does} **{rates}**{doubt}"


def _times(found: pd.DataFrame) -> str | None:
    """Say how many times the cluster's rate is, in words; None if `times_as_much` cannot tell."""
    for one, row in _pairs(found)[-1:]:
        middle, low, high = times_as_much(one, row)
        if not math.isnan(middle):
            times = linked(units.digits(middle), RATIO, **about(row))
            text = f"**{times} times as much** ({units.digits(low)} to {units.digits(high)})"
            excess = ", more than its workers can: the machine changed its speed"
            return text + (excess if low > row["workers"] else "")
    return None


def _between(row: "pd.Series[Any]", what: str, write: Callable[[float], units.Number]) -> units.Number:
    return units.between(row[f"lower_{what}"], row[f"upper_{what}"], write)


def _span(row: "pd.Series[Any]", what: str, write: Callable[[float], str]) -> str:
    return units.bounds(row[f"lower_{what}"], row[f"upper_{what}"], write)
