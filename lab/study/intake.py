"""Tables that somebody else sends: whether each is one of a run's, and small enough to be read.

They are read in a process of its own, which such a file may crash or fill.
"""

import json
import re
import resource
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lab.errors import LabError, one_line
from lab.files import TABLE
from lab.load import records
from lab.study.plan import BEFORE, EVENTS, FLAGS, NOT_LABELS, TRIALS

MOST_ROWS = 10_000_000
"""Of a table: an hour at 2,777/s."""

MOST_BYTES = 1 << 30
"""Of a table in memory."""

_MOST_CPU_S = 600
_AT_ONCE = 2

_MOST_COLUMNS = 200
_MOST_CELLS = 100_000_000
_MOST_COUNTED = 1_000_000
_LONGEST_TEXT = 200


class UnfitError(LabError):
    """What somebody sent is not a run, or is too large for one."""


def check_table(name: str, content: bytes) -> None:
    """Check that a file is the table of a run that its name says, by its columns and its size.

    It is decoded for that, but never unpickled. Raises UnfitError if it is not, or is damaged.
    """
    if not (named := TABLE.fullmatch(name)):
        raise UnfitError(f"{name!r} is no file of a run")
    try:
        _check(name, named["kind"], named["stem"], content)
    except UnfitError:
        raise
    except Exception as error:  # a file that is made to do harm may make its reader raise anything
        raise UnfitError(f"{name} cannot be read ({one_line(error)[:200]})") from error


def _check(name: str, kind: str, stem: str, content: bytes) -> None:
    file = pq.ParquetFile(pa.BufferReader(content))
    _check_size(name, file.metadata)
    of_name = stem if kind == "tables" else ""
    if wrong := _misfit(kind, of_name, file.schema_arrow.remove_metadata()):
        raise UnfitError(f"{name} {wrong}")
    table = file.read(use_threads=False)
    if table.nbytes > MOST_BYTES:
        raise UnfitError(f"{name} takes {table.nbytes:,} bytes of memory, more than any table of a run")
    if kind == "trials":
        _check_trial(name, stem, table)
    for column in _shown(kind, of_name, table.schema):
        for text in table[column].unique().to_pylist():
            _check_text(name, column, text)


def _shown(kind: str, stem: str, schema: pa.Schema) -> list[str]:
    """Name the texts of a table, not of a trial, that name what was measured, in figures too."""
    if kind == "trials":
        return []
    needed, _ = _columns_of(kind, stem)
    return [field.name for field in schema if field.name in set(needed) - _PROSE and _is_text(field.type)]


def _check_size(name: str, about: pq.FileMetaData) -> None:
    rows, columns = about.num_rows, about.num_columns
    if rows > MOST_ROWS or columns > _MOST_COLUMNS or rows * columns > _MOST_CELLS:
        raise UnfitError(f"{name} has {rows:,} rows and {columns:,} columns, more than any table of a run")
    groups = (about.row_group(index) for index in range(about.num_row_groups))
    cells = sum(group.column(index).num_values for group in groups for index in range(columns))
    if cells > _MOST_CELLS:
        raise UnfitError(f"{name} has {cells:,} values, more than any table of a run")


@lru_cache(maxsize=64)
def _misfit(kind: str, stem: str, schema: pa.Schema) -> str:
    """Say what is wrong with the columns of such a table; "" if nothing is."""
    if len(set(schema.names)) < len(schema.names):
        return "has two columns of one name"
    if kind == "requests":
        return "" if records.is_schema(schema) else "does not hold request records"
    needed, others = _columns_of(kind, stem)
    found = {field.name: _what(field.type) for field in schema}
    for column, what in needed.items():
        if found.get(column) != what:
            return f"is not a table of this study: it lacks the column {column} ({what})"
    odd = [column for column, what in found.items() if column not in needed and what not in others]
    return f"has a column {odd[0]!r}, as no table of a run has" if odd else ""


_SEARCH = dict.fromkeys(("topology", "dispatch", "objective", "arrivals", "reason"), "text")
_SEARCH |= dict.fromkeys(("workers", "iterations", "slo_percentile"), "whole number")
_SEARCH |= dict.fromkeys(("rate", "lower_rps", "upper_rps"), "number")
_SEARCH |= dict.fromkeys(("lower_share", "upper_share", "slo_loops"), "number")
_SEARCH |= {"consistent": "truth"}
_PROSE = {"reason", "detail"}
"""Columns with sentences, which pages show as text, and figures do not."""

