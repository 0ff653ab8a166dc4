"""`lab compare`: runs beside each other, each difference with its interval."""

import json
from dataclasses import asdict
from typing import Any

import click

from lab import units
from lab.experiments.summary import estimates, open_for_reading
from lab.models.statistics import CONFIDENCE
from lab.streams import write_out
from lab.study.compare import Comparison, Difference, check_alike, compare, fewest_two, software
from lab.study.estimates import factors_in_words
from lab.study.manifest import Manifest


@click.command("compare", short_help="Put runs beside the first of them, with intervals.")
@click.argument("runs", nargs=-1, metavar="RUN RUN...")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(runs: tuple[str, ...], form: str) -> int:
    """Put each RUN beside the first: machines, software, and what differs, with intervals.

    Numbers that both state for the same factors are compared, as ratios. All intervals hold together.
    """
    opened = [open_for_reading(run) for run in fewest_two(runs)]
    check_alike([run.manifest for run in opened])
    stated = {run.run_id: estimates(run) for run in {run.run_id: run for run in opened}.values()}
    found = compare([(run.run_id, stated[run.run_id]) for run in opened])
    about = [run.manifest for run in opened]
    write_out(json.dumps(_findings(found, about), indent=2) if form == "json" else _text(found, about))
    return 0


def _findings(found: Comparison, about: list[Manifest]) -> dict[str, Any]:
    return {
        "runs": [manifest.run_id for manifest in about],
        "machines": [manifest.machine.model_dump() for manifest in about],
        "differences": [asdict(difference) for difference in found.differences],
        "software": software(about),
        "left_out": list(found.left_out),
    }


def _text(found: Comparison, about: list[Manifest]) -> str:
    lines = [f"{manifest.run_id}: {manifest.machine}" for manifest in about]
    changed = (
        f"{row['name']} {' / '.join(str(version or 'none') for version in row['versions'])}"
        for row in software(about)
    )
    lines.append(f"Software that differs: {'; '.join(changed) or 'none'}")
    lines += [f"Not compared, {line}" for line in found.left_out]
    if found.family:
        sure = units.percent(CONFIDENCE)
        together = f"the {found.family} intervals hold together with {sure} (Bonferroni)"
        lines += ["", f"Ratios to {about[0].run_id}; {together}:"]
    lines += [f"  {_told(difference)}" for difference in found.differences if difference.told is not None]
    told = sum(difference.told is True for difference in found.differences)
    untold = sum(difference.told is None for difference in found.differences)
    lines += ["", f"{told or 'No'} {'difference' if told == 1 else 'differences'} told."]
    if untold:
        lines.append(
            f"{units.counted(untold, 'number')} cannot be told: too few blocks, or bounds of a search."
        )
    return "\n".join(lines)


def _told(found: Difference) -> str:
    name = f"{found.run}, {found.experiment}: {found.quantity} ({factors_in_words(found.factors)})"
    span = f"{found.ratio:.3g} ({found.low:.3g} to {found.high:.3g})"
    return f"{name}: {span}: {found.in_words}"
