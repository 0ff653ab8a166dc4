"""The columns of a request record: their schema, and files of records, written whole or not at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lab.errors import LabError, UsageError
from lab.files import replacing
from lab.load.log import OUTCOMES, Outcome

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = pa.schema(
    [
        pa.field("due_s", pa.float64(), nullable=False),
        pa.field("sent_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("outcome", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("status", pa.int16()),
        pa.field("service_s", pa.float64()),
        pa.field("service_cpu_s", pa.float64()),
        pa.field("worker", pa.int32()),
        pa.field("bytes_in", pa.int64()),
    ]
)
"""A row per planned request, with times in seconds from the start on one clock; null for what did not happen.

`sent_s` is when sending began: before the connection was made, if it needed a new one. `service_s` and
`service_cpu_s` are what the server says of its loop: wall time and CPU time.
"""

_CPU_AT = SCHEMA.get_field_index("service_cpu_s")
_BEFORE_CPU_TIME = SCHEMA.remove(_CPU_AT)
"""The columns of files that are older than `service_cpu_s`."""


def is_schema(schema: pa.Schema) -> bool:
    """Say whether these are the columns of request records, today's or those of an earlier version."""
    return bool(schema.equals(SCHEMA) or schema.equals(_BEFORE_CPU_TIME))


WHOLE = ("status", "worker", "bytes_in")
"""Whole numbers that may be missing, which makes them float64 in a frame."""

_METADATA = b"scaling-lab"
_LONGEST_S = 1e10
"""Beyond this, sums of times may overflow."""
_NEVER_SENT = OUTCOMES[Outcome.DROPPED]
_NEVER_ENDED = (_NEVER_SENT, OUTCOMES[Outcome.UNFINISHED])


def to_frame(due_s: NDArray[np.float64], columns: Mapping[str, NDArray[Any]]) -> "pd.DataFrame":
    """Return a generator's log as request records: what did not happen becomes NaN."""
    import pandas as pd  # takes most of a second, which an import of a run has no use for

    outcome = columns["outcome"]
    frame = {
        "due_s": due_s,
        "sent_s": columns["sent_s"],
        "end_s": columns["end_s"],
        "outcome": pd.Categorical.from_codes(
            outcome.astype(np.int8), dtype=pd.CategoricalDtype(list(OUTCOMES))
        ),
        "status": _where(columns["status"], columns["status"] > 0),
        "service_s": columns["service_s"],
        "service_cpu_s": columns["service_cpu_s"],
        "worker": _where(columns["worker"], columns["worker"] > 0),
        "bytes_in": _where(columns["bytes_in"], outcome != Outcome.DROPPED),
    }
    return pd.DataFrame(frame, copy=False)


def _where(values: NDArray[Any], holds: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(holds, values, np.nan)


def validate(requests: "pd.DataFrame") -> None:
    """Raise UsageError unless these are request records: columns, outcomes, finite and ordered times."""
    if list(requests.columns) != SCHEMA.names:
        raise UsageError(f"not request records: columns must be {SCHEMA.names}, got {list(requests.columns)}")
    outcome = requests["outcome"]
    if unknown := set(outcome.unique()) - set(OUTCOMES):
        raise UsageError(f"not request records: unknown outcome {sorted(map(str, unknown))[0]!r}")
    due, sent, end = (requests[name].to_numpy(np.float64) for name in ("due_s", "sent_s", "end_s"))
    never_sent, never_ended = (outcome == _NEVER_SENT).to_numpy(), outcome.isin(_NEVER_ENDED).to_numpy()
    checks = {
        "a due time is missing or infinite": np.isfinite(due).all(),
        "a time is longer than any attack": not (np.abs([due, sent, end]) > _LONGEST_S).any(),
        "due times are not in order": (np.diff(due) >= 0).all(),
        "a sent request has no send time, or an unsent one has one": (np.isfinite(sent) != never_sent).all(),
        "an ended request has no end time, or an open one has one": (np.isfinite(end) != never_ended).all(),
        "a request was sent before it was due": not (sent < due).any(),
        "a request ended before it was sent": not (end < sent).any(),
    }
    for problem, holds in checks.items():
        if not holds:
            raise UsageError(f"not request records: {problem}")


def write(path: str | Path, requests: "pd.DataFrame", metadata: Mapping[str, Any] | None = None) -> None:
    """Write records, and metadata in JSON, to a Parquet file: whole, or not at all.

    Raises UsageError if they are not request records, LabError if the file cannot be written.
    """
    validate(requests)
    table = pa.Table.from_pandas(requests, SCHEMA, preserve_index=False)
    table = table.replace_schema_metadata({_METADATA: json.dumps(dict(metadata or {}))})
    with replacing(Path(path)) as file:
        pq.write_table(table, file)


def read(path: str | Path) -> "pd.DataFrame":
    """Return the records of a file that `write` wrote. Raises LabError if it is anything else."""
    return read_with_metadata(path)[0]


def read_with_metadata(path: str | Path) -> "tuple[pd.DataFrame, dict[str, Any]]":
    """Return the records of a file, and their metadata. Raises LabError as `read` does."""
    with _reading(path), Path(path).open("rb") as file:
        table = pq.ParquetFile(file).read()
        if table.schema.equals(_BEFORE_CPU_TIME):
            table = table.add_column(_CPU_AT, SCHEMA.field(_CPU_AT), pa.nulls(len(table), pa.float64()))
        if not table.schema.equals(SCHEMA):
            raise UsageError(f"not request records: columns {table.schema.names}")
        requests = table.replace_schema_metadata().to_pandas().astype(dict.fromkeys(WHOLE, "float64"))
        validate(requests)
        kept = json.loads((table.schema.metadata or {}).get(_METADATA, b"{}"))
        json.dumps(kept, allow_nan=False)  # refuse what JSON does not know as a number
        return requests, kept


def glimpse(path: str | Path, rows: int = 0) -> "tuple[int, pd.DataFrame]":
    """Return how many records a file holds, and the first of them, without reading the rest.

    Raises LabError as `read` does; but what is not read is not validated either.
    """
    with _reading(path), Path(path).open("rb") as file:
        kept = pq.ParquetFile(file)
        first = next(kept.iter_batches(rows), None) if rows else None
        shown = kept.schema_arrow.empty_table() if first is None else pa.Table.from_batches([first])
        return kept.metadata.num_rows, shown.to_pandas()


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Turn whatever is wrong with a file of records into one line."""
    try:
        yield
    except FileNotFoundError:
        raise LabError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise LabError(f"cannot read {path}: it is a folder; name a file in it") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (getattr(error, "strerror", None) or str(error)).split("\n")[0].rstrip(".")
        raise LabError(
            f"cannot read {path}: {reason}; was it written by lab attack --out, and to its end?"
        ) from None
