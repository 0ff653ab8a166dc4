"""Can the load generator be believed? Known answers, its lag behind the schedule, and its ceiling."""

import http.client
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from pydantic import AfterValidator

from lab.checks import Count, Positive
from lab.errors import LabError
from lab.experiments.common import table_name
from lab.load import attack
from lab.load.ceiling import measure_ceiling
from lab.load.log import Outcome
from lab.load.reference_server import known_server
from lab.load.summary import LEAST_LAG_S as LEAST_LAG_S
from lab.load.summary import over_time
from lab.models.overload import stall_latency_s
from lab.models.statistics import quantile
from lab.study.parameters import ListOf
from lab.study.parameters import Parameters as _Parameters
from lab.study.run import Run
from lab.units import parse_duration

if TYPE_CHECKING:
    import pandas as pd

OPEN, CLOSED = "open loop (ours)", "closed loop"

_CONNECTIONS = {False: "a connection per request", True: "kept connections"}

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "slowest": 1.0}

_BINS_IN_A_STALL = 5
_MOST_BINS = 60


def _distinct(rates: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(rates)) < len(rates):
        raise ValueError("must list each rate once")
    return rates


Rates = Annotated[ListOf[Positive], AfterValidator(_distinct)]


class Parameters(_Parameters):
    """What notebook 08 lets its reader set."""

    run: str
    stall_rates: Rates
    stall_s: Positive
    stall_duration_s: Positive
    rates: Rates
    step_s: Positive
    tool_rate: Count
    tool_duration_s: Count


def stalls(run: Run, p: Parameters) -> pd.DataFrame:
    """Attack a server that stands still a third into the attack, at each rate, by open and by closed loop.

    A row per request: loop, rate, due_s, sent_s, end_s, outcome, latency_s, service_s (as the server says),
    stall_at_s, stall_s, server_count (requests that the server read in all), doubts (why the generator does
    not believe itself).
    """
    name = table_name("stall-requests", p.stall_rates, p.stall_s, p.stall_duration_s)
    return run.table(name, lambda: pd.concat(_stalls(p), ignore_index=True))


def _stalls(p: Parameters) -> Iterator[pd.DataFrame]:
    for rate in p.stall_rates:
        stall_at = round(rate * p.stall_duration_s / 3)
        for loop, load in ((OPEN, _open_loop), (CLOSED, _closed_loop)):
            with known_server(stall_at, p.stall_s) as server:
                requests, doubts = load(server.url, rate, p.stall_duration_s)
                count = server.requests()
            yield requests[["due_s", "sent_s", "end_s", "outcome", "service_s"]].assign(
                latency_s=requests["end_s"] - requests["due_s"],
                loop=loop,
                rate=rate,
                stall_at_s=stall_at / rate,
                stall_s=p.stall_s,
                server_count=count,
                doubts="; ".join(doubts),
            )


def _open_loop(url: str, rate: float, duration_s: float) -> tuple[pd.DataFrame, list[str]]:
    result = attack(url, rate=rate, duration=duration_s)
    return result.requests, result.summary["invalid_because"]


def _closed_loop(url: str, rate: float, duration_s: float) -> tuple[pd.DataFrame, list[str]]:
    return closed_loop(url, rate=rate, duration=duration_s), []


def known_answers(stalls: pd.DataFrame) -> pd.DataFrame:
    """Return a row per rate and quantile: the known latency, what each loop says, and the service time, in s.

    The known latency is computed for the due times of the open loop; the service time is the one that the
    server reported to it.
    """
    rows = []
    for rate, mine in stalls.groupby("rate"):
        open_loop, closed = (mine[mine["loop"] == loop] for loop in (OPEN, CLOSED))
        said = {
            "known_s": _known(open_loop),
            "open_s": open_loop["latency_s"].to_numpy(),
            "closed_s": closed["latency_s"].to_numpy(),
            "service_s": open_loop["service_s"].to_numpy(),
        }
        for name, share in _QUANTILES.items():
            quantiles = {column: quantile(values, share) for column, values in said.items()}
            rows.append({"rate": rate, "quantile": name} | quantiles)
    return pd.DataFrame(rows)


