"""The plan in a few sentences, and the numbers in them, which the run keeps."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from lab import units
from lab.experiments.capacity.case import AS_GIVEN, EXPERIMENT, Case, Sustained, rate_in_words
from lab.experiments.capacity.plan import (
    MACHINE_RATES_RPS,
    NO_RATE,
    band,
    count,
    machines,
    status,
    without_headroom,
)
from lab.experiments.capacity.score import OWN_LIMIT
from lab.models.capacity import cost_per_million
from lab.models.statistics import Estimate
from lab.study.estimates import Stated, linked, rows_of, stated, table_of
from lab.study.run import Run

_MOST_RPS = MACHINE_RATES_RPS[-1]


def answer(
    case: Case,
    rate_rps: float,
    whence: str,
    cpus: int,
    validated: int,
    sustained: Sustained,
    cpus_per_machine: int,
    price_per_core_hour: float,
) -> str:
    """Say how many workers the rate needs, whether they fit here, and what a million a second takes."""
    if why := case.why_impossible():
        return f"**Answer.** **No number of workers keeps {case.slo}**: {why}."
    if not rate_rps:
        return f"**Answer.** {NO_RATE}"
    lead = _unlinked if case.is_given else linked
    needed, rate = case.needed(rate_rps).workers or 0, rate_in_words(rate_rps)
    if sustained.share and _rests_on_all(whence):
        loops = case.slo_s / case.loop_s
        rate = lead(rate, OWN_LIMIT, workers=sustained.workers, percentile=case.slo_percentile, loops=loops)
    elif whence != AS_GIVEN:
        rate = lead(rate, RATE, **_asked(case, rate_rps, whence))
    ends = band(case, rate_rps)
    seen = f" ({ends} at the fastest to the slowest speed seen)" if " to " in ends else ""
    workers = lead(f"{needed:,}", WORKERS, **_asked(case, rate_rps, whence))
    parts = [
        f"**Answer.** **{rate}** ({whence}), with {case.slo} and {units.percent(case.headroom)} headroom, "
        f"needs **{workers} {_noun(needed, 'worker')}**{seen}: {status(needed, validated, cpus)}."
    ]
    size = units.counted(cpus_per_machine, "CPU")
    fleet, of_many = machines(case, _MOST_RPS, cpus_per_machine), _of_many(case, cpus_per_machine)
    if fleet.machines:
        cost = cost_per_million(_MOST_RPS, fleet.workers, price_per_core_hour)
        price = lead(units.digits(cost), COST, **of_many, per_core_hour=price_per_core_hour)
        at = f", at {price} per million requests" if price_per_core_hour else ""
        many = f"{lead(f'{fleet.machines:,}', MACHINES, **of_many)} {_noun(fleet.machines, 'machine')}"
        parts.append(f"A million a second would take {many} of {size}{at}: extrapolated.")
    if sustained.share:
        same = lead(count(without_headroom(case, sustained)), WORKERS, **_sustained(case, sustained))
        parts.append(
            f"Without headroom, the rate that {units.counted(sustained.workers, 'worker')} sustained here "
            f"needs {same} by the same plan."
        )
    return " ".join(parts)


def _unlinked(text: str, _: str, **__: object) -> str:
    """Leave a number of given service times as it is: the run keeps no estimate of it."""
    return text


def _noun(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


KEPT = "capacity-plan"
"""The table in which a run keeps the numbers of the plan that the notebook last made."""

RATE, WORKERS = "rate planned for", "planned for a rate"
MACHINES, COST = "planned for a rate, behind a balancer", "cost planned, per million requests"


def keep(
    run: Run,
    case: Case,
    rate_rps: float,
    whence: str,
    sustained: Sustained,
    cpus_per_machine: int,
    price_per_core_hour: float,
) -> None:
    """Have the run keep the numbers that the answer states, unless service times were given, not measured.

    Each is that at the usual speed, between those at the fastest and the slowest speed seen.
    """
    if case.is_given or case.why_impossible() or not rate_rps:
        return
    speeds = case.speeds()
    fleets = {speed: machines(case, _MOST_RPS, cpus_per_machine, slower) for speed, slower in speeds.items()}
    of_many = _of_many(case, cpus_per_machine)

    def planned(
        quantity: str, unit: str, numbers: Mapping[str, float | None], about: dict[str, Any]
    ) -> Stated:
        ends = ("usual", "fastest", "slowest")
        value, low, high = (math.nan if (one := numbers[end]) is None else float(one) for end in ends)
        return stated(EXPERIMENT, quantity, Estimate(value, low, high, len(case.blocks_s)), unit, **about)

    rows = [
        planned(
            WORKERS, "workers",
            {speed: case.needed(rate_rps, slower).workers for speed, slower in speeds.items()},
            _asked(case, rate_rps, whence),
        ),
        planned(
            WORKERS, "workers",
            {speed: without_headroom(case, sustained, slower) for speed, slower in speeds.items()},
            _sustained(case, sustained),
        ),
        planned(MACHINES, "machines", {speed: one.machines for speed, one in fleets.items()}, of_many),
    ]  # fmt: skip
    if not (_rests_on_all(whence) or whence == AS_GIVEN):
        rates = {speed: case.highest_rps(sustained.workers, slower) for speed, slower in speeds.items()}
        rates |= {"fastest": rates["slowest"], "slowest": rates["fastest"]}  # the lower end comes first
        rows.append(planned(RATE, "requests/s", rates, _asked(case, rate_rps, whence)))
    if price_per_core_hour:
        costs = {
            speed: cost_per_million(_MOST_RPS, one.workers, price_per_core_hour) if one.machines else None
            for speed, one in fleets.items()
        }
        rows.append(planned(COST, "currency", costs, of_many | {"per_core_hour": price_per_core_hour}))
    run.keep(KEPT, table_of({row.key: row for row in rows}.values()))  # the first two may be one


def _about(case: Case, rate: str) -> dict[str, Any]:
    """Return what a number of the plan is for: the rate, the objective, the headroom."""
    loops = units.digits(case.slo_s / case.loop_s)
    return {"rate": rate, "slo": f"p{case.slo_percentile} within {loops} loops", "headroom": case.headroom}


def _asked(case: Case, rate_rps: float, whence: str) -> dict[str, Any]:
    """Name a rate that was not given by where it comes from, so that other runs have the same name for it."""
    return _about(case, rate_in_words(rate_rps) if whence == AS_GIVEN else whence)


def _of_many(case: Case, cpus_per_machine: int) -> dict[str, Any]:
    return _about(case, rate_in_words(_MOST_RPS)) | {"cpus": cpus_per_machine}


def _sustained(case: Case, sustained: Sustained) -> dict[str, Any]:
    workers = units.counted(sustained.workers, "worker")
    return _about(case, f"what {workers} sustained in this run") | {"headroom": 0.0}


def _rests_on_all(text: str) -> bool:
    """Say whether a number is of the rate that was sustained here, and so of all trials."""
    return "sustained in this run" in text


def estimates(run: Run, trials: pd.DataFrame) -> list[Stated]:
    """State the plan that the run keeps, with one worker's trials or, of a sustained rate, with all."""
    kept = run.newest(KEPT)
    one = trials.loc[trials["arrivals"] == "constant", "trial_id"]
    return [
        replace(row, sources=(*(trials["trial_id"] if _rests_on_all(row.factors) else one), KEPT))
        for row in (() if kept is None else rows_of(kept))
    ]
