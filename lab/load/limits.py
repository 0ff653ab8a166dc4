"""How much to ask of load generators on this machine: how many at once, and up to which rate each."""

import json
import math
import platform
import sys
import warnings

from lab import files
from lab.cpus import available_cpus
from lab.files import write_whole
from lab.units import counted, per_second

MOST_GENERATORS_PER_CPU = 16
"""Generators that a CPU may have: more are probably a slip."""

_NAME = "ceiling.json"


class AboveCeilingWarning(UserWarning):
    """A generator is asked for a rate above the one at which it was believed."""


def generators_with_room() -> int:
    """Return how many generators leave a CPU to the server, if there is more than one CPU."""
    return max(1, available_cpus() - 1)


def keep_ceilings(connect_rps: float, keepalive_rps: float) -> None:
    """Remember both ceilings for later attacks here: with a connection per request, and kept alive.

    Raises LabError if they cannot be written.
    """
    kept = {"machine": platform.node(), "connect_rps": connect_rps, "keepalive_rps": keepalive_rps}
    write_whole(files.data() / _NAME, (json.dumps(kept) + "\n").encode())


def kept_ceiling_rps(*, keepalive: bool) -> float | None:
    """Return the ceiling measured on this machine, or None."""
    try:
        kept = json.loads((files.data() / _NAME).read_text())
        rate_rps = float(kept["keepalive_rps" if keepalive else "connect_rps"])
        return rate_rps if kept["machine"] == platform.node() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def warn_above(peak_rps: float, generators: int, *, keepalive: bool) -> None:
    """Warn if the highest rate of an attack is above the one at which its generators were believed.

    Generators that leave the server no CPU do not count. The warning names the caller's line. The result
    itself says whether it is valid.
    """
    ceiling_rps = kept_ceiling_rps(keepalive=keepalive)
    believed = min(generators, generators_with_room())
    if ceiling_rps is None or peak_rps <= believed * ceiling_rps:
        return
    warnings.warn(
        f"{per_second(peak_rps)} is more than lab doctor trusts {counted(believed, 'generator')} with"
        f" ({per_second(ceiling_rps)} each): {_advice(peak_rps, ceiling_rps)}",
        AboveCeilingWarning,
        stacklevel=_callers_level(),
    )


def _advice(peak_rps: float, ceiling_rps: float) -> str:
    if not ceiling_rps:
        return "rerun lab doctor when the machine is quiet"
    enough = math.ceil(peak_rps / ceiling_rps)
    if enough > generators_with_room():
        return "use a machine with more CPUs"
    return f"add --generators {enough} (generators={enough})"


def _callers_level() -> int:
    """Return how far up the stack the first frame outside both this package and pydantic is."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] in ("lab", "pydantic"):
        level, frame = level + 1, frame.f_back
    return level + 1
