"""The runs of this folder of data: begun, opened, found, and checked for damage."""

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import files
from lab.errors import LabError
from lab.study import manifest as manifests
from lab.study.manifest import NEW, Manifest
from lab.study.run import Run
from lab.study.store import Store, partial_files

log = logging.getLogger(__name__)


def open_run(
    run_id: str = "",
    *,
    profile: str = "",
    notebooks: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    host_label: str = "",
) -> Run:
    """Open a run to read it, add to it or resume it; begin it if it does not exist yet.

    Without an id, notebooks opened by hand share one run: the newest that was begun this way today, on this
    machine, by this version. `new` begins another. `profile`, `notebooks`, `parameters` and what the machine
    is called, `host_label`, are kept in the manifest of a new run; with a profile and no id, a run is always
    new. Raises UsageError if the id cannot name a folder, LabError if the folder is not a run, is damaged, or
    cannot be written.
    """
    name = files.named(_of_today() if not run_id and not profile else run_id or NEW)
    if name == NEW:
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"  # as _UNNAMED has it
    folder = files.data() / name
    if _is_new(folder):
        manifest = manifests.new_manifest(
            name,
            profile=profile,
            notebooks=tuple(notebooks),
            parameters=dict(parameters or {}),
            host_label=host_label,
        )
        manifests.write_manifest(folder, manifest)
    run = Run(folder)
    _ = run.manifest  # a damaged one should fail now, not after an hour
    return run


def run_in(folder: Path) -> Run:
    """Open the run in a folder, wherever that is, to read it. Raises LabError if there is none."""
    run = Run(folder.resolve())
    _ = run.manifest
    return run


_UNNAMED = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
"""The id of a run that nobody named."""


def _of_today() -> str:
    """Return the id of the run that notebooks opened by hand share today, or `NEW`."""
    today = datetime.now().astimezone().date()
    shared = (
        run.run_id
        for run in find_runs()
        if not run.profile
        and _UNNAMED.fullmatch(run.run_id)
        and run.started_at.astimezone().date() == today
        and not (manifests.other_machine(run) or manifests.other_version(run))
    )
    return next(shared, NEW)


def _is_new(folder: Path) -> bool:
    """Say whether there is nothing yet, or only what a kill at the very start left behind."""
    return not folder.exists() or set(folder.iterdir()) <= set(partial_files(folder))


def find_runs() -> list[Manifest]:
    """Return the manifests of all runs, newest first; a damaged one is logged and left out."""
    found, complaints = _read_all()
    for complaint in complaints:
        log.warning("%s", complaint)
    return sorted(found, key=lambda manifest: manifest.started_at, reverse=True)


def damage() -> list[str]:
    """Check every run: return a line per unreadable manifest, and per file that differs from its checksum.

    Only a complete run has checksums.
    """
    found, lines = _read_all()
    for run_id in sorted(manifest.run_id for manifest in found if manifest.state == "complete"):
        lines += [f"{run_id}: {line}" for line in Store(files.data() / run_id).damage()]
    return lines


def _read_all() -> tuple[list[Manifest], list[str]]:
    found, complaints = [], []
    for path in sorted(files.data().glob(f"*/{manifests.NAME}")):
        try:
            found.append(manifests.read_manifest(path.parent))
        except LabError as error:
            complaints.append(str(error))
    return found, complaints


def unfinished_run(profile: str, notebooks: Sequence[str], parameters: Mapping[str, Any]) -> Manifest | None:
    """Return the newest unfinished run of this profile, notebooks and changed parameters, or None."""
    asked = (profile, tuple(notebooks), dict(parameters))
    matching = (
        run
        for run in find_runs()
        if run.state == "unfinished" and (run.profile, run.notebooks, run.parameters) == asked
    )
    return next(matching, None)
