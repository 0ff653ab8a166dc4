"""Files that exist whole or not at all: written beside their place, then renamed; checked when read."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lab.errors import LabError

_TEMPORARY = ".partial"


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`, or leave what was there: a kill or a full disk never leaves a part of it.

    Raises LabError if the folder is not writable or the disk is full.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY}")
    try:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn what the system says when `path` cannot be written into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise LabError(
            f"cannot write {path}: {error.strerror}; free some space there, or set SCALING_LAB_HOME to a"
            " folder that can be written"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut: it is the folder that holds the name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_files(folder: Path) -> list[Path]:
    """List what a kill in the middle of writing left under `folder`, by this module or by `records`."""
    return [*{*folder.rglob(f".*{_TEMPORARY}"), *folder.rglob(".*.parquet.*")}]


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Read a Parquet file whose columns include those of `schema`.

    Raises LabError if it is not whole, or not such a table.
    """
    table = _reading(path, lambda: pq.read_table(path))
    for field in schema or ():
        if field.name not in table.schema.names or table.schema.field(field.name).type != field.type:
            raise LabError(
                f"{path} is no table of this study: it lacks the column {field.name} ({field.type})"
            )
    return table


def _reading(path: Path, read: Callable[[], pa.Table]) -> pa.Table:
    try:
        return read()
    except FileNotFoundError:
        raise LabError(f"{path} is missing: delete the run, or restore the file") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise LabError(
            f"{path} is damaged ({reason}): delete it to measure it again, or restore it"
        ) from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
