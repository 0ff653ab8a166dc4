"""Rates over time as people write them: `10/s for 10s, ramp to 50/s over 30s`."""

import re

from lab.durations import seconds
from lab.errors import UsageError
from lab.load.arrivals import Stretch

_EXAMPLE = "10/s for 10s, ramp to 50/s over 30s"
_RATE = r"(\d+(?:\.\d+)?)/s"
_STEP = re.compile(rf"{_RATE} for (\S+)")
_RAMP = re.compile(rf"ramp (?:from {_RATE} )?to {_RATE} over (\S+)")


def parse(text: str) -> list[Stretch]:
    """Return the stretches of a profile; a ramp begins where the stretch before it ended, or at zero.

    Raises UsageError if it is malformed.
    """
    stretches: list[Stretch] = []
    for part in text.split(","):
        before_rps = stretches[-1].end_rps if stretches else 0.0
        stretches.append(_stretch(" ".join(part.split()), before_rps))
    return stretches


def _stretch(part: str, before_rps: float) -> Stretch:
    if step := _STEP.fullmatch(part):
        return Stretch(float(step[1]), float(step[1]), seconds(step[2]))
    if ramp := _RAMP.fullmatch(part):
        return Stretch(float(ramp[1] or before_rps), float(ramp[2]), seconds(ramp[3]))
    raise UsageError(f"malformed profile at {part!r}: write {_EXAMPLE}")
