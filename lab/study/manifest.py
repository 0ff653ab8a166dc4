"""A run's manifest: where, when and with what it was measured, and the checksum of each file."""

import functools
import hashlib
import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from lab import files
from lab.errors import LabError
from lab.files import write_whole
from lab.machine import Machine, describe

NAME = "manifest.json"

NEW = "new"
"""What to give instead of a run's id to begin a new run."""


class Manifest(BaseModel):
    """The contents of `manifest.json`; `files` maps each file of a complete run to its SHA-256.

    `imported_at` says when the run was taken in from another home; None for a run measured here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1, 2] = 2
    run_id: str
    profile: str
    notebooks: tuple[str, ...]
    parameters: dict[str, Any]
    state: Literal["unfinished", "complete"] = "unfinished"
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    git_commit: str | None
    git_dirty: bool | None
    packages: dict[str, str]
    machine: Machine
    files: dict[str, str] = {}
    imported_at: AwareDatetime | None = None

    @property
    def status(self) -> str:
        """A word: a run that notebooks opened by hand is open, as it has no end at which it is complete."""
        return self.state if self.profile or self.state == "complete" else "open"

    def completed(self, files: dict[str, str]) -> "Manifest":
        """Return the manifest of the same run, finished now with these files."""
        return self.model_copy(update={"state": "complete", "finished_at": datetime.now(UTC), "files": files})

    def reopened(self) -> "Manifest":
        """Return the manifest of the same run, about to be added to."""
        return self.model_copy(update={"state": "unfinished", "finished_at": None, "files": {}})


def new_manifest(
    run_id: str,
    *,
    profile: str,
    notebooks: tuple[str, ...],
    parameters: dict[str, Any],
    host_label: str = "",
) -> Manifest:
    """Describe a run that starts here and now, on a machine of that name."""
    commit, dirty = _git_state(files.checkout())
    return Manifest(
        run_id=run_id,
        profile=profile,
        notebooks=notebooks,
        parameters=parameters,
        started_at=datetime.now(UTC),
        git_commit=commit,
        git_dirty=dirty,
        packages=_packages(),
        machine=describe(label=host_label),
    )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the run in `folder`.

    Raises LabError if it is missing, damaged or of another kind, or if it belongs to another run.
    """
    path = folder / NAME
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise LabError(f"{folder} is not a run: it has no {NAME}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise LabError(
            f"{path} is damaged or of another version ({where + ': ' if where else ''}{first['msg']}):"
            " restore it, or delete the run"
        ) from error
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from error
    if manifest.run_id != folder.name:
        raise LabError(f"{path} belongs to run {manifest.run_id}: rename the folder back to that")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of the run in `folder`, whole or not at all."""
    write_whole(folder / NAME, (manifest.model_dump_json(indent=2) + "\n").encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def takes_nothing_more(manifest: Manifest, folder: Path) -> str:
    """Say why nothing can be added to the run in `folder`, and what to do instead; "" if something can.

    What is committed with the code, and complete, changes only as a whole.
    """
    if difference := other_machine(manifest):
        return f"{difference}; begin a new run"
    if folder == files.reference() and manifest.state == "complete":
        return f"it is committed with the code; begin a new run, or delete {folder} to measure it anew"
    return ""


def other_machine(manifest: Manifest) -> str:
    """Say how the machine on which the run began differs from this one now; "" if it does not.

    One that was imported began elsewhere, however alike the machines are.

    The size of the memory does not count: it changes a little from boot to boot, and the loop needs none.
    Neither does what its owner calls it.
    """
    if manifest.imported_at:
        return f"it was imported on {manifest.imported_at:%Y-%m-%d}"
    then, now = (
        machine.model_dump(exclude={"memory_bytes", "label"}) for machine in (manifest.machine, describe())
    )
    return _differences("on another machine", then, now)


def other_version(manifest: Manifest) -> str:
    """Say how the version of the lab, or of packages, with which the run began differs; "" if it does not."""
    then = {"commit": manifest.git_commit, **manifest.packages}
    now = {"commit": _git_state(files.checkout())[0], **_packages()}
    return _differences("by another version", then, now)


def _differences(what: str, then: Mapping[str, object], now: Mapping[str, object]) -> str:
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    told = ", ".join(f"{name} {then.get(name)}, here {now.get(name)}" for name in changed)
    return f"it was begun {what} ({told})" if changed else ""


@functools.cache
def _packages() -> dict[str, str]:
    """Return the versions of this distribution and of those it needs, as far as they are installed."""
    needed = ["scaling-lab", *(importlib.metadata.requires("scaling-lab") or ())]
    names = sorted({re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needed if "extra ==" not in need})
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git_state(folder: Path | None) -> tuple[str | None, bool | None]:
    """Return a checkout's commit, and whether tracked files differ from it; None where git cannot tell."""
    git = shutil.which("git")
    if git is None or folder is None:
        return None, None

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain", "--untracked-files=no"))
    except subprocess.CalledProcessError:
        return None, None
