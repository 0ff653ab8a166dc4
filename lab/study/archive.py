"""A run in one file, for a colleague, and back: a zip of its manifest and its tables, and of nothing else.

The manifest within says the SHA-256 of every table. What comes back is untrusted: it becomes a run only after
every name, size, hash and table was checked, whole or not at all.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO

from pydantic import ValidationError

from lab import files, processes
from lab.errors import LabError, one_line
from lab.files import KINDS, TABLE, check_writable, replacing, sync, tables_in, writing_to
from lab.study import manifest as manifests
from lab.study.manifest import NEW, Manifest, read_manifest, write_manifest

MOST_BYTES = 1 << 30
"""Of all tables of an archive, unpacked: a thousand times the reference run."""

MOST_FILE_BYTES = 256 << 20
"""Of one table, unpacked."""

MOST_FILES = 20_000
"""The reference run has 300."""

MEMORY_BYTES = 3 << 30
"""What reading the tables may take: a small file may hold a table that is much larger."""

_MOST_MANIFEST_BYTES = 8 << 20
_MOST_DIRECTORY_BYTES = 8 << 20
_LONGEST_TEXT = 300
_AT_ONCE = 8
"""How many files are put on disk at once, which takes a disk hardly longer than one."""

_STAGE = ".import"
"""The folder in which a run is unpacked; at most one import at a time has it."""


class BadArchiveError(LabError):
    """What is wrong with an archive that is not taken in."""


def export_run(run_id: str, out: Path | None = None, *, force: bool = False) -> Path:
    """Pack a run into `out`, or into `<run_id>.zip` here; return where it is.

    Equal runs give equal files. Executed notebooks and figures are left out: they can be remade, and a
    colleague should not have to trust them. Raises UsageError if `run_id` cannot name a run, LabError if
    there is none, if it has changed since it was complete, is too large, if `out` cannot be written, or if it
    is there already and `force` does not say to replace it.
    """
    folder = files.data() / files.named(run_id)
    if not folder.is_dir():
        raise LabError(f"there is no run {run_id!r}: `lab runs` lists them")
    manifest = read_manifest(folder)
    if manifest.schema_version == 1:
        raise LabError(f"run {run_id} was measured by an earlier version: measure again, and export that")
    names = _finished(folder)
    _check_sizes({name: (folder / name).stat().st_size for name in names})
    place = out or Path.cwd() / f"{run_id}.zip"
    if place.exists() and not force:
        raise LabError(f"{place} is there already: name another file, or replace it with --force")
    check_writable(place)
    with replacing(place) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        hashes = {}
        for name in names:
            content = (folder / name).read_bytes()
            hashes[name] = hashlib.sha256(content).hexdigest()
            packed.writestr(_member(name), content)
        if manifest.state == "complete" and hashes != manifest.files:
            raise LabError(f"run {run_id} has changed since it was complete: `lab runs --check` says where")
        told = manifest.model_copy(update={"files": hashes, "imported_at": None})
        packed.writestr(_member(manifests.NAME), told.model_dump_json(indent=2) + "\n")
    return place


def _finished(folder: Path) -> list[str]:
    """Name the tables of a run, without what belongs to a trial that has not finished."""
    kept = []
    for name in tables_in(folder):
        if (found := TABLE.fullmatch(name)) is None:
            raise LabError(f"{folder / name} is no table of a run: move it elsewhere first")
        of_trial = found["kind"] in ("requests", "events")
        if not of_trial or (folder / "trials" / f"{found['stem']}.parquet").exists():
            kept.append(name)
    return kept


def _member(name: str) -> zipfile.ZipInfo:
    """Return an entry that says nothing of when and by whom it was written."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def import_run(file: Path, name: str = "") -> str:
    """Take in the run that `export_run` packed into `file`; return its id, which is `name` if that is given.

    It is kept whole, or not at all. Raises UsageError if the name cannot be one, LabError if there is such a
    run already, if the file is not an archive of a run, or if the run cannot be written.
    """
    asked = files.named(name) if name else ""
    try:
        with _opened(file) as archive, zipfile.ZipFile(archive) as packed:
            entries = _entries(packed)
            manifest = _manifest(_content(packed, entries.pop(manifests.NAME)))
            _check_contents(manifest, set(entries))
            place = _free(asked or manifest.run_id)
            with _staging() as stage:
                _unpack(packed, entries, manifest.files, stage / place.name)
                taken = {"run_id": place.name, "imported_at": datetime.now(UTC)}
                write_manifest(stage / place.name, manifest.model_copy(update=taken))
                with writing_to(place):
                    (stage / place.name).rename(place)
                    sync(place.parent)
    except (BadArchiveError, *_BROKEN) as error:
        raise LabError(f"{file} is not taken in: {one_line(error)}") from error
    return place.name


