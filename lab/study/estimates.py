"""What a run states: each number with its interval, in one shape, to be shown, kept and compared."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import pandas as pd

from lab.models.statistics import Estimate, Interval


@dataclass(frozen=True)
class Stated:
    """A number that a page states, as the functions behind its answer, tables and figure compute it.

    `quantity` says what it is, and `factors` of what, such as "dispatch=least-busy, workers=2": together they
    name it, so that no other number goes by them. `unit` is "" for a ratio or a share, which no machine's
    speed is in. A bound of a search that was not found is nan. `n` counts what is independent: blocks,
    events, or the trials of a search. `compares` is of a ratio of two conditions; `smallest_told` is then the
    smallest difference that would have been seen, as a share, or None if these blocks would have shown none.
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


def stated(
    experiment: str,
    quantity: str,
    found: Estimate,
    unit: str = "",
    *,
    compares: bool = False,
    **factors: object,
) -> Stated:
    """State an estimate. `compares` is for a ratio of two conditions: it says what would have been seen."""
    return Stated(
        experiment, quantity, named(**factors), found.value, found.low, found.high, unit, found.interval,
        found.trials, compares, found.smallest_told if compares else None,
    )  # fmt: skip


def named(**factors: object) -> str:
    """Write factors as text, in the order of their names: dispatch=least-busy, workers=2."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in sorted(factors.items())
    )


COLUMNS = tuple(field.name for field in fields(Stated))


def table_of(rows: Iterable[Stated]) -> pd.DataFrame:
    """Return a row per estimate, in the order of `COLUMNS`; those without a value are left out."""
    frame = pd.DataFrame([vars(row) for row in rows], columns=list(COLUMNS))
    frame = frame.astype(
        {"value": float, "low": float, "high": float, "smallest_told": float, "n": int, "compares": bool}
    )
    return frame.assign(interval=frame["interval"].map(str))[frame["value"].notna()].reset_index(drop=True)


def contradictions(estimates: pd.DataFrame) -> pd.DataFrame:
    """Return the estimates that share quantity, factors and unit with another one, but not its numbers."""
    different = estimates.drop_duplicates(["quantity", "factors", "unit", "value", "low", "high"])
    return different[different.duplicated(["quantity", "factors", "unit"], keep=False)]
