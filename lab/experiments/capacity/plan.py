"""The plan: which rate needs how many workers and machines, at which cost, on which assumptions."""

import math

import numpy as np
import pandas as pd

from lab import units
from lab.experiments.capacity.case import IN_WORDS, Case, Sustained, rate_in_words
from lab.experiments.common import worded
from lab.models.capacity import (
    MOST_SIMULATED,
    NEARLY_CONSTANT,
    Machines,
    cost_per_million,
    is_exact,
    machines_needed,
)

_METHODS = {
    True: ("exact (M/D/c)", "service times of one length"),
    False: ("simulated", f"more than {MOST_SIMULATED} workers are taken to do no better than as many"),
}
"""How waits are found: whether there is a formula."""

_BESIDE = {
    True: "the network's and the client's, of the overhead",
    False: "not told apart from the rest: all of the overhead counts as occupying a worker",
}
"""What latency beside a worker is: whether overload told any."""

MACHINE_RATES_RPS = (1e3, 1e4, 1e5, 1e6)
MACHINE_SIZES = (1, 2, 4, 8, 16, 32, 64)
_MULTIPLES = (0.5, 1.0, 2.0, 5.0, 10.0)
NO_RATE = "So many workers sustain no rate under this objective: give a rate to plan for."

STEPS = 24
"""Numbers of workers in a staircase, at most: of more, some are left out, and it is a line."""


def staircase(case: Case, up_to: int) -> pd.DataFrame:
    """Return the highest rate of each number of workers, without headroom; columns workers and requests/s.

    They are usual, slowest and fastest: with service times as in the median, the slowest and the fastest
    block.
    """
    apart = np.linspace if up_to <= STEPS else np.geomspace
    counts = sorted({round(n) for n in apart(1, up_to, min(up_to, STEPS))})
    known: dict[tuple[int, float], float] = {}
    rows = []
    for n in counts:
        for slower in case.speeds().values():
            if (n, slower) not in known:
                known[n, slower] = case.highest_rps(n, slower)
        rows.append({"workers": n} | {name: known[n, slower] for name, slower in case.speeds().items()})
    return pd.DataFrame(rows)


def up_to(case: Case, rate_rps: float, cpus: int) -> int:
    """Return how far a staircase should go: past the workers that are needed, and past the CPUs here."""
    needed = case.needed(rate_rps).workers if rate_rps else None
    return max(2 * cpus, 4, math.ceil(1.5 * (needed or 1)))


def status(workers: int, validated: int, cpus: int) -> str:
    """Say how a number of workers is known: measured here too, computed for CPUs that are here, or beyond.

    `validated` is the number whose predictions came true here, or 0.
    """
    if workers == validated:
        return "validated: predicted, then measured here"
    return "predicted for the CPUs here" if workers <= cpus else "extrapolated beyond the CPUs here"


def table(case: Case, rate_rps: float, validated: int, cpus: int) -> pd.DataFrame:
    """Say how many workers the rate, and parts and multiples of it, need, with headroom."""
    if why := case.why_impossible():
        return pd.DataFrame({"": [f"No number of workers keeps {case.slo}: {why}."]})
    if not rate_rps:
        return pd.DataFrame({"": [NO_RATE]})
    rows = []
    for rate in [rate_rps * times for times in _MULTIPLES]:
        needed = case.needed(rate)
        rows.append(
            {
                "offered rate": rate_in_words(rate),
                "workers": count(needed.workers),
                "at the fastest to the slowest speed seen": band(case, rate),
                "busy on average": _amount(needed.erlangs),
                "utilisation": units.in_percent(needed.utilisation),
                "known by": status(needed.workers or 0, validated, cpus),
            }
        )
    return pd.DataFrame(rows)


def count(workers: int | None) -> str:
    """Write how many, to the last one."""
    return "no number" if workers is None else f"{workers:,}"


def _amount(erlangs: float) -> str:
    return units.digits(erlangs) if erlangs < 1e5 else f"{erlangs:,.0f}"


def band(case: Case, rate_rps: float) -> str:
    """Write the workers at the fastest to the slowest speed seen; "" if there was but one."""
    speeds = case.speeds()
    if speeds["slowest"] == speeds["fastest"]:
        return ""
    ends = [case.needed(rate_rps, speeds[name]).workers for name in ("fastest", "slowest")]
    return count(ends[0]) if ends[0] == ends[1] else " to ".join(map(count, ends))


