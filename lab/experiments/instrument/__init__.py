"""Can the load generator be believed, and up to which rate?"""

from typing import Annotated

import pandas as pd
from pydantic import AfterValidator, Field

from lab import units
from lab.checks import Count, Positive
from lab.experiments import control
from lab.experiments.instrument import lags, stalls
from lab.study.parameters import DistinctOf, ListOf, WorkerCount
from lab.study.parameters import Parameters as _Parameters


class Parameters(_Parameters):
    """What notebook 08 lets its reader set."""

    run: str
    stall_rates: DistinctOf[Positive]
    stall_s: Positive
    stall_duration_s: Positive
    rates: DistinctOf[Positive]
    step_s: Positive
    tool_rate: Count
    tool_duration_s: Count
    control_workers: ListOf[WorkerCount]
    control_iterations: Annotated[ListOf[Count], Field(min_length=1), AfterValidator(control.in_steps)]


def answer(stalled: pd.DataFrame, lagging: pd.DataFrame, fed: pd.DataFrame) -> str:
    """Say up to which rate the instrument can be believed here, and how close it comes to known answers.

    `stalled` comes from `stalls.measure`, `lagging` from `lags.measure`, `fed` from `control.measure`.
    """
    new, kept = (lags.rate_or_none(lags.ceilings(lagging)[keepalive]) for keepalive in lags.LABELS)
    known, attacks = stalls.known_answers(stalled), stalls.attacks(stalled)
    open_s, closed_s = ((known[loop] - known["known_s"]).abs().max() for loop in ("open_s", "closed_s"))
    agree = int((attacks["sent"] == attacks["server_count"]).sum() + lagging["reconciled"].sum())
    of = units.counted(len(attacks) + len(lagging), "attack")
    return (
        f"**Answer.** On this machine the generator can be believed up to **{new}** with a connection per "
        f"request, and up to **{kept}** with kept connections. It missed known latencies by up to "
        f"{units.seconds(open_s)}, a closed loop by up to {units.seconds(closed_s)}. In {agree} of "
        f"{of}, the server read as many requests as were sent. {control.sentence(fed)}"
    )
