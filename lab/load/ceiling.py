"""How fast one generator can send here and still be believed: its ceiling, against a quick server."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.flags import Flag
from lab.load.attack import attack
from lab.load.generators import AboveCeilingWarning
from lab.load.reference_server import reference_server
from lab.units import parse_duration

RATES_RPS = (50, 200, 500, 1000, 2000, 3000, 4000, 6000, 8000, 10_000, 15_000, 20_000, 30_000)
"""The rates to try, in order; the measurement ends at the first that fails."""

_TRIES = 3


@dataclass(frozen=True)
class Step:
    """What one generator showed at one rate."""

    rate_rps: float
    keepalive: bool
    valid: bool
    flags: tuple[Flag, ...]
    errors: tuple[str, ...]
    lag_p50_s: float
    lag_p99_s: float
    latency_p50_s: float
    latency_p99_s: float
    cpu_per_request_s: float
    reconciled: bool
    """Whether the server read exactly as many requests as were sent."""

    @property
    def held(self) -> bool:
        """Whether the generator can be believed at this rate."""
        return self.valid and self.reconciled


def measure_ceiling(
    *,
    keepalive: bool = False,
    rates_rps: Sequence[float] | None = None,
    duration: float | str = 2.0,
    on_step: Callable[[Step], None] | None = None,
) -> list[Step]:
    """Offer rising rates to a quick server until the generator fails every try at one of them.

    The highest rate that held is the ceiling, see `ceiling_rps`. The server shares the machine, so on two
    cores this is the ceiling beside a busy server, as in a study. `rates_rps` defaults to `RATES_RPS`.
    """
    steps: list[Step] = []
    for rate_rps in rates_rps or RATES_RPS:
        for _ in range(_TRIES):
            steps.append(_step(rate_rps, parse_duration(duration), keepalive))
            if on_step:
                on_step(steps[-1])
            if steps[-1].held:
                break
        else:
            break
    return steps


def reasons(step: Step) -> str:
    """Say why a step did not hold."""
    counts = [] if step.reconciled else ["the server's count differs"]
    return "; ".join([*map(str, step.flags), *step.errors, *counts])


def ceiling_rps(steps: Sequence[Step]) -> float:
    """Return the highest rate that held; 0 if none did."""
    return max((step.rate_rps for step in steps if step.held), default=0.0)


def _step(rate_rps: float, duration_s: float, keepalive: bool) -> Step:
    with reference_server() as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", AboveCeilingWarning)  # the kept ceiling is being measured anew
        summary = attack(
            server.url, rate=rate_rps, duration=duration_s, keepalive=keepalive, timeout=5.0
        ).summary
        return Step(
            rate_rps=rate_rps,
            keepalive=keepalive,
            valid=summary["valid"] and summary["success"] == 1,
            flags=tuple(map(Flag.from_dict, summary["flags"])),
            errors=tuple(summary["errors"]),
            lag_p50_s=summary["send_lag_s"]["p50"],
            lag_p99_s=summary["send_lag_s"]["p99"],
            latency_p50_s=summary["latency_s"]["p50"],
            latency_p99_s=summary["latency_s"]["p99"],
            cpu_per_request_s=summary["generator"]["cpu_s"] / summary["planned"],
            reconciled=server.requests() == summary["sent"],
        )
