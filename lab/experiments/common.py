"""What several notebooks share: the number of CPUs as a default, and how servers and spreads are named."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pandas as pd
from pydantic import BeforeValidator

from lab.errors import UsageError
from lab.flags import KINDS
from lab.machine import available_cpus
from lab.models.statistics import fewest_trials
from lab.units import counted


def _workers(value: Any) -> int | str:
    """Read a number of workers, or the word for one on each CPU."""
    text = str(value)
    if text != "cpus" and not (text.isdecimal() and int(text) >= 1):
        raise ValueError("must be 'cpus' or a whole number, at least 1")
    return text if text == "cpus" else int(text)


Workers = Annotated[int | str, BeforeValidator(_workers)]
"""A number of workers, or "cpus": one for each CPU."""


def resolve(workers: int | str) -> int:
    """Return the number of workers: "cpus" means one for each CPU that this process may use."""
    return available_cpus() if workers == "cpus" else int(workers)


def with_server_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the column `server`, its name in figures and tables, and put smaller servers first."""
    names = [
        "one process" if topology == "single" else f"{counted(workers, 'worker')}, {dispatch}"
        for topology, workers, dispatch in zip(
            frame["topology"], frame["workers"], frame["dispatch"], strict=True
        )
    ]
    return frame.assign(server=names).sort_values("workers", kind="stable", ignore_index=True)


def spread_is(blocks: int) -> str:
    """Say what a bar over this many blocks is: a 95 % interval, or the whole range of too few for one."""
    if blocks >= fewest_trials():
        return f"95 % bootstrap interval over {blocks} blocks"
    return f"range over {counted(blocks, 'block')}, too few for a confidence interval"


def flagged(trials: pd.DataFrame) -> str:
    """Say how many trials are flagged, and why: they stay in every figure."""
    bad = trials[~trials["valid"]]
    if bad.empty:
        return f"None of the {counted(len(trials), 'trial')} is flagged: generator and machine kept steady."
    found = pd.DataFrame([vars(flag) for flag in bad["flags"].explode()])
    kinds = [_kind(str(code), alike["value"]) for code, alike in found.groupby("code", sort=False)]
    return f"**{len(bad)} of {counted(len(trials), 'trial')} flagged** and kept: {'; '.join(kinds)}."


def _kind(code: str, values: "pd.Series[float]") -> str:
    """Write flags of one code as one, with the range of their values."""
    kind = KINDS[code]
    span = " to ".join(
        dict.fromkeys(kind.show(value) for value in (values.min(), values.max()) if is_number(value))
    )
    return f"{' '.join(filter(None, [kind.text, span]))} ({counted(len(values), 'trial')})"


def both_ways(trials: pd.DataFrame, answer: Callable[[pd.DataFrame], str]) -> str:
    """Answer from all trials, and add what those that are not flagged say by themselves."""
    said, sound = answer(trials), trials[trials["valid"]]
    if len(sound) == len(trials):
        return said
    without = f"Without the {counted(len(trials) - len(sound), 'flagged trial')}"
    try:
        alone = answer(sound)
    except UsageError:
        return f"{said} {without} there is too little to answer from."
    if alone == said:
        return f"{said} {without} it is the same."
    gap = "\n\n" if "\n\n" in said else " "
    return f"{said}{gap}*{without}:* {alone.removeprefix('**Answer.** ')}"


def is_number(value: float | None) -> bool:
    """Say whether there is a value: a trial without a single answer has no latency."""
    return value is not None and not math.isnan(value)


def table_name(kind: str, *settings: object) -> str:
    """Name a table by what it was made with: other settings, another table."""
    plain = [list(s) if isinstance(s, Sequence) and not isinstance(s, str) else s for s in settings]
    return f"{kind}-{hashlib.sha256(repr(plain).encode()).hexdigest()[:10]}"