def assumptions(case: Case, validated: int, cpus: int) -> pd.DataFrame:
    """Say what the plan takes for granted, and what of it was seen here."""
    blocks = units.counted(len(case.blocks_s), "block")
    ends = f"{units.seconds(case.blocks_s.min())} to {units.seconds(case.blocks_s.max())} over {blocks}"
    measured = "given" if case.is_given else f"measured here with one worker, in overload too: {ends}"
    beside = "" if case.is_given else f", of which {units.seconds(case.overhead_s)} is not the loop"
    says = {
        "arrivals": ("random (Poisson), independent of each other", "bursts or retries: more are needed"),
        "a request occupies a worker for": (units.seconds(case.mean_s) + beside, measured),
        "latency beside a worker": (
            units.seconds(case.beside_s),
            "not known of given times" if case.is_given else _BESIDE[case.beside_s > 0],
        ),
        "service times vary by": (
            f"a coefficient of variation of {units.digits(case.variation)}",
            f"up to {NEARLY_CONSTANT:g} they count as constant",
        ),
        "queue": (IN_WORDS[case.queue], "of the dispatch, with a connection per request"),
        "waits": _METHODS[is_exact(case.service_s, case.queue)],
        "objective": (case.slo, f"{units.digits(case.slo_s / case.loop_s)} times the loop"),
        "headroom": (units.percent(case.headroom), "by which the rate may grow"),
        "CPUs": ("one for each worker, as fast as those here", f"{cpus} here"),
        "validated": (
            units.counted(validated, "worker") if validated else "nothing",
            "most predictions for so many came true, in the section before",
        ),
        "workers beyond the CPUs here": (
            "as fast as few of them",
            "memory bandwidth, shared caches and a supervisor's limit are not in the model",
        ),
    }
    return pd.DataFrame({"assumed": name, "here": what, "note": note} for name, (what, note) in says.items())


def checked(case: Case, sustained: Sustained) -> pd.DataFrame:
    """Ask the plan, without headroom, for the workers of the rate that this run found sustained.

    The rate is in the time of the calibration's loops: the machine may have changed its speed since.
    """
    if sustained.share is None:
        return pd.DataFrame({"": ["The trials of this run do not tell which rate these workers sustain."]})
    rate_rps, needed = sustained.rate_rps(sustained.share.low, case.loop_s), without_headroom(case, sustained)
    return pd.DataFrame(
        [
            {
                "workers": sustained.workers,
                "sustained, of the own limit": worded(sustained.share, units.percent),
                "its lower end, as a rate": units.in_requests(rate_rps),
                "workers by this plan": count(needed),
                "says as many": "yes" if needed == sustained.workers else "no",
            }
        ]
    )


def without_headroom(case: Case, sustained: Sustained, slower: float = 1.0) -> int | None:
    """Return the workers that the sustained rate needs without headroom; None if none was, or none can."""
    if sustained.share is None:
        return None
    rate_rps = sustained.rate_rps(sustained.share.low, case.loop_s)
    return case.needed(rate_rps, slower, headroom=0.0).workers


def machines(case: Case, rate_rps: float, cpus_per_machine: int, slower: float = 1.0) -> Machines:
    """Return the machines that a rate needs behind a balancer that chooses at random."""
    return machines_needed(
        rate_rps,
        cpus_per_machine,
        case.service_s * slower,
        slo_quantile=case.slo_percentile / 100,
        slo_s=case.in_worker_s(slower),
        dispatch=case.queue,
        headroom=case.headroom,
    )


def machine_table(case: Case, cpus_per_machine: int, price_per_core_hour: float) -> pd.DataFrame:
    """Say what each rate needs in machines, and what it costs; a price of 0 leaves the costs out."""
    return pd.DataFrame(
        {"offered rate": rate_in_words(rate)} | _fleet(case, rate, cpus_per_machine, price_per_core_hour)
        for rate in MACHINE_RATES_RPS
    )


def size_table(case: Case, price_per_core_hour: float) -> pd.DataFrame:
    """Say what the highest of these rates takes on machines of other sizes."""
    most = MACHINE_RATES_RPS[-1]
    return pd.DataFrame(
        {"machines of": units.counted(size, "CPU")} | _fleet(case, most, size, price_per_core_hour)
        for size in MACHINE_SIZES
    )


def _fleet(case: Case, rate_rps: float, cpus_per_machine: int, price: float) -> dict[str, object]:
    found = machines(case, rate_rps, cpus_per_machine)
    row: dict[str, object] = {
        "machines": count(found.machines),
        "workers": count(found.workers or None),
        "utilisation": units.in_percent(found.utilisation),
    }
    if price and found.machines:
        row["cost per hour"] = units.plain(found.workers * price)
        row["cost per million requests"] = units.plain(cost_per_million(rate_rps, found.workers, price))
    return row