_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises for a broken file; encrypted ones, and kinds it does not know, are among these."""


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open an archive whose directory is small enough to be read. Raises BadArchiveError or LabError."""
    try:
        archive = file.open("rb")
    except OSError as error:
        raise LabError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from error
    with archive:
        if not stat.S_ISREG(os.fstat(archive.fileno()).st_mode):
            raise BadArchiveError("it is not a regular file")
        _check_directory(archive)
        yield archive


_END = struct.Struct("<4s4H2LH")
"""How a zip ends: signature, two disks, entries here and in all, directory's size and place, comment."""

_BEFORE_END = 20
"""The length of what stands before that if the directory is too large for it."""


def _check_directory(archive: BinaryIO) -> None:
    """Check how large the list of entries is, which is read at once. Raises BadArchiveError."""
    size = archive.seek(0, os.SEEK_END)
    archive.seek(max(0, size - _END.size - _BEFORE_END))
    end = archive.read()
    if len(end) < _END.size or not end[-_END.size :].startswith(b"PK\x05\x06"):
        raise BadArchiveError("it is not a zip, or its end is missing")
    directory_bytes = _END.unpack(end[-_END.size :])[5]
    if directory_bytes > _MOST_DIRECTORY_BYTES or end.startswith(b"PK\x06\x07"):
        raise BadArchiveError("it lists more files than any run has")


