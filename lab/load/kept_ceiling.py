"""The generator's ceiling on this machine, as `lab doctor` found and kept it: who asks for more is warned."""

import json
import math
import platform
import warnings

from lab import paths
from lab.files import write_whole
from lab.formats import counted, per_second
from lab.load.spec import generators_with_room

_NAME = "ceiling.json"


class AboveCeilingWarning(UserWarning):
    """More is asked of a generator than it was believed at when it was measured."""


def keep(connect_rps: float, keepalive_rps: float) -> None:
    """Remember both ceilings for later attacks here: with a connection per request, and kept alive.

    Raises LabError if they cannot be written.
    """
    kept = {"machine": platform.node(), "connect_rps": connect_rps, "keepalive_rps": keepalive_rps}
    write_whole(paths.data() / _NAME, (json.dumps(kept) + "\n").encode())


def kept_rps(*, keepalive: bool) -> float | None:
    """Return the ceiling that was measured on this machine, None if none was."""
    try:
        kept = json.loads((paths.data() / _NAME).read_text())
        rate_rps = float(kept["keepalive_rps" if keepalive else "connect_rps"])
        return rate_rps if kept["machine"] == platform.node() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def warn_above(peak_rps: float, generators: int, *, keepalive: bool) -> None:
    """Warn if the highest rate of an attack is more than its generators were believed at.

    Generators that leave the server no CPU do not count. The warning names the line that called the caller.
    The result says for itself whether it is valid.
    """
    ceiling_rps = kept_rps(keepalive=keepalive)
    believed = min(generators, generators_with_room())
    if ceiling_rps is None or peak_rps <= believed * ceiling_rps:
        return
    warnings.warn(
        f"{per_second(peak_rps)} is more than lab doctor believed {counted(believed, 'generator')} at"
        f" ({per_second(ceiling_rps)} each): {_advice(peak_rps, ceiling_rps)}",
        AboveCeilingWarning,
        stacklevel=3,
    )


def _advice(peak_rps: float, ceiling_rps: float) -> str:
    if not ceiling_rps:
        return "run it when all is quiet"
    enough = math.ceil(peak_rps / ceiling_rps)
    if enough > generators_with_room():
        return "it takes a machine with more CPUs"
    return f"add --generators {enough} (generators={enough})"
