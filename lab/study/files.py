"""A run's files: tables that are checked when read, their checksums, and what a kill left of them."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lab.errors import LabError
from lab.files import TEMPORARY, write_whole


def partial_files(folder: Path) -> list[Path]:
    """List what a kill in the middle of writing left under `folder`."""
    return list(folder.rglob(f".*{TEMPORARY}"))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())


def read_table(
    path: Path, schema: pa.Schema | None = None, before: Mapping[str, object] | None = None
) -> pa.Table:
    """Read a Parquet file whose columns include those of `schema`; `before` fills those that came later.

    Raises LabError if it is not whole, or not such a table.
    """
    table = _reading(path, lambda: pq.read_table(path))
    for field in schema or ():
        if before and field.name in before and field.name not in table.schema.names:
            column = pa.array([before[field.name]] * table.num_rows, field.type)
            table = table.append_column(field, column)
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
