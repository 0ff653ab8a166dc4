"""Can the load generator be believed, and up to which rate?"""

from typing import Annotated

import pandas as pd
from pydantic import AfterValidator, Field

from lab import units
from lab.checks import Count, Positive
from lab.experiments import control
from lab.experiments.instrument import lags, stalls
from lab.models.statistics import Estimate, proportion
from lab.study.estimates import Stated, linked, stated
from lab.study.parameters import DistinctOf, ListOf, RunToAddTo, WorkerCount
from lab.study.parameters import Parameters as _Parameters
from lab.study.run import Run

EXPERIMENT = "instrument"


class Parameters(_Parameters):
    """What notebook 08 lets its reader set."""

    run: RunToAddTo
    stall_rates: DistinctOf[Positive]
    stall_s: Positive
    stall_duration_s: Positive
    rates: DistinctOf[Positive]
    step_s: Positive
    tool_rate: Count
    tool_duration_s: Count
    control_workers: ListOf[WorkerCount]
    control_iterations: Annotated[ListOf[Count], Field(min_length=1), AfterValidator(control.in_steps)]


COUNTED = "share of attacks of which the server read all requests that were sent"


def counted(stalled: pd.DataFrame, lagging: pd.DataFrame) -> Estimate:
    """Return the share of all attacks in which the server's count is that of the generator."""
    attacks = stalls.attacks(stalled)
    agree = int((attacks["sent"] == attacks["server_count"]).sum() + lagging["reconciled"].sum())
    return proportion(agree, len(attacks) + len(lagging))


def answer(stalled: pd.DataFrame, lagging: pd.DataFrame, fed: pd.DataFrame) -> str:
    """Say up to which rate the instrument can be believed here, and how close it comes to known answers.

    `stalled` comes from `stalls.measure`, `lagging` from `lags.measure`, `fed` from `control.measure`.
    """
    new, kept = (lags.told(lagging, keepalive) for keepalive in lags.LABELS)
    open_s, closed_s = (
        linked(units.seconds(stalls.missed(stalled, loop).value), stalls.MISSED, generator=label)
        for loop, label in stalls.LABELS.items()
    )
    alike = counted(stalled, lagging)
    agree = linked(f"{alike.value * alike.trials:.0f}", COUNTED)
    return (
        f"**Answer.** On this machine the generator can be believed up to **{new}** with a connection per "
        f"request, and up to **{kept}** with kept connections. It missed known latencies by up to "
        f"{open_s}, a closed loop by up to {closed_s}. In {agree} of "
        f"{units.counted(alike.trials, 'attack')}, the server read as many requests as were sent. "
        f"{control.sentence(fed)}"
    )


def estimates(run: Run) -> list[Stated]:
    """State the numbers of the answer, if the run has measured all parts of it."""
    newest = {part: run.by_age(f"{part}-")[-1:] for part in ("stalls", "ceilings", "control")}
    if not all(newest.values()):
        return []
    stalled, lagging, fed = (run.kept(name) for names in newest.values() for name in names)
    return [
        *(
            stated(
                EXPERIMENT, lags.BELIEVED, found, "requests/s", sources=newest["ceilings"],
                connections=lags.CONNECTIONS[keepalive],
            )
            for keepalive, found in lags.believed(lagging).items()
        ),
        *(
            stated(
                EXPERIMENT, stalls.MISSED, stalls.missed(stalled, loop), "s", sources=newest["stalls"],
                generator=label,
            )
            for loop, label in stalls.LABELS.items()
        ),
        stated(
            EXPERIMENT, COUNTED, counted(stalled, lagging), sources=newest["stalls"] + newest["ceilings"]
        ),
        *(
            stated(
                EXPERIMENT, control.FEEDS, found, "workers", sources=newest["control"], iterations=iterations
            )
            for iterations, found in control.feeds(control.alike(fed)).items()
        ),
    ]  # fmt: skip