def _entries(packed: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name, once each may be unpacked. Raises BadArchiveError."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in packed.infolist():
        name, mode = entry.orig_filename, entry.external_attr >> 16
        if name != manifests.NAME and not TABLE.fullmatch(name):
            raise BadArchiveError(f"{name!r} is no file of a run")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise BadArchiveError(f"{name} is a link, or something else that is not a file")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadArchiveError(f"{name} is packed in another way than `lab export` packs")
        if name in entries:
            raise BadArchiveError(f"{name} is there twice")
        entries[name] = entry
    if manifests.NAME not in entries:
        raise BadArchiveError(f"it has no {manifests.NAME}: it is not a run")
    _check_sizes({name: entry.file_size for name, entry in entries.items()})
    return entries


def _check_sizes(sizes: Mapping[str, int]) -> None:
    """Check that files are few and small enough for an archive. Raises BadArchiveError."""
    most = {name: _MOST_MANIFEST_BYTES if name == manifests.NAME else MOST_FILE_BYTES for name in sizes}
    if large := [name for name, size in sizes.items() if size > most[name]]:
        raise BadArchiveError(f"{large[0]} has {sizes[large[0]]:,} bytes, of at most {most[large[0]]:,}")
    if len(sizes) > MOST_FILES or sum(sizes.values()) > MOST_BYTES:
        raise BadArchiveError(
            f"it has {len(sizes):,} files of {sum(sizes.values()):,} bytes, of at most {MOST_FILES:,} files"
            f" and {MOST_BYTES:,} bytes"
        )


def _content(packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Unpack a file, and never more of it than it says it has. Raises BadArchiveError."""
    with packed.open(entry) as member:
        content = member.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise BadArchiveError(f"{entry.filename} has another size than it says")
    return content


def _manifest(content: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadArchiveError(
            f"its manifest is of another version, or damaged ({where}: {first['msg']})"
        ) from error
    texts = [manifest.profile, *manifest.notebooks, *manifest.packages, *manifest.packages.values()]
    texts += [value for value in manifest.machine.model_dump().values() if isinstance(value, str)]
    if max(map(len, texts)) > _LONGEST_TEXT:
        raise BadArchiveError(f"its manifest has a text of more than {_LONGEST_TEXT} characters")
    return manifest


def _check_contents(manifest: Manifest, names: set[str]) -> None:
    """Check that the files are those of the manifest, and belong to its trials. Raises BadArchiveError."""
    if odd := names ^ manifest.files.keys():
        raise BadArchiveError(f"{min(odd)} is not both in the archive and in its manifest")
    stems = {kind: {Path(name).stem for name in names if name.startswith(f"{kind}/")} for kind in KINDS}
    if odd := (stems["trials"] ^ stems["requests"]) | (stems["events"] - stems["trials"]):
        raise BadArchiveError(f"it has only a part of trial {min(odd)}")


def _free(run_id: str) -> Path:
    """Return where a run of this name goes. Raises LabError if it is taken, or cannot be a name."""
    place = files.data() / files.named(run_id)
    if run_id == NEW or os.path.lexists(place):
        raise LabError(f"there is already a run {run_id}: give this one another name with --as NAME")
    return place


@contextmanager
def _staging() -> Iterator[Path]:
    """Yield an empty, hidden folder beside the runs, and delete it with all that is still in it.

    One that a kill left is deleted first; another import is waited for.
    """
    with writing_to(files.data()):
        files.data().mkdir(parents=True, exist_ok=True)
        lock = os.open(files.data(), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stage = files.data() / _STAGE
        with writing_to(stage):
            if stage.exists():
                shutil.rmtree(stage)
            stage.mkdir()
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    finally:
        os.close(lock)


def _unpack(
    packed: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], hashes: Mapping[str, str], folder: Path
) -> None:
    """Write each table into `folder`, checked. Raises BadArchiveError or LabError."""
    folders = [folder / kind for kind in ("", *KINDS)]
    with writing_to(folder):
        for made in folders:
            made.mkdir()
    with _checking(folder) as names:
        for name, entry in entries.items():
            content = _content(packed, entry)
            if hashlib.sha256(content).hexdigest() != hashes[name]:
                raise BadArchiveError(f"{name} is not what its manifest says (SHA-256)")
            with writing_to(folder / name):
                (folder / name).write_bytes(content)
            _tell(names, name)
        with writing_to(folder), ThreadPoolExecutor(_AT_ONCE) as pool:  # while they are checked
            for _ in pool.map(sync, [folder / name for name in entries] + folders):
                pass


@contextmanager
def _checking(folder: Path) -> Iterator[IO[bytes]]:
    """Have tables in `folder` checked by a process that starts now; yield where it reads their names.

    Raises BadArchiveError at the end if one is not a run's, or ends its reader.
    """
    checker = processes.start(
        "lab.study.intake", str(folder), str(MEMORY_BYTES), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, new_session=False,
    )  # fmt: skip
    assert checker.stdin  # noqa: S101 - a pipe, as asked for
    try:
        yield checker.stdin
        said, _ = checker.communicate()
    finally:
        checker.kill()
        checker.wait()
    if said or checker.returncode:
        ended = f"a table ends its reader ({processes.ending(checker.returncode)})"
        raise BadArchiveError(said.decode(errors="replace").strip() or ended)


def _tell(names: IO[bytes], name: str) -> None:
    """Tell the checker of a table; if it has ended, its status says so later."""
    with suppress(BrokenPipeError):
        names.write(f"{name}\n".encode())
        names.flush()
