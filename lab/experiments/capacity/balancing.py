"""Which balancing policy keeps latency low when service times vary, or when a node is slow."""

import math
from collections.abc import Iterable, Sequence
from itertools import permutations

import pandas as pd

from lab import units
from lab.models.balancing import POLICIES, Policy
from lab.models.statistics import Estimate, estimate, paired_ratio
from lab.units import digits

OVERLOADED = "never settles"
"""What stands where a policy sends a slow node more than it can do."""

NAMES = {
    "random": "random",
    "round-robin": "round robin",
    "two-choices": "the shorter of two",
    "shortest": "the shortest of all",
    "central": "one central queue",
}
"""The policies in words."""


def latency(one: Policy) -> Estimate | None:
    """Return a policy's latency over its replications, in mean service times; None if it never settles."""
    return None if math.isinf(max(one.latencies)) else estimate(list(one.latencies), between_runs=0)


def pick(found: Iterable[Policy], **wanted: object) -> list[Policy]:
    """Return those with these values: variation, slowest or policy."""
    return [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]


def variations(found: Iterable[Policy]) -> list[float]:
    """Return the variations, from the least."""
    return sorted({one.variation for one in found})


def table(found: Sequence[Policy]) -> pd.DataFrame:
    """Put latencies in a table: a row per policy and slowest node, a column per variation."""
    rows = []
    for slowest in sorted({one.slowest for one in found}, reverse=True):
        for policy in POLICIES:
            mine = {one.variation: latency(one) for one in pick(found, policy=policy, slowest=slowest)}
            cells = {f"variation {variation:g}": _written(mine[variation]) for variation in variations(found)}
            rows.append({"nodes": nodes(slowest), "policy": NAMES[policy]} | cells)
    return pd.DataFrame(rows)


def _written(found: Estimate | None) -> str:
    if found is None:
        return OVERLOADED
    return f"{digits(found.value)} ({digits(found.low)} to {digits(found.high)})"


def nodes(slowest: float) -> str:
    """Say which nodes there are."""
    return "all of one speed" if slowest == 1 else f"one at {units.percent(slowest)} of the speed"


def is_faster(one: Policy, other: Policy) -> bool:
    """Say whether a policy's latency is lower than another's, by the whole interval of their paired ratio."""
    if latency(one) is None or latency(other) is None:
        return latency(other) is None and latency(one) is not None
    ratio = paired_ratio(list(one.latencies), list(other.latencies), between_runs=0)
    return ratio.is_interval and ratio.high < 1


def overtakes(found: Sequence[Policy]) -> pd.DataFrame:
    """Say which policy overtakes which as service times vary more, among equal nodes; and with a slow node.

    One overtakes another if it is not faster while service times are constant (or nodes equal), and is faster
    from some variation on (or with the slow node). A row per policy overtaken and where.
    """
    equal = pick(found, slowest=1.0)
    first, *later = variations(equal)
    rows: dict[tuple[str, str], list[str]] = {}
    for one, other in permutations(POLICIES, 2):
        faster = {variation: _beats(equal, one, other, variation) for variation in variations(equal)}
        since = [v for v in later if all(faster[more] for more in later if more >= v)]
        if since and not faster[first]:
            where = f"service times vary by {since[0]:g} or more"
            rows.setdefault((NAMES[other], where), []).append(NAMES[one])
    for slowest in sorted({one.slowest for one in found} - {1.0}):
        slow = pick(found, slowest=slowest)
        for one, other in permutations(POLICIES, 2):
            if _beats(slow, one, other, first) and not _beats(equal, one, other, first):
                where = f"{nodes(slowest)}, constant service times"
                rows.setdefault((NAMES[other], where), []).append(NAMES[one])
    return pd.DataFrame(
        [
            {"overtaken": other, "where": where, "by": ", ".join(ones)}
            for (other, where), ones in rows.items()
        ],
        columns=["overtaken", "where", "by"],
    )


def _beats(found: Sequence[Policy], one: str, other: str, variation: float) -> bool:
    (mine,), (its,) = (pick(found, policy=name, variation=variation) for name in (one, other))
    return is_faster(mine, its)
