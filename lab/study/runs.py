"""Which runs there are, by their manifests, and whether they still are what they were."""

import logging
from collections.abc import Sequence

from lab import paths
from lab.errors import LabError
from lab.study import manifest as manifests
from lab.study.manifest import Manifest
from lab.study.store import Store

log = logging.getLogger(__name__)


def find_runs() -> list[Manifest]:
    """Return the manifests of all runs, newest first; a damaged one is logged and left out."""
    found, complaints = _read_all()
    for complaint in complaints:
        log.warning("%s", complaint)
    return sorted(found, key=lambda manifest: manifest.started_at, reverse=True)


def damage() -> list[str]:
    """Check every run: a line per manifest that cannot be read, and per file that its checksum denies.

    Only a complete run has checksums.
    """
    found, lines = _read_all()
    for run_id in sorted(manifest.run_id for manifest in found if manifest.state == "complete"):
        lines += [f"{run_id}: {line}" for line in Store(paths.data() / run_id).damage()]
    return lines


def _read_all() -> tuple[list[Manifest], list[str]]:
    found, complaints = [], []
    for path in sorted(paths.data().glob(f"*/{manifests.NAME}")):
        try:
            found.append(manifests.read_manifest(path.parent))
        except LabError as error:
            complaints.append(str(error))
    return found, complaints


def unfinished_run(profile: str, notebooks: Sequence[str]) -> Manifest | None:
    """Return the newest unfinished run of this profile and these notebooks, or None."""
    matching = (
        run
        for run in find_runs()
        if run.state == "unfinished" and run.profile == profile and run.notebooks == tuple(notebooks)
    )
    return next(matching, None)
