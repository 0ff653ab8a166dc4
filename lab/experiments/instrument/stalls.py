"""A server that stands still once: the known answer for every request, and what two loops report."""

import http.client
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lab import units
from lab.errors import LabError
from lab.figures import BAD, SERVERS, THEORY, Look, canvas, timeline
from lab.flags import Flag, in_words
from lab.load.attack import attack
from lab.load.log import Outcome
from lab.load.records import to_frame
from lab.load.reference_server import reference_server
from lab.load.summary import over_time
from lab.models.overload import stall_latency_s
from lab.models.statistics import Estimate, quantile
from lab.study.run import Run, table_name

OPEN, CLOSED = "open", "closed"

LABELS = {OPEN: "open loop (ours)", CLOSED: "closed loop"}

SLOW = 0.1
"""A request that took longer than this share of the stall met it."""

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "slowest": 1.0}

_BINS_IN_A_STALL = 5
_MOST_BINS = 60
_TIMEOUT_S = 30.0


def measure(run: Run, rates_rps: tuple[float, ...], stall_s: float, duration_s: float) -> pd.DataFrame:
    """Attack a server that stands still a third into the attack, at each rate, by open and closed loop.

    A row per request: loop, rate, due_s, sent_s, end_s, outcome, latency_s, service_s (as the server says),
    stall_at_s, stall_s, server_count (requests that the server read in all), flags (of the generator).
    """
    name = table_name("stalls", rates_rps, stall_s, duration_s)
    return run.table(name, lambda: pd.concat(_measure(rates_rps, stall_s, duration_s), ignore_index=True))


def _measure(rates_rps: tuple[float, ...], stall_s: float, duration_s: float) -> Iterator[pd.DataFrame]:
    for rate in rates_rps:
        stall_at = round(rate * duration_s / 3)
        for loop in LABELS:
            flags: tuple[Flag, ...] = ()
            with reference_server(stall_at, stall_s) as server:
                if loop == CLOSED:
                    requests = closed_loop(server.url, rate=rate, duration_s=duration_s)
                else:
                    result = attack(server.url, rate=rate, duration=duration_s)
                    requests = result.requests
                    flags = tuple(map(Flag.from_dict, result.summary["flags"]))
                count = server.requests()
            yield requests[["due_s", "sent_s", "end_s", "outcome", "service_s"]].assign(
                latency_s=requests["end_s"] - requests["due_s"],
                loop=loop,
                rate=rate,
                stall_at_s=stall_at / rate,
                stall_s=stall_s,
                server_count=count,
                flags=pd.Series([flags] * len(requests), requests.index, dtype=object),
            )


def known_answers(stalls: pd.DataFrame) -> pd.DataFrame:
    """Return a row per rate and quantile: the known latency, each loop's, and the service time, in seconds.

    The known latency is computed for the due times of the open loop, to which the server reported the service
    time.
    """
    rows = []
    for rate, mine in stalls.groupby("rate"):
        open_loop, closed = (mine[mine["loop"] == loop] for loop in (OPEN, CLOSED))
        said = {
            "known_s": _known_s(open_loop),
            "open_s": open_loop["latency_s"].to_numpy(),
            "closed_s": closed["latency_s"].to_numpy(),
            "service_s": open_loop["service_s"].to_numpy(),
        }
        for name, share in _QUANTILES.items():
            quantiles = {column: quantile(values, share) for column, values in said.items()}
            rows.append({"rate": rate, "quantile": name} | quantiles)
    return pd.DataFrame(rows)


def _known_s(requests: pd.DataFrame) -> NDArray[np.float64]:
    first = requests.iloc[0]
    return stall_latency_s(requests["due_s"].to_numpy(), first["stall_at_s"], first["stall_s"])


MISSED = "known latency, missed by at most"


def missed(stalls: pd.DataFrame, loop: str) -> Estimate:
    """Return the most by which a loop's quantiles miss the known ones; its range is that of the rates."""
    known = known_answers(stalls)
    off_s = (known[f"{loop}_s"] - known["known_s"]).abs().groupby(known["rate"]).max()
    return Estimate(float(off_s.max()), float(off_s.min()), float(off_s.max()), len(off_s))


def known_answer_table(known: pd.DataFrame) -> pd.DataFrame:
    """Put the known answers, and what was measured, in words."""
    return pd.DataFrame(
        {
            "rate": known["rate"].map(units.in_requests),
            "latency": known["quantile"],
            "known": known["known_s"].map(units.in_seconds),
            LABELS[OPEN]: known["open_s"].map(units.in_seconds),
            LABELS[CLOSED]: known["closed_s"].map(units.in_seconds),
            "service time": known["service_s"].map(units.in_seconds),
        }
    )


