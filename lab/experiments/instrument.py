"""Can the load generator be believed? Known answers, its lag behind the schedule, and its ceiling."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from lab import formats
from lab.experiments.common import table_name
from lab.load import attack
from lab.load.ceiling import measure_ceiling
from lab.load.closed import closed_loop
from lab.load.known_server import known_server
from lab.load.validity import LEAST_LAG_S as LEAST_LAG_S
from lab.models.stall import stall_latency_s
from lab.models.statistics import quantile
from lab.study.parameters import Count, ListOf, Positive
from lab.study.parameters import Parameters as _Parameters
from lab.study.run import Run

OPEN, CLOSED = "open loop (ours)", "closed loop"

_CONNECTIONS = {False: "a connection per request", True: "kept connections"}

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "slowest": 1.0}


class Parameters(_Parameters):
    """What notebook 08 lets its reader set."""

    run: str
    stall_rates: ListOf[Positive]
    stall_s: Positive
    stall_duration_s: Positive
    rates: ListOf[Positive]
    step_s: Positive
    tool_rate: Count
    tool_duration_s: Count


def stalls(run: Run, p: Parameters) -> pd.DataFrame:
    """Attack a server that stands still a third into the attack, at each rate, by open and by closed loop.

    A row per request: loop, rate, due_s, latency_s, stall_at_s, stall_s, server_count (requests that the
    server read in all), sent (that the generator sent in all).
    """
    name = table_name("stalls", p.stall_rates, p.stall_s, p.stall_duration_s)
    return run.table(name, lambda: pd.concat(_stalls(p), ignore_index=True))


def _stalls(p: Parameters) -> Iterator[pd.DataFrame]:
    for rate in p.stall_rates:
        stall_at = round(rate * p.stall_duration_s / 3)
        for loop, load in ((OPEN, _open_loop), (CLOSED, closed_loop)):
            with known_server(stall_at, p.stall_s) as server:
                requests = load(server.url, rate=rate, duration=p.stall_duration_s)
                count = server.requests()
            yield pd.DataFrame(
                {
                    "loop": loop,
                    "rate": rate,
                    "due_s": requests["due_s"],
                    "latency_s": requests["end_s"] - requests["due_s"],
                    "stall_at_s": stall_at / rate,
                    "stall_s": p.stall_s,
                    "server_count": count,
                    "sent": int(requests["sent_s"].notna().sum()),
                }
            )


def _open_loop(url: str, *, rate: float, duration: float) -> pd.DataFrame:
    return attack(url, rate=rate, duration=duration).requests


def known_answers(stalls: pd.DataFrame) -> pd.DataFrame:
    """Return a row per rate and quantile: what it must be, and what each loop says, all in seconds.

    What it must be is computed for the due times of the open loop: rate / s is what was asked for.
    """
    rows = []
    for rate, mine in stalls.groupby("rate"):
        open_loop, closed = (mine[mine["loop"] == loop] for loop in (OPEN, CLOSED))
        known = _known(open_loop)
        for name, share in _QUANTILES.items():
            row = {"rate": rate, "quantile": name, "known_s": quantile(known, share)}
            row["open_s"] = quantile(open_loop["latency_s"].to_numpy(), share)
            row["closed_s"] = quantile(closed["latency_s"].to_numpy(), share)
            rows.append(row)
    return pd.DataFrame(rows)


def _known(requests: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
    first = requests.iloc[0]
    return stall_latency_s(requests["due_s"].to_numpy(), first["stall_at_s"], first["stall_s"])


def known_answer_table(known: pd.DataFrame) -> pd.DataFrame:
    """Put the known answers and what was measured in words."""
    return pd.DataFrame(
        {
            "rate": known["rate"].map(formats.per_second),
            "latency": known["quantile"],
            "known": known["known_s"].map(formats.seconds),
            OPEN: known["open_s"].map(formats.seconds),
            CLOSED: known["closed_s"].map(formats.seconds),
        }
    )


def lags(run: Run, p: Parameters) -> pd.DataFrame:
    """Offer rising rates to a quick server: a row per try, as `lab.load.ceiling.Step` has it."""
    name = table_name("lags", p.rates, p.step_s)
    return run.table(name, lambda: pd.DataFrame(_lags(p)))


def _lags(p: Parameters) -> Iterator[dict[str, Any]]:
    for keepalive in (False, True):
        for step in measure_ceiling(keepalive=keepalive, rates_rps=sorted(p.rates), duration=p.step_s):
            row = asdict(step) | {"held": step.held, "reasons": "; ".join(step.reasons)}
            yield row | {"connections": _CONNECTIONS[keepalive]}


def ceilings(lags: pd.DataFrame) -> dict[str, float]:
    """Return the highest rate that held, per second: with new connections, and with kept ones."""
    held = lags["rate_rps"].where(lags["held"], 0.0)
    return {str(name): float(rate) for name, rate in held.groupby(lags["connections"]).max().items()}


def lag_table(lags: pd.DataFrame) -> pd.DataFrame:
    """Put the lags in words, a row per try, failed ones with their reason."""
    return pd.DataFrame(
        {
            "connections": lags["connections"],
            "offered rate": lags["rate_rps"].map(formats.per_second),
            "send lag, median": lags["lag_p50_s"].map(formats.seconds),
            "send lag, p99": lags["lag_p99_s"].map(formats.seconds),
            "CPU per request": lags["cpu_per_request_s"].map(formats.seconds),
            "counts agree": lags["reconciled"].map({True: "yes", False: "no"}),
            "believed": lags["held"].map({True: "yes", False: "no"}).str.cat(lags["reasons"], sep=" "),
        }
    )


def answer(known: pd.DataFrame, lags: pd.DataFrame, stalls: pd.DataFrame) -> str:
    """Say up to which rate the instrument can be believed here, and how near it comes to known answers."""
    off_s = (known["open_s"] - known["known_s"]).abs().max()
    worst = known.loc[known["quantile"] == "p99"]
    hidden = (worst["known_s"] / worst["closed_s"]).max()
    limits = "; ".join(f"{formats.per_second(rate)} with {name}" for name, rate in ceilings(lags).items())
    counts = stalls.drop_duplicates(["loop", "rate"])
    agree = bool((counts["server_count"] == counts["sent"]).all() and lags["reconciled"].all())
    return (
        f"**Answer.** On this machine the instrument can be believed up to **{limits}** "
        f"(the highest rates tried that held). Of known latencies it is off by {formats.seconds(off_s)} "
        f"at most, where a closed loop understates p99 by a factor of up to {formats.digits(hidden)}. "
        f"The servers' own counts "
        f"{'agree with ours, request by request' if agree else 'do not all agree with ours'}."
    )


def stall_title(known: pd.DataFrame) -> str:
    """Say in a figure's title what a closed loop hides."""
    worst = known[(known["quantile"] == "p99") & (known["rate"] == known["rate"].min())].iloc[0]
    true, claimed = formats.seconds(worst["known_s"]), formats.seconds(worst["closed_s"])
    return f"p99 of this stall is {true}; a closed loop says {claimed}"


def lag_title(lags: pd.DataFrame) -> str:
    """Say in a figure's title where the generator's ceiling is."""
    lowest = min(ceilings(lags).values())
    return f"The generator keeps to its schedule up to {formats.per_second(lowest)} at least"


def first_rate(stalls: pd.DataFrame) -> pd.DataFrame:
    """Return the requests of the lowest rate, with the known latency of each in `known_s`."""
    mine: pd.DataFrame = stalls[stalls["rate"] == stalls["rate"].min()].copy()
    mine["known_s"] = _known(mine)
    return mine
