"""Files of records hold what was put into them, whole or not at all, and nothing else is taken for one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.load_rows import GENERATOR, any_rows, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.errors import LabError, UsageError
from lab.load import records
from lab.load.attack import Result, summarized
from lab.load.generators import merge, split
from lab.load.log import Outcome

ASKED: dict[str, Any] = {
    "url": "http://127.0.0.1:8000/",
    "arrivals": "constant",
    "rate": 10.0,
    "duration_s": 1.0,
}
ASKED |= {
    "generator": GENERATOR,
    "errors": {"timed out": 1},
    "warmup_errors": {"gone": 1},
    "stopped_s": None,
    "stages": None,
}


def result(requests: pd.DataFrame) -> Result:
    return summarized(requests, **ASKED)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(requests=any_rows)
def test_what_is_written_is_read(requests: pd.DataFrame, tmp_path: Path) -> None:
    records.write(tmp_path / "a.parquet", requests)
    pd.testing.assert_frame_equal(records.read(tmp_path / "a.parquet"), requests)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(requests=any_rows)
def test_a_result_comes_back_with_its_summary(requests: pd.DataFrame, tmp_path: Path) -> None:
    kept = result(requests.assign(**{name: requests[name] - 0.2 for name in ("due_s", "sent_s", "end_s")}))
    kept.save(tmp_path / "a.parquet")
    back = Result.load(tmp_path / "a.parquet")
    assert back.summary == kept.summary
    assert len(back.warmup) == min(2, len(requests))


def test_a_file_of_the_version_before_is_read(tmp_path: Path) -> None:
    kept = {name: value for name, value in ASKED.items() if name != "stages"}
    kept |= {"profile": "5/s for 1s", "generator": GENERATOR | {"precedence": True}}
    records.write(tmp_path / "a.parquet", rows([0.1]), kept)
    summary = Result.load(tmp_path / "a.parquet").summary
    assert summary["stages"] == "5/s for 1s"
    assert summary["generator"]["realtime"]


def test_a_glimpse_counts_all_rows_and_reads_the_first(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    records.write(path, rows([0.1] * 50))
    count, first = records.glimpse(path, 2)
    assert (count, len(first)) == (50, 2)
    assert first["due_s"].tolist() == records.read(path)["due_s"].tolist()[:2]
    assert records.glimpse(path)[1].empty
    path.write_bytes(path.read_bytes()[:40])
    for damaged in (path, tmp_path / "none"):
        with pytest.raises(LabError):
            records.glimpse(damaged)


def test_a_file_is_replaced_not_mended(tmp_path: Path) -> None:
    records.write(tmp_path / "a.parquet", rows([0.1] * 50))
    records.write(tmp_path / "a.parquet", rows([0.1]))
    assert len(records.read(tmp_path / "a.parquet")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.parquet"
    records.write(path, rows([0.1] * 50))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LabError, match=r"^cannot read .*a\.parquet: [^\n]*$"):
        records.read(path)


def test_foreign_and_missing_files_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"due_s": [1.0]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(LabError, match="not request records"):
        records.read(tmp_path / "foreign.parquet")
    with pytest.raises(LabError, match="no such file"):
        records.read(tmp_path / "none.parquet")
    records.write(tmp_path / "bare.parquet", rows([0.1]))
    with pytest.raises(LabError, match="it has no url"):
        Result.load(tmp_path / "bare.parquet")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"due_s": [0.0, np.inf, 0.2]}, "missing or infinite"),
        ({"due_s": [0.0, 0.2, 0.1]}, "not in order"),
        ({"end_s": [0.5, 0.6, 1e300]}, "longer than any attack"),
        ({"sent_s": [0.0, 0.05, 0.2]}, "sent before it was due"),
        ({"sent_s": [0.0, np.nan, 0.2]}, "no send time"),
        ({"end_s": [0.0, 0.1, 0.1]}, "ended before it was sent"),
        ({"end_s": [1.0, np.nan, 1.0]}, "no end time"),
        ({"outcome": ["ok", "fine", "ok"]}, "unknown outcome 'fine'"),
        ({"worker_id": [1, 2, 3]}, "columns"),
    ],
)
def test_what_cannot_be_is_not_written(tmp_path: Path, change: dict[str, list[float]], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        records.write(tmp_path / "a.parquet", rows([0.5, 0.5, 0.5]).assign(**change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_what_is_no_number_is_not_read(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("lab.load.records.json.dumps", lambda kept: f'{{"rate": {value}}}')
        records.write(tmp_path / "a.parquet", rows([0.1]), {"rate": 1.0})
    with pytest.raises(LabError, match=r"^cannot read .*not JSON compliant"):
        Result.load(tmp_path / "a.parquet")


def test_an_unwritable_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"cannot write .*no such file or directory; free some space"):
        records.write(tmp_path / "none" / "a.parquet", rows([0.1]))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from helpers.load_rows import rows\n"
        "from lab.load import records\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "records.write(sys.argv[1], rows([0.1, 0.2] * 5000))\n"
    )
    path = tmp_path / "a.parquet"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"cannot write {path}: file too large; free some space" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.integers(1, 7))
def test_merging_undoes_splitting(values: list[float], shares: int) -> None:
    whole = np.array(values)
    np.testing.assert_array_equal(merge(split(whole, shares)), whole)


def test_columns_say_what_did_not_happen() -> None:
    requests = rows([0.1, 0.1, 0.1], [Outcome.OK, Outcome.DROPPED, Outcome.UNFINISHED])
    missing = requests.isna().to_numpy().tolist()
    assert missing[1] == [False, True, True, False, True, True, True, True, True]
    assert missing[2] == [False, False, True, False, True, True, True, True, False]


def test_a_file_without_cpu_times_is_read_as_one_that_does_not_know_them(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    records.write(path, rows([0.1, 0.2]))
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("service_cpu_s"), path)
    older = records.read(path)
    assert older["service_cpu_s"].isna().all()
    assert older.drop(columns="service_cpu_s").equals(rows([0.1, 0.2]).drop(columns="service_cpu_s"))
