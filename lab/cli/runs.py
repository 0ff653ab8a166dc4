"""`lab runs`: what has been measured here, newest first, and whether its files are intact."""

import json
from typing import Any

import click

from lab import files
from lab.streams import tell, write_out
from lab.study.manifest import Manifest
from lab.study.runs import damage, find_runs
from lab.study.store import Store


@click.command("runs", short_help="List the runs, newest first, or check their files.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--check", is_flag=True, help="List what is damaged or altered; status 1 if anything is.")
def command(form: str, check: bool) -> int:
    """List the runs, newest first; with --check, compare the files of complete ones with their checksums.

    A run that notebooks began by hand stays open: more can be added to it.
    """
    return _check(form) if check else _list(form)


def _check(form: str) -> int:
    lines = damage()
    if form == "json":
        write_out(json.dumps(lines, indent=2))
    else:
        (write_out if lines else tell)("\n".join(lines) or "every complete run is intact")
    return 1 if lines else 0


def _list(form: str) -> int:
    found = find_runs()
    if form == "json":
        rows = [_row(one) | {"machine": one.machine.model_dump()} for one in found]
        write_out(json.dumps(rows, indent=2))
    elif found:
        write_out(_table([_row(one) | {"machine": str(one.machine)} for one in found]))
    else:
        tell("no runs yet: `lab study` makes one")
    return 0


def _row(manifest: Manifest) -> dict[str, Any]:
    return {
        "run": manifest.run_id,
        "profile": manifest.profile or "-",
        "state": manifest.status,
        "trials": len(Store(files.data() / manifest.run_id).trial_ids()),
        "started": manifest.started_at.isoformat(sep=" ", timespec="seconds"),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)
