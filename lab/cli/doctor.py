"""`lab doctor`: whether this machine is fit to measure on, and up to which rate to believe its generator."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from lab import machine, units
from lab.cpus import Said, all_said, run_at_once
from lab.load import ceiling
from lab.load import peers as load_tools
from lab.load.ceiling import Step, ceiling_rps, measure_ceiling, reasons
from lab.load.generators import keep_ceilings
from lab.progress import display
from lab.servers import peers
from lab.streams import tell, write_out
from lab.study import stability
from lab.study.stability import MOST_OTHERS_CPU, MOST_STEAL
from lab.units import percent

LEAST_CEILING_RPS = 500.0
"""Ten times the article's rate: below this, a study's highest rates could not be believed."""

_LITTLE_CPU = 0.25
"""What loops may miss of a CPU to still have run on it: others use some."""

_QUIET_S = 1.0
_STEP_S = 1.0
_STARTS_S = 0.5
"""Of each step: a server and a generator start."""

_LOOPS_S = 1.0
"""How long loops run to see how many do so at once."""

_USUAL_S = _QUIET_S + _LOOPS_S + 2 * len(ceiling.RATES_RPS) * (_STEP_S + _STARTS_S)
"""How long it takes if every rate holds, with both kinds of connections."""


@click.command("doctor", short_help="Say whether this machine is fit to measure on.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(form: str) -> int:
    """Say whether this machine is fit to measure on: its CPUs, its noise, its generator's ceiling."""
    tell(f"lab: examining this machine takes up to {_USUAL_S:.0f} s, longer if a rate has to be tried again")
    findings = _examine()
    write_out(json.dumps(findings, indent=2) if form == "json" else _text(findings))
    keep_ceilings(findings["ceiling_rps"]["connect"], findings["ceiling_rps"]["keepalive"])
    return 0 if findings["fit"] else 1


def _examine() -> dict[str, Any]:
    before = stability.snapshot()
    time.sleep(_QUIET_S)
    quiet = stability.between(before, stability.snapshot())
    counts = _counts(all_said())
    connect, keepalive = _ceilings()
    complaints = _complaints(quiet, ceiling_rps(connect))
    return {
        "machine": machine.describe().model_dump(),
        "cpu_counts": counts,
        "noise": asdict(quiet),
        "ceiling_rps": {"connect": ceiling_rps(connect), "keepalive": ceiling_rps(keepalive)},
        "steps": [asdict(step) for step in (*connect, *keepalive)],
        "tools": {"present": [tool.name for tool in load_tools.present()], "absent": load_tools.absent()},
        "peers": {
            "present": {peer.name: peer.version for peer in peers.present()},
            "absent": {peer.name: peer.missing for peer in peers.absent()},
        },
        "fit": not complaints,
        "complaints": complaints,
    }


def _counts(said: Sequence[Said]) -> dict[str, Any]:
    """Return what each API says of the CPUs, and how many loops ran at once, one for each CPU of the most."""
    most = math.ceil(max(one.cpus or 1 for one in said))
    return {"said": [asdict(one) for one in said], "ran_at_once": run_at_once(most, _LOOPS_S)}


def _ceilings() -> tuple[list[Step], list[Step]]:
    """Measure how fast a generator can send and still be believed, with both kinds of connections."""
    line = display()

    def show(step: Step) -> None:
        kind = "kept-alive connections" if step.keepalive else "a connection per request"
        held = "held" if step.held else "did not hold: " + reasons(step)
        share = (ceiling.RATES_RPS.index(step.rate_rps) + 1) / len(ceiling.RATES_RPS)
        line.show(f"{units.per_second(step.rate_rps)} on {kind} {held}", (step.keepalive + share) / 2)

    try:
        connect = measure_ceiling(keepalive=False, duration=_STEP_S, on_step=show)
        return connect, measure_ceiling(keepalive=True, duration=_STEP_S, on_step=show)
    finally:
        line.close()


def _complaints(quiet: stability.Noise, connect_rps: float) -> list[str]:
    complaints = []
    if quiet.steal > MOST_STEAL:
        complaints.append(
            f"the hypervisor takes {percent(quiet.steal)} of the CPU time: measure at another time"
        )
    if quiet.others_cpu > MOST_OTHERS_CPU:
        complaints.append(f"other processes use {percent(quiet.others_cpu)} of the CPU time: stop them first")
    if connect_rps < LEAST_CEILING_RPS:
        found, least = units.per_second(connect_rps), units.per_second(LEAST_CEILING_RPS)
        complaints.append(f"the load generator can be believed only up to {found}, less than {least}")
    return complaints


def _text(findings: dict[str, Any]) -> str:
    about, quiet, found = findings["machine"], findings["noise"], findings["ceiling_rps"]
    quota = "none" if about["quota_cpus"] is None else f"{about['quota_cpus']:g}"
    cpus = f"{about['host_cpus']} in the host, {about['affinity_cpus']} by affinity, quota {quota}"
    rows = {
        "CPU": about["cpu_model"],
        "CPUs": f"{about['available_cpus']} ({cpus})",
        "System": f"{about['kernel']}, {about['virtualisation']}, {about['python']}",
        "Noise": f"stolen {percent(quiet['steal'])}, used by others {percent(quiet['others_cpu'])}",
        "Ceiling": f"{units.per_second(found['connect'])} with a connection per request",
        "": f"{units.per_second(found['keepalive'])} with kept-alive connections",
        "Compare with": ", ".join(findings["tools"]["present"]) or "nothing: no other load generator found",
        "Other servers": _peers(findings["peers"]),
        "Fit": "yes" if findings["fit"] else "NO: " + "; ".join(findings["complaints"]),
    }
    lines = [f"{label:<15}{value}" for label, value in rows.items()]
    return "\n".join([*lines[:2], *_counted(findings), *lines[2:]])


def _counted(findings: dict[str, Any]) -> Iterator[str]:
    """Put a table under the CPUs: what each API says, and what ran; a busy machine tells nothing of these."""
    counts, others = findings["cpu_counts"], findings["noise"]["others_cpu"]
    busy = others > MOST_OTHERS_CPU
    enough = math.inf if busy else math.ceil(counts["ran_at_once"] + _LITTLE_CPU)
    for one in counts["said"]:
        known = one["cpus"] is not None
        about = "more than ran" if known and one["cpus"] > enough else one["because"]
        yield f"{'':<15}{one['api']:<30} {one['cpus'] if known else '–':>5}  {about}".rstrip()
    ran, about = units.digits(counts["ran_at_once"]), f"others used {percent(others)} of all" if busy else ""
    yield f"{'':<15}{'loops that ran at once':<30} {ran:>5}  {about}".rstrip()


def _peers(found: dict[str, Any]) -> str:
    """Say how many of the servers can run here, and which cannot, by the command that would bring them."""
    by_command: dict[str, list[str]] = {}
    for name, command in found["absent"].items():
        by_command.setdefault(command, []).append(name)
    absent = [f"absent: {', '.join(names)} ({command})" for command, names in by_command.items()]
    here = len(found["present"])
    return "; ".join([f"{here} of {here + len(found['absent'])} are here", *absent])
