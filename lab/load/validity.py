"""Whether a generator's own faults spoil what it measured, and the reasons in words."""

from collections.abc import Mapping

LEAST_LAG_S = 0.001
MOST_LAG_S = 0.01
LAG_SHARE = 0.1
STALL_S = 0.1
STALLED_SHARE = 0.01
CPU_SHARE = 0.9

FELL_BEHIND = "the generator fell behind"
"""How the reason begins that is about latencies alone: what was answered, and what was not, is right."""


def reasons_against(latency_p50_s: float | None, generator: Mapping[str, float | None]) -> list[str]:
    """Return why a result must not be believed; empty if it may.

    - Send lag is a part of latency that is not the server's. Its p99 may be 1 ms, or a tenth of the median
      latency if that is more, but not over 10 ms: a late generator may itself have made the median so long.
      Requests that waited for a slot of the in-flight limit, as was asked for, are not looked at.
    - The generator's event loop may not stall for 100 ms at once, nor for 1 % of the time in all: answers
      that came in meanwhile were stamped late.
    - It may not use over 90 % of a core: it was then the bottleneck, or about to be. Nor may all together
      use over 90 % of all CPUs: nothing was left for the server.
    - The garbage collector may not pause it for 100 ms; that is a stall as well.
    """
    reasons = []
    limit_s = min(max(LEAST_LAG_S, LAG_SHARE * (latency_p50_s or 0.0)), MOST_LAG_S)
    if (lag_p99_s := generator.get("lag_p99_s") or 0.0) > limit_s:
        reasons.append(f"{FELL_BEHIND}: send lag p99 {1000 * lag_p99_s:.1f} ms over {1000 * limit_s:.1f} ms")
    if (longest_s := generator.get("stall_longest_s") or 0.0) > STALL_S:
        reasons.append(f"the generator's event loop stood still for {1000 * longest_s:.0f} ms")
    if (share := generator.get("stalled_share") or 0.0) > STALLED_SHARE:
        reasons.append(f"the generator's event loop stood still for {share:.1%} of the time")
    if (share := generator.get("cpu_share") or 0.0) > CPU_SHARE:
        reasons.append(f"the generator used {share:.0%} of a core: it was the bottleneck")
    if (share := generator.get("cpu_share_of_all") or 0.0) > CPU_SHARE:
        reasons.append(f"the generators used {share:.0%} of all CPUs: the server had none")
    return reasons
