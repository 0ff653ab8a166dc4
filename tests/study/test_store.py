"""What is on disk: whole or not there, checked when read, and every kind of damage told in one line."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pytest
from helpers.study_fakes import condition, fake_attack

from lab.cli import main
from lab.errors import LabError
from lab.files import write_whole
from lab.flags import Flag
from lab.study.plan import Condition, Event
from lab.study.run import Run
from lab.study.runs import damage, find_runs, open_run
from lab.study.store import Store, read_table, write_table


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with one run, to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALING_LAB_HOME", str(home := tmp_path_factory.mktemp("home")))
        run = open_run("measured", profile="quick")
        run.measure("sweep", [condition(20), condition(40)], blocks=1, seed=1, execute=fake_attack)
    return home


@pytest.fixture
def measured(template: Path, home: Path) -> Run:
    shutil.copytree(template, home, dirs_exist_ok=True)
    return open_run("measured")


def one_line(error: pytest.ExceptionInfo[LabError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def first(run: Run, kind: str) -> Path:
    return min((run.path / kind).iterdir())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)


def check(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    with pytest.raises(SystemExit) as left:
        main(["runs", "--check"])
    return int(left.value.code or 0), capsys.readouterr().out.splitlines()


def test_the_check_names_every_file_of_a_sealed_run_that_is_damaged(
    measured: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured.seal().state == "complete"
    assert check(capsys) == (0, [])
    flip(changed := first(measured, "trials"))
    (gone := first(measured, "requests")).unlink()
    (measured.path / "trials/new.parquet").write_bytes(b"")
    named = [
        f"measured: requests/{gone.name} is missing",
        "measured: trials/new.parquet is not in the manifest",
        f"measured: trials/{changed.name} has changed since the run was complete",
    ]
    assert check(capsys) == (1, named)


def test_the_check_names_a_damaged_manifest_and_passes_over_what_is_unfinished(
    measured: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(capsys) == (0, [])
    truncate(measured.path / "manifest.json")
    status, (line,) = check(capsys)
    assert status == 1
    assert f"{measured.path / 'manifest.json'} is damaged" in line


def test_adding_to_a_sealed_run_opens_it_again_and_reading_does_not(measured: Run) -> None:
    measured.seal()
    again = open_run("measured")
    again.measure("sweep", [condition(20)], blocks=1, seed=1, execute=fake_attack)
    assert again.manifest.state == "complete"
    again.measure("sweep", [condition(80)], blocks=1, seed=1, execute=fake_attack)
    assert (again.manifest.state, again.manifest.files) == ("unfinished", {})
    assert again.seal().state == "complete"
    assert damage() == []


@pytest.mark.parametrize(
    "damage", [truncate, lambda path: path.write_bytes(b""), lambda path: path.write_text("x")]
)
@pytest.mark.parametrize("kind", ["trials", "requests", "calibrations"])
def test_a_damaged_table_is_named(measured: Run, kind: str, damage: Callable[[Path], None]) -> None:
    path = first(measured, kind)
    damage(path)
    with pytest.raises(LabError) as error:
        measured.requests("sweep")
    assert str(path) in one_line(error)


def test_trials_from_before_a_factor_existed_are_read_and_not_measured_again(measured: Run) -> None:
    for path in (measured.path / "trials").iterdir():
        write_table(path, read_table(path).drop_columns(["pin", "load", "peer"]))
    again = measured.measure("sweep", [condition(20), condition(40)], blocks=1, seed=1, execute=fail)
    assert again["pin"].tolist() == [False, False]
    assert again["peer"].tolist() == ["", ""]


def test_the_sentences_of_schema_version_1_are_not_read_as_flags(measured: Run) -> None:
    path = first(measured, "trials")
    table = read_table(path)
    stolen, earlier = "the hypervisor took 9%", (Flag("earlier_version"),)
    for valid, because, flags in [(True, "", ()), (False, stolen, earlier)]:
        kept = table.drop_columns(["flags", "valid"])
        for name, value in {"valid": valid, "invalid_because": because}.items():
            kept = kept.append_column(name, pa.array([value]))
        write_table(path, kept)
        trials = Store(measured.path).trials("sweep").set_index("trial_id")
        assert trials.loc[path.stem, "flags"] == flags
        assert "invalid_because" not in trials


def test_events_of_an_earlier_version_are_read_as_codes_with_their_texts(measured: Run) -> None:
    trials = measured.trials("sweep")
    path = measured.path / "events" / f"{trials['trial_id'].iloc[0]}.parquet"
    path.parent.mkdir()
    said = ["", "scale(2)", "", "2 workers accept", "scale(1)", "a worker did not start"]
    rows = {"at_s": [float(n) for n in range(6)], "event": said, "workers": [1, 1, 2, 2, 2, 2]}
    write_table(path, pa.table(rows))
    events = measured.events(trials)
    assert events["event"].tolist() == [
        Event.WORKERS, Event.BEGUN, Event.WORKERS, Event.DONE, Event.BEGUN, Event.FAILED,
    ]  # fmt: skip
    assert events["detail"].tolist() == said


def fail(condition: Condition, seed: int) -> NoReturn:
    raise AssertionError("it was measured again")


def test_a_foreign_table_is_named(measured: Run) -> None:
    first(measured, "trials").write_bytes(first(measured, "calibrations").read_bytes())
    with pytest.raises(LabError, match="is not a table of this study: it lacks the column trial_id"):
        measured.trials("sweep")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"schema_version": 2}', "\x00\x01", "null"],
)
def test_a_damaged_manifest_is_named_and_the_other_runs_are_still_listed(measured: Run, content: str) -> None:
    other = open_run("other")
    (measured.path / "manifest.json").write_text(content)
    with pytest.raises(LabError) as error:
        open_run("measured")
    assert "manifest.json is damaged or of another version" in one_line(error)
    assert [run.run_id for run in find_runs()] == [other.run_id]


def test_a_folder_that_is_no_run_or_another_one_is_refused(home: Path, measured: Run) -> None:
    (home / "data/strange").mkdir()
    (home / "data/strange/file").touch()
    with pytest.raises(LabError, match="is not a run: it has no manifest"):
        open_run("strange")
    measured.path.rename(home / "data/renamed")
    with pytest.raises(LabError, match="belongs to run measured: rename the folder back"):
        open_run("renamed")


def test_a_folder_that_a_kill_left_empty_becomes_the_run(home: Path) -> None:
    (home / "data/early").mkdir(parents=True)
    (home / "data/early/.manifest.json.partial").write_text("{")
    assert open_run("early").manifest.run_id == "early"


def test_a_home_that_cannot_be_written_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").touch()
    monkeypatch.setenv("SCALING_LAB_HOME", str(home / "file"))
    with pytest.raises(LabError) as error:
        open_run("new")
    assert "cannot write" in one_line(error)
    assert "SCALING_LAB_HOME" in one_line(error)


def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on_later(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sync, written = open_run("full"), os.fsync, 0

    def fill(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        with pytest.raises(LabError) as error:
            run.measure("sweep", [condition(20), condition(40)], blocks=1, seed=1, execute=fake_attack)
    assert "no space left on device" in one_line(error).lower()
    assert not [path for path in run.path.rglob(".*") if path.name != ".lock"]
    trials = run.measure("sweep", [condition(20), condition(40)], blocks=1, seed=1, execute=fake_attack)
    assert len(run.requests(trials)) == 60


def test_a_write_that_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(LabError, match="cannot write"):
            write_whole(path, b"new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_lab_runs_lists_them(measured: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["runs"])
    assert end.value.code == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "profile", "state", "trials", "started", "machine"]
    assert row.split()[:4] == ["measured", "quick", "unfinished", "2"]


def test_lab_runs_speaks_json(measured: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["runs", "--format", "json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["machine"] == measured.manifest.machine.model_dump()
    assert (row["run"], row["trials"]) == ("measured", 2)


def test_lab_runs_says_when_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["runs"])
    assert end.value.code == 0
    assert capsys.readouterr().out == ""
