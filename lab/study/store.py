"""One run's folder: `trials/`, `requests/` and `events/` by trial, `calibrations/`, `tables/`, manifest.

A trial exists once its file in `trials/` does; its requests and events are written first. Whatever else a
kill leaves behind is removed by the next process that takes the lock. Only writers take it, so a run can be
read at any time.
"""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lab.errors import LabError
from lab.files import TEMPORARY, tables_in, write_whole, writing_to
from lab.flags import Flag
from lab.load import records
from lab.study import manifest as manifests
from lab.study.manifest import Manifest, sha256
from lab.study.plan import BEFORE, EVENTS, FLAGS, LOOP, TRIALS, Event


def partial_files(folder: Path) -> list[Path]:
    """List what a kill during writing left under `folder`."""
    return list(folder.rglob(f".*{TEMPORARY}"))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())


def read_table(
    path: Path, schema: pa.Schema | None = None, before: Mapping[str, object] | None = None
) -> pa.Table:
    """Read a Parquet file whose columns include those of `schema`; `before` fills those added later.

    Raises LabError if it is damaged, or not such a table.
    """
    return _checked(_reading(path, lambda: pq.ParquetFile(path).read()), path, schema, before)


def _checked(
    table: pa.Table, path: Path, schema: pa.Schema | None, before: Mapping[str, object] | None
) -> pa.Table:
    """Return a table with the columns of `schema`. Raises LabError if it lacks one."""
    for field in schema or ():
        if before and field.name in before and field.name not in table.schema.names:
            column = pa.array([before[field.name]] * table.num_rows, field.type)
            table = table.append_column(field, column)
        if field.name not in table.schema.names or table.schema.field(field.name).type != field.type:
            raise LabError(
                f"{path} is not a table of this study: it lacks the column {field.name} ({field.type})"
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


_LOCK = ".lock"
_COST = [*LOOP, "service_cpu_p50_s"]


class Store:
    """Reads and writes the folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locked = False
        self._costs: dict[str, dict[str, Any]] = {}

    def manifest(self) -> Manifest:
        return manifests.read_manifest(self.folder)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run for writing; it may be nested within the same store.

        Raises LabError if another process holds it.
        """
        if self._locked:
            yield
            return
        with writing_to(self.folder):
            lock = (self.folder / _LOCK).open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LabError(
                    f"run {self.folder.name} is being measured by another process: wait, or use another run"
                ) from None
            self._locked = True
            try:
                self._tidy()
                yield
            finally:
                self._locked = False

    def added_at(self) -> float:
        """Return when the run was last opened for adding, in seconds since 1970; 0 if never."""
        lock = self.folder / _LOCK
        return lock.stat().st_mtime if lock.exists() else 0.0

    def _tidy(self) -> None:
        """Remove what a kill left: partial files, and files of a trial that never finished."""
        for path in partial_files(self.folder):
            path.unlink()
        finished = self.trial_ids()
        for kind in ("requests", "events"):
            for path in (self.folder / kind).glob("*.parquet"):
                if path.stem not in finished:
                    path.unlink()
        if (manifest := self.manifest()).state == "complete":
            manifests.write_manifest(self.folder, manifest.reopened())

    def trial_ids(self) -> set[str]:
        """Name the finished trials."""
        return {path.stem for path in (self.folder / "trials").glob("*.parquet")}

    def save_trial(self, row: dict[str, Any], requests: pd.DataFrame, events: pd.DataFrame | None) -> None:
        """Keep a finished trial: first its requests and events, then the row that makes it exist."""
        trial_id = row["trial_id"]
        labels = {name: value for name, value in row.items() if name not in TRIALS.names}
        columns = [pa.array([row[field.name]], field.type) for field in TRIALS]
        table = pa.table(columns, schema=TRIALS)
        for name, value in labels.items():
            table = table.append_column(name, pa.array([value]))
        self._save_requests(trial_id, requests)
        if events is not None:
            write_table(
                self._path("events", trial_id), pa.Table.from_pandas(events, EVENTS, preserve_index=False)
            )
        write_table(self._path("trials", trial_id), table)

    def _save_requests(self, trial_id: str, requests: pd.DataFrame) -> None:
        path = self._path("requests", trial_id)
        with writing_to(path):
            path.parent.mkdir(exist_ok=True)
        records.write(path, requests, {"trial_id": trial_id})

    def trials(self, experiment: str) -> pd.DataFrame:
        """Read the trials of an experiment; labels that a trial lacks are empty."""
        tables = [_read_trial(path) for path in self._of("trials", experiment)]
        known = pa.concat_tables([TRIALS.empty_table(), *(table.select(TRIALS.names) for table in tables)])
        labels = [table.drop_columns(TRIALS.names).to_pylist()[0] for table in tables]
        return pd.concat([_frame(known), pd.DataFrame(labels)], axis=1)

    def newest_trial(self) -> dict[str, Any] | None:
        """Read the row of the trial that was written last; None if there is none."""
        paths = {path.stat().st_mtime_ns: path for path in (self.folder / "trials").glob("*.parquet")}
        if not paths:
            return None
        row: dict[str, Any] = _read_trial(paths[max(paths)]).to_pylist()[0]
        return row | {"flags": tuple(map(Flag.from_dict, row["flags"]))}

    def costs(self) -> pd.DataFrame:
        """Read what loops cost in every trial of the run: `plan.LOOP` and service_cpu_p50_s."""
        for path in (self.folder / "trials").glob("*.parquet"):
            if path.stem not in self._costs:  # a finished trial never changes
                self._costs[path.stem] = _read_trial(path).select(_COST).to_pylist()[0]
        return pd.DataFrame(self._costs.values(), columns=_COST).astype({"service_cpu_p50_s": float})

    def requests(self, trial_ids: list[str]) -> pd.DataFrame:
        """Read the requests of these trials, with the column `trial_id` in front."""
        frames = {trial_id: records.read(self._path("requests", trial_id)) for trial_id in trial_ids}
        if not frames:
            return _frame(records.SCHEMA.empty_table()).assign(trial_id="")
        return pd.concat(frames, names=["trial_id"]).reset_index("trial_id").reset_index(drop=True)

    def glimpse(self, trial_id: str, rows: int) -> tuple[int, pd.DataFrame]:
        """Return how many requests a trial has, and the first of them."""
        return records.glimpse(self._path("requests", trial_id), rows)

    def events(self, trial_ids: list[str]) -> pd.DataFrame:
        """Read the events of these trials, if any, with the column `trial_id` in front."""
        paths = {trial_id: self._path("events", trial_id) for trial_id in trial_ids}
        frames = [
            _frame(_read_events(path)).assign(trial_id=trial_id)
            for trial_id, path in paths.items()
            if path.exists()
        ]
        known = pd.concat([_frame(EVENTS.empty_table()).assign(trial_id=""), *frames])
        return known[["trial_id", *EVENTS.names]].reset_index(drop=True)

    def save_table(self, kind: str, name: str, frame: pd.DataFrame) -> None:
        """Keep a table as `<kind>/<name>.parquet`; a column `flags` holds flags."""
        if "flags" in frame:
            kept = [[flag.to_dict() for flag in flags] for flags in frame["flags"]]
            frame = frame.assign(flags=pd.Series(kept, frame.index, dtype=object))
        write_table(self._path(kind, name), pa.Table.from_pandas(frame, preserve_index=False))

    def has_table(self, kind: str, name: str) -> bool:
        return self._path(kind, name).exists()

    def by_age(self, kind: str, beginning: str) -> list[str]:
        """Name the tables whose names begin like this, the one written last at the end."""
        found = sorted((self.folder / kind).glob(f"{beginning}*.parquet"), reverse=True)
        return [path.stem for path in sorted(found, key=lambda path: path.stat().st_mtime)]

    def table(self, kind: str, name: str) -> pd.DataFrame:
        return _frame(read_table(self._path(kind, name)))

    def tables(self, kind: str, experiment: str) -> dict[str, pd.DataFrame]:
        """Read the tables of an experiment by name, in the order of their names."""
        return {path.stem: _frame(read_table(path)) for path in self._of(kind, experiment)}

    def names(self, kind: str, experiment: str) -> list[str]:
        return [path.stem for path in self._of(kind, experiment)]

    def seal(self) -> Manifest:
        """Mark the run as complete, with the checksum of each of its tables."""
        with self.writing():
            complete = self.manifest().completed(
                {name: sha256(self.folder / name) for name in tables_in(self.folder)}
            )
            manifests.write_manifest(self.folder, complete)
        return complete

    def damage(self) -> list[str]:
        """Compare a complete run with its manifest: return a line per missing, changed or unknown file."""
        recorded, present = self.manifest().files, tables_in(self.folder)
        missing = [f"{name} is missing" for name in recorded if name not in present]
        unknown = [f"{name} is not in the manifest" for name in present if name not in recorded]
        changed = [
            f"{name} has changed since the run was complete"
            for name, checksum in recorded.items()
            if name in present and sha256(self.folder / name) != checksum
        ]
        return sorted(missing + unknown + changed)

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{name}.parquet"

    def _of(self, kind: str, experiment: str) -> list[Path]:
        return sorted((self.folder / kind).glob(f"{experiment}.*.parquet"))


def _read_trial(path: Path) -> pa.Table:
    """Read a trial's row, once for each state of its file."""
    try:
        state = path.stat()
    except OSError:
        return _read_trial_now(path)  # which says what is wrong
    return _read_trial_of(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _read_trial_of(path: Path, mtime_ns: int, size: int) -> pa.Table:
    return _read_trial_now(path)


def _read_trial_now(path: Path) -> pa.Table:
    """Read a trial's row. Schema version 1 kept sentences; we only note whether there were any."""
    table = _reading(path, lambda: pq.ParquetFile(path).read())
    if "invalid_because" in table.schema.names:
        earlier = [
            [] if valid else [Flag("earlier_version").to_dict()] for valid in table["valid"].to_pylist()
        ]
        table = table.drop_columns("invalid_because").append_column("flags", pa.array(earlier, FLAGS))
    return _checked(table, path, TRIALS, BEFORE)


_ENDED_WELL = {"all replaced", "2 workers accept", "1 has drained", "it is answered"}
"""The texts with which schema version 1 recorded that an action was done."""


def _read_events(path: Path) -> pa.Table:
    """Read a trial's events. Version 1 kept texts: an action's name, then how it ended."""
    table = read_table(path, EVENTS, {"detail": ""})
    texts = table["event"].to_pylist()
    if set(texts) <= set(Event):
        return table
    columns = table.to_pydict() | {"event": list(_codes(texts)), "detail": texts}
    return pa.table(columns, schema=EVENTS)


def _codes(texts: list[str]) -> Iterator[Event]:
    running = False
    for text in texts:
        if not text:
            yield Event.WORKERS
            continue
        yield Event.BEGUN if not running else Event.DONE if text in _ENDED_WELL else Event.FAILED
        running = not running


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.replace_schema_metadata().to_pandas()  # the columns say all there is
    if "flags" in frame:
        kept = [tuple(map(Flag.from_dict, flags)) for flags in table["flags"].to_pylist()]
        frame["flags"] = pd.Series(kept, dtype=object)
    return frame