def attacks(stalls: pd.DataFrame) -> pd.DataFrame:
    """Return a row per attack: rate, loop, sent, server_count, slow (requests that met the stall), flags."""
    slow = stalls["latency_s"] > SLOW * stalls["stall_s"]
    return (
        stalls.assign(slow=slow)
        .groupby(["rate", "loop"], sort=False, as_index=False)
        .agg(
            sent=("sent_s", "count"),
            server_count=("server_count", "first"),
            slow=("slow", "sum"),
            flags=("flags", "first"),
        )
    )


def attack_table(stalls: pd.DataFrame) -> pd.DataFrame:
    """Put the attacks in words."""
    found = attacks(stalls)
    return pd.DataFrame(
        {
            "rate": found["rate"].map(units.in_requests),
            "generator": found["loop"].map(LABELS),
            "sent": found["sent"],
            "read by the server": found["server_count"],
            f"took over {units.seconds(SLOW * stalls['stall_s'].iloc[0])}": found["slow"],
            "flagged because": found["flags"].map(in_words),
        }
    )


def figure(stalls: pd.DataFrame) -> Figure:
    """Draw each request at the lowest rate where it was due, for each loop, over the known sawtooth."""
    requests = stalls[stalls["rate"] == stalls["rate"].min()]
    known = known_answers(requests)
    p99 = known[known["quantile"] == "p99"].iloc[0]
    title = (
        f"p99 of this stall is {units.seconds(p99['known_s'])}; "
        f"a closed loop says {units.seconds(p99['closed_s'])}"
    )
    with canvas(title) as (figure, (axes,)):
        for (loop, label), look in zip(LABELS.items(), (SERVERS["round-robin"], Look(BAD, "o")), strict=True):
            mine = requests[requests["loop"] == loop]
            axes.plot(
                mine["due_s"], mine["latency_s"], look.marker, color=look.color,
                markersize=4.5 if loop == OPEN else 7, alpha=0.7, label=label,
                markerfacecolor=look.color if loop == OPEN else "none",
            )  # fmt: skip
        ours = requests[requests["loop"] == OPEN].sort_values("due_s")
        axes.plot(ours["due_s"], _known_s(ours), label="known answer", **THEORY)
        axes.set_xlabel("when the request was due, s from the start")
        axes.set_ylabel("latency from the due time, s")
        axes.set_ylim(bottom=-0.02 * float(requests["latency_s"].max()))
        axes.legend(loc="upper right")
    return figure


def over_time_figure(stalls: pd.DataFrame) -> Figure:
    """Draw the open loop's attack at the highest rate, moment by moment."""
    moments = stall_over_time(stalls)
    most, due, ok = moments["in_flight"].max(), moments["due"].sum(), moments["ok"].sum()
    return timeline.over_time(
        moments,
        _at_highest_rate(stalls),
        f"A stall makes {most:,} requests wait at once; {ok:,} of {due:,} are answered",
    )


def stall_over_time(stalls: pd.DataFrame) -> pd.DataFrame:
    """Return the open loop's attack at the highest rate, a row per fraction of the stall."""
    mine = _at_highest_rate(stalls)
    return over_time(mine, max(mine["stall_s"].iloc[0] / _BINS_IN_A_STALL, mine["due_s"].max() / _MOST_BINS))


def _at_highest_rate(stalls: pd.DataFrame) -> pd.DataFrame:
    highest: pd.DataFrame = stalls[(stalls["rate"] == stalls["rate"].max()) & (stalls["loop"] == OPEN)]
    return highest


def closed_loop(url: str, *, rate: float, duration_s: float) -> pd.DataFrame:
    """Send requests one by one, at up to `rate` per second, and return request records as `attack` does.

    A request that could not leave on time is due when it leaves: that is how a closed loop forgets those that
    should have been sent meanwhile (Tene's coordinated omission). Use it for comparison, not for measuring.
    Raises LabError if the server cannot be asked.
    """
    rows = []
    start_s, sent_s = time.monotonic(), 0.0
    while sent_s < duration_s:
        outcome, status, size = _ask(url)
        end_s = time.monotonic() - start_s
        rows.append((sent_s, end_s, outcome, status, size))
        time.sleep(max(0.0, sent_s + 1 / rate - end_s))
        sent_s = time.monotonic() - start_s
    sent, end, outcomes, statuses, sizes = (np.array(column) for column in zip(*rows, strict=True))
    unknown = {name: np.full(len(rows), np.nan) for name in ("service_s", "service_cpu_s")}
    unknown["worker"] = np.zeros(len(rows), np.int32)
    known = {"sent_s": sent, "end_s": end, "outcome": outcomes, "status": statuses, "bytes_in": sizes}
    return to_frame(sent, known | unknown)


def _ask(url: str) -> tuple[Outcome, int, int]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_TIMEOUT_S)
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