_LOOP = {"wall_s": "number", "cpu_s": "number"}
_TABLES: dict[str, dict[str, str]] = {
    "loop-": _LOOP,
    "hot-loop-": _LOOP | {"kernel": "text", "iterations": "whole number", "repeat": "whole number"},
    "sustained-predicted-": {"sustained": "number"},
    "sustained-": _SEARCH,
}
"""What each kept table must have, by how its name begins; further columns may be of any plain kind."""

_CALIBRATION = {"block": "whole number", "kernel": "text", "iterations": "whole number"}
_CALIBRATION |= {"at": "time", "loop_s": "number"}
_LABELS = {"text", "whole number", "number", "truth"}
_PLAIN = _LABELS | {"time", "flags", "list", "nothing"}
_FLAG = [field.name for field in FLAGS.value_type]


_NEVER_EMPTY = [
    field.name
    for field in TRIALS
    if field.name not in BEFORE and str(field.type) in ("string", "int64", "bool")
]


def _columns_of(kind: str, stem: str) -> tuple[Mapping[str, str], set[str]]:
    """Return the columns that such a table must have, and of which kinds others may be."""
    if kind == "trials":
        return {field.name: _what(field.type) for field in TRIALS if field.name not in BEFORE}, _LABELS
    if kind == "events":
        return {field.name: _what(field.type) for field in EVENTS}, set()
    if kind == "calibrations":
        return _CALIBRATION, set()
    if kind == "asked":
        return {"trial_id": "text"}, set()
    return next((columns for begin, columns in _TABLES.items() if stem.startswith(begin)), {}), _PLAIN


def _what(kind: pa.DataType) -> str:
    """Return what values of a type are, or the type's own name if no table of ours has such."""
    if pa.types.is_list(kind):
        one = kind.value_type
        if pa.types.is_null(one) or (pa.types.is_struct(one) and [f.name for f in one] == _FLAG):
            return "flags"
        return "list" if _what(one) in _LABELS else str(kind)
    if _is_text(kind):
        return "text"
    if pa.types.is_timestamp(kind) and kind.tz:
        return "time"
    if pa.types.is_integer(kind):
        return "whole number"
    if pa.types.is_floating(kind):
        return "number"
    return {"bool": "truth", "null": "nothing"}.get(str(kind), str(kind))


def _is_text(kind: pa.DataType) -> bool:
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(values) or pa.types.is_large_string(values))


def _check_trial(name: str, stem: str, table: pa.Table) -> None:
    if table.num_rows != 1:
        raise UnfitError(f"{name} has {table.num_rows:,} rows: a trial has one")
    for column in table.schema.names:
        if column not in NOT_LABELS and not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", column):
            raise UnfitError(f"{name} has a column {column!r}, as no trial has")
    if empty := [column for column in _NEVER_EMPTY if table[column].null_count]:
        raise UnfitError(f"{name} lacks a value for {empty[0]}")
    texts = [field.name for field in table.schema if _is_text(field.type)]
    row: dict[str, Any] = table.select([*texts, "workers", "block", "flags"]).to_pylist()[0]
    if (row["trial_id"], row["experiment"]) != (stem, stem.partition(".")[0]):
        raise UnfitError(f"{name} holds another trial, {row['trial_id']!r}")
    if not (1 <= row["workers"] <= _MOST_COUNTED and 1 <= row["block"] <= _MOST_COUNTED):
        raise UnfitError(f"{name} has {row['workers']:,} workers in block {row['block']:,}")
    for column in texts:
        _check_text(name, column, row[column])
    for flag in row["flags"]:
        _check_text(name, "flags", flag["code"])


def _check_text(name: str, column: str, text: str | None) -> None:
    """Check that a text is plain: it may be shown anywhere, in a terminal as in a page or a figure."""
    if text and (len(text) > _LONGEST_TEXT or not text.isprintable() or set(text) & set("<>$`*[]|\\")):
        raise UnfitError(f"{name} has a text that is not plain in {column}: {json.dumps(text[:40])}")


def _main(folder: Path, memory_bytes: int) -> None:
    """Print what is wrong with the first table that is wrong, of those that stdin names, a line each."""
    _limit(resource.RLIMIT_DATA, memory_bytes)
    _limit(resource.RLIMIT_CPU, _MOST_CPU_S)
    _limit(resource.RLIMIT_CORE, 0)
    names = (line.rstrip("\n") for line in sys.stdin)
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda name: check_table(name, (folder / name).read_bytes()), names):
                pass
    except UnfitError as error:
        print(error)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