def _known(requests: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
    first = requests.iloc[0]
    return stall_latency_s(requests["due_s"].to_numpy(), first["stall_at_s"], first["stall_s"])


def first_rate(stalls: pd.DataFrame) -> pd.DataFrame:
    """Return the requests of the lowest rate, with the known latency of each in `known_s`."""
    mine: pd.DataFrame = stalls[stalls["rate"] == stalls["rate"].min()].copy()
    mine["known_s"] = _known(mine)
    return mine


def stall_over_time(stalls: pd.DataFrame) -> pd.DataFrame:
    """Return the open loop's attack at the highest rate, a row per fraction of the stall."""
    mine = stalls[(stalls["rate"] == stalls["rate"].max()) & (stalls["loop"] == OPEN)]
    return over_time(mine, max(mine["stall_s"].iloc[0] / _BINS_IN_A_STALL, mine["due_s"].max() / _MOST_BINS))


def lags(run: Run, p: Parameters) -> pd.DataFrame:
    """Offer rising rates to a quick server: a row per try, as `lab.load.ceiling.Step` has it."""
    name = table_name("lags", p.rates, p.step_s)
    return run.table(name, lambda: pd.DataFrame(_lags(p)))


def _lags(p: Parameters) -> Iterator[dict[str, Any]]:
    for keepalive in (False, True):
        for step in measure_ceiling(keepalive=keepalive, rates_rps=sorted(p.rates), duration=p.step_s):
            row = asdict(step) | {"held": step.held, "reasons": "; ".join(step.reasons)}
            yield row | {"connections": _CONNECTIONS[keepalive]}


def tried(lags: pd.DataFrame) -> pd.DataFrame:
    """Return a row per kind of connections and rate: how many tries, how many of them held, what they showed.

    Columns: connections, rate_rps, tries, held, lag_p50_s (median), lag_low_s and lag_high_s (of p99),
    cpu_per_request_s (median), reconciled (all), reasons (of the last try that did not hold).
    """
    failed = lags["reasons"].where(~lags["held"])
    counts_differ = ~lags["held"] & (lags["reasons"] == "")
    return (
        lags.assign(reasons=failed.mask(counts_differ, "the server's count differs"))
        .groupby(["connections", "rate_rps"], sort=False, as_index=False)
        .agg(
            tries=("held", "size"),
            held=("held", "sum"),
            lag_p50_s=("lag_p50_s", "median"),
            lag_low_s=("lag_p99_s", "min"),
            lag_high_s=("lag_p99_s", "max"),
            cpu_per_request_s=("cpu_per_request_s", "median"),
            reconciled=("reconciled", "all"),
            reasons=("reasons", "last"),
        )
    )


def ceilings(lags: pd.DataFrame) -> dict[str, float]:
    """Return the highest rate that held, per second, 0 if none did: with new connections, and kept ones."""
    held = lags["rate_rps"].where(lags["held"], 0.0)
    return {str(name): float(rate) for name, rate in held.groupby(lags["connections"]).max().items()}


def closed_loop(
    url: str, *, rate: float, duration: float | str, timeout: float | str = 30.0
) -> "pd.DataFrame":
    """Ask one thing after another at up to `rate` per second, and return request records as `attack` does.

    A request that could not leave on time is due when it leaves: that is how a closed loop forgets those that
    should have been sent meanwhile (coordinated omission, as Tene calls it). For comparison, not for
    measuring. Raises LabError if the server cannot be asked.
    """
    import numpy as np

    from lab.load.records import to_frame

    rows, timeout_s, duration_s = [], parse_duration(timeout), parse_duration(duration)
    start_s, sent_s = time.monotonic(), 0.0
    while sent_s < duration_s:
        outcome, status, size = _ask(url, timeout_s)
        end_s = time.monotonic() - start_s
        rows.append((sent_s, end_s, outcome, status, size))
        time.sleep(max(0.0, sent_s + 1 / rate - end_s))
        sent_s = time.monotonic() - start_s
    sent, end, outcomes, statuses, sizes = (np.array(column) for column in zip(*rows, strict=True))
    unknown = {"service_s": np.full(len(rows), np.nan), "worker": np.zeros(len(rows), np.int32)}
    known = {"sent_s": sent, "end_s": end, "outcome": outcomes, "status": statuses, "bytes_in": sizes}
    return to_frame(sent, known | unknown)


def _ask(url: str, timeout_s: float) -> tuple[Outcome, int, int]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/", headers={"Connection": "close"})
        answer = connection.getresponse()
        size = len(answer.read())
    except TimeoutError:
        return Outcome.TIMEOUT, 0, 0
    except (OSError, http.client.HTTPException) as error:
        raise LabError(f"cannot ask {url}: {error}; is the server running?") from None
    finally:
        connection.close()
    return (Outcome.OK if 200 <= answer.status < 400 else Outcome.HTTP_ERROR), answer.status, size
