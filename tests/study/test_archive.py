"""A run in one file and back: the round trip is exact, and what somebody else sends is whole or nothing."""

import errno
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from helpers.archives import Files, changed, one, packed, parquet, table, unpacked
from helpers.study_fakes import condition, fake_attack

from lab import files
from lab.errors import LabError, UsageError, one_line
from lab.study import archive, intake
from lab.study.archive import export_run, import_run
from lab.study.intake import check_table
from lab.study.runs import damage, find_runs, open_run


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a complete run of two trials, exported at home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALING_LAB_HOME", str(home := tmp_path_factory.mktemp("theirs")))
        run = open_run("theirs", profile="quick")
        run.measure("sweep", [condition(20), condition(40)], blocks=1, seed=1, execute=fake_attack)
        run.table("loop-python-1000", lambda: pd.DataFrame({"wall_s": [0.1], "cpu_s": [0.1]}))
        run.seal()
        return export_run("theirs", home / "theirs.zip")


@pytest.fixture
def theirs(sent: Path, home: Path) -> Path:
    """Return a copy of it, at another home."""
    return Path(shutil.copy(sent, home / "theirs.zip"))


def refusal(file: Path, name: str = "") -> str:
    """Import what must be refused: return the one line that says so, with nothing left behind."""
    with pytest.raises(LabError) as error:
        import_run(file, name)
    assert left() == []
    assert str(error.value).isprintable()
    return str(error.value)


def left() -> list[str]:
    return sorted(path.name for path in files.data().glob("*"))


def test_a_run_comes_back_as_it_was(sent: Path, theirs: Path) -> None:
    assert import_run(theirs) == "theirs"
    assert left() == ["theirs"]
    before, after = sent.parent / "data" / "theirs", files.data() / "theirs"
    names = [path.relative_to(before) for path in before.rglob("*.parquet")]
    assert sorted(names) == sorted(path.relative_to(after) for path in after.rglob("*.parquet"))
    assert all((before / name).read_bytes() == (after / name).read_bytes() for name in names)
    then, now = (json.loads((folder / "manifest.json").read_bytes()) for folder in (before, after))
    assert (then.pop("imported_at"), bool(now.pop("imported_at"))) == (None, True)
    assert then == now
    assert damage() == []
    assert len(open_run("theirs").requests("sweep")) == 60


def test_what_a_notebook_predicted_of_a_sustained_rate_is_no_search() -> None:
    predicted = pa.table({"sustained": [0.8]})
    check_table("tables/sustained-predicted-0123456789.parquet", parquet(predicted))


def test_an_imported_run_goes_on_to_others_as_it_came(theirs: Path, home: Path) -> None:
    import_run(theirs)
    assert export_run("theirs", home / "again.zip").read_bytes() == theirs.read_bytes()


def test_an_unfinished_run_is_sent_without_what_a_kill_left(theirs: Path, home: Path) -> None:
    run = open_run("mine")
    run.measure("sweep", [condition(20)], blocks=1, seed=1, execute=fake_attack)
    (kept,) = (run.path / "requests").iterdir()
    shutil.copy(kept, kept.with_name("sweep.b09.000000000000.parquet"))
    name = import_run(export_run("mine", home / "mine.zip"), "again")
    assert open_run(name).manifest.state == "unfinished"
    assert [path.name for path in (files.data() / name / "requests").iterdir()] == [kept.name]


def test_nothing_is_added_to_an_imported_run_and_today_begins_one_of_its_own(home: Path) -> None:
    mine = open_run()
    mine.measure("sweep", [condition(20)], blocks=1, seed=1, execute=fake_attack)
    file = export_run(mine.run_id, home / "mine.zip")
    shutil.rmtree(mine.path)
    import_run(file)
    with pytest.raises(LabError, match=r"it was imported on .*; begin a new run"):
        open_run(mine.run_id).measure("sweep", [condition(80)], blocks=1, seed=1, execute=fake_attack)
    assert open_run().run_id != mine.run_id


def test_a_run_of_that_name_is_kept_and_another_name_is_taken(theirs: Path) -> None:
    import_run(theirs)
    with pytest.raises(LabError, match="already a run theirs: give this one another name with --as NAME"):
        import_run(theirs)
    assert import_run(theirs, "second") == "second"
    assert {run.run_id for run in find_runs()} == {"theirs", "second"}
    assert damage() == []


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a/b", ".hidden", "x" * 101, "a\x1b[31m"])
def test_no_name_leads_out_of_the_folder_of_runs(theirs: Path, name: str) -> None:
    with pytest.raises(UsageError):
        import_run(theirs, name)
    as_told = changed(theirs, lambda _, manifest: manifest.update(run_id=name))
    assert "a run's name" in refusal(as_told)


def test_what_cannot_be_exported_is_told(home: Path) -> None:
    with pytest.raises(LabError, match="there is no run 'none'"):
        export_run("none")
    run = open_run("mine")
    run.measure("sweep", [condition(20)], blocks=1, seed=1, execute=fake_attack)
    run.seal()
    next((run.path / "trials").iterdir()).write_bytes(b"other")
    with pytest.raises(LabError, match="has changed since it was complete"):
        export_run("mine", home / "mine.zip")
    (run.path / "mine.parquet").touch()
    with pytest.raises(LabError, match="is no table of a run"):
        export_run("mine", home / "mine.zip")
    assert not (home / "mine.zip").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../trials/x.parquet",
        "trials/../../x.parquet",
        "/etc/x.parquet",
        "trials\\x.parquet",
        "notebooks/x.ipynb",
        "trials/.x.parquet",
        "trials/",
        "trials/x.parquet/y.parquet",
        f"trials/{'x' * 250}.parquet",
        "Trials/x.parquet",
    ],
)
def test_no_file_gets_another_place_than_a_table_has(theirs: Path, name: str) -> None:
    assert "is no file of a run" in refusal(packed({**unpacked(theirs), name: b"x"}, theirs))


def test_a_name_is_read_to_its_end(theirs: Path) -> None:
    content = packed({**unpacked(theirs), "trials/x.parquet-y": b"x"}, theirs).read_bytes()
    theirs.write_bytes(content.replace(b"x.parquet-y", b"x.parquet\0y"))
    assert "is no file of a run" in refusal(theirs)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_no_link_and_no_device_is_made(theirs: Path, kind: int) -> None:
    contents = unpacked(theirs)
    link = zipfile.ZipInfo(one(contents, "trials"))
    link.external_attr = (kind | 0o777) << 16
    del contents[link.filename]
    assert "is a link" in refusal(packed({**contents, link: b"/etc/passwd"}, theirs))


def test_a_name_twice_is_refused(theirs: Path) -> None:
    with zipfile.ZipFile(theirs, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("manifest.json", b"{}")
    assert "is there twice" in refusal(theirs)


def test_a_file_that_unpacks_to_more_than_a_table_may_have_is_not_unpacked(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = b"\0" * (1 << 20)
    big = changed(theirs, lambda contents, _: contents.update({one(contents, "requests"): bomb}))
    assert big.stat().st_size < len(bomb) / 20
    monkeypatch.setattr(archive, "MOST_FILE_BYTES", len(bomb) - 1)
    assert "has 1,048,576 bytes" in refusal(big)
    monkeypatch.setattr(archive, "MOST_FILE_BYTES", len(bomb))
    monkeypatch.setattr(archive, "MOST_BYTES", len(bomb))
    assert "files of 1," in refusal(big)


def test_a_file_that_unpacks_to_more_than_it_says_is_refused(theirs: Path) -> None:
    bomb = b"\0" * (1 << 20)
    name = "tables/bomb.parquet"
    big = changed(theirs, lambda contents, _: contents.update({name: bomb}))
    content = bytearray(big.read_bytes())
    at = content.rindex(name.encode())  # in the directory, 46 bytes after the entry's start; 24: its size
    content[at - 22 : at - 18] = (1000).to_bytes(4, "little")
    big.write_bytes(content)
    assert f"Bad CRC-32 for file '{name}'" in refusal(big)


def test_a_list_of_too_many_files_is_not_even_read(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MOST_DIRECTORY_BYTES", 100)
    assert "more files than any run" in refusal(theirs)


def test_a_bit_that_flipped_is_found(theirs: Path) -> None:
    content = bytearray(theirs.read_bytes())
    content[len(content) // 3] ^= 1
    theirs.write_bytes(content)
    assert f"{theirs} is not taken in: " in refusal(theirs)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_part_of_a_file_is_refused(theirs: Path, share: float) -> None:
    content = theirs.read_bytes()
    theirs.write_bytes(content[: int(share * len(content))])
    assert "not a zip, or its end is missing" in refusal(theirs)


def test_what_is_no_file_at_all_is_refused(home: Path) -> None:
    assert "no such file" in refusal(home / "none.zip")
    assert "cannot read" in refusal(home)
    assert "not a regular file" in refusal(Path("/dev/zero"))


def test_a_wrong_hash_is_found(theirs: Path) -> None:
    contents = unpacked(theirs)
    manifest = json.loads(contents["manifest.json"])
    manifest["files"][one(contents, "trials")] = "0" * 64
    said = refusal(packed({**contents, "manifest.json": json.dumps(manifest).encode()}, theirs))
    assert "is not what its manifest says" in said


def test_files_and_manifest_must_name_the_same(theirs: Path) -> None:
    contents = unpacked(theirs)
    gone = one(contents, "requests")
    assert gone in refusal(packed({name: kept for name, kept in contents.items() if name != gone}, theirs))
    part = packed(contents, theirs)
    assert "part of trial" in refusal(changed(part, lambda contents, _: contents.__delitem__(gone)))


Change = Callable[[pa.Table], pa.Table]


def add(name: str, value: Any) -> Change:
    return lambda found: found.append_column(name, pa.array([value] * found.num_rows))


def put(name: str, value: Any) -> Change:
    def change(found: pa.Table) -> pa.Table:
        at = found.schema.get_field_index(name)
        column = pa.array([value] * found.num_rows, found.schema.field(name).type)
        return found.set_column(at, found.schema.field(name), column)

    return change


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("trials", lambda found: found.drop_columns("throughput_rps"), "lacks the column throughput_rps"),
        ("trials", lambda found: pa.concat_tables([found, found]), "2 rows"),
        ("trials", lambda found: found.append_column("rate", found["rate"]), "two columns of one name"),
        ("trials", add("a\x1b[2J", 1), "has a column"),
        ("trials", add("note", "<script>"), "not plain in note"),
        ("trials", add("note", "$\\frac$"), "not plain in note"),
        ("trials", put("dispatch", "a\x1b[2J"), "not plain in dispatch"),
        ("trials", put("trial_id", "sweep.b01.other"), "another trial"),
        ("trials", put("workers", 0), "0 workers"),
        ("trials", put("workers", None), "lacks a value for workers"),
        ("requests", lambda found: found.drop_columns("due_s"), "does not hold request records"),
        ("requests", add("more", 1), "does not hold request records"),
        ("calibrations", lambda found: found.drop_columns("loop_s"), "lacks the column loop_s"),
        ("calibrations", put("kernel", "$\\frac$"), "not plain in kernel"),
        ("asked", lambda found: found.rename_columns(["other"]), "lacks the column trial_id"),
        ("tables", lambda found: found.drop_columns("cpu_s"), "lacks the column cpu_s"),
        ("tables", lambda found: found.append_column("b", pa.array([b"x"])), "has a column 'b'"),
    ],
)
def test_a_table_with_another_schema_is_refused(sent: Path, kind: str, change: Change, words: str) -> None:
    contents = unpacked(sent)
    name = one(contents, kind)
    check_table(name, contents[name])
    with pytest.raises(LabError) as error:
        check_table(name, parquet(change(table(contents[name]))))
    assert words in one_line(error.value)


@pytest.mark.parametrize("kernel", ["$\\frac$", "<b>", "a\x1b[2J", "x" * 300])
def test_a_name_that_a_figure_or_a_page_would_not_show_as_text_is_refused(kernel: str) -> None:
    loops = {"kernel": ["python"], "iterations": [1], "repeat": [1], "wall_s": [0.1], "cpu_s": [0.1]}
    check_table("tables/hot-loop-1.parquet", parquet(pa.table(loops)))
    with pytest.raises(LabError, match="not plain in kernel"):
        check_table("tables/hot-loop-1.parquet", parquet(pa.table(loops | {"kernel": [kernel]})))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 10, b"\x80\x04N."])
def test_what_is_no_parquet_is_refused(content: bytes) -> None:
    with pytest.raises(LabError, match=r"tables/x.parquet cannot be read \("):
        check_table("tables/x.parquet", content)


def test_one_table_that_is_not_a_runs_is_enough_to_refuse_all(theirs: Path) -> None:
    def alter(contents: Files, _: dict[str, Any]) -> None:
        contents["tables/loop-python-7.parquet"] = parquet(pa.table({"wall_s": [1.0]}))

    assert "it lacks the column cpu_s" in refusal(changed(theirs, alter))


def repeated(rows: int) -> bytes:
    """Return a small file that holds the same long text so many times."""
    return parquet(pa.table({"text": pa.array(["x" * 1000]).take(pa.array([0] * rows))}))


def test_a_small_file_that_holds_a_large_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = repeated(5000)
    assert len(content) < 6000
    check_table("tables/texts.parquet", content)
    monkeypatch.setattr(intake, "MOST_BYTES", 5_000_000)
    with pytest.raises(LabError, match="takes 5,0"):
        check_table("tables/texts.parquet", content)
    monkeypatch.setattr(intake, "MOST_ROWS", 4999)
    with pytest.raises(LabError, match="has 5,000 rows"):
        check_table("tables/texts.parquet", content)


def test_a_table_that_takes_too_much_memory_to_read_is_refused(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = repeated(400_000)
    big = changed(theirs, lambda contents, _: contents.update({"tables/texts.parquet": content}))
    monkeypatch.setattr(archive, "MEMORY_BYTES", 300_000_000)
    assert "tables/texts.parquet cannot be read (" in refusal(big)


def test_pandas_notes_in_a_table_are_not_believed(theirs: Path) -> None:
    def alter(contents: Files, _: dict[str, Any]) -> None:
        name = one(contents, "asked")
        found = table(contents[name])
        notes = json.loads(found.schema.metadata[b"pandas"]) | {"index_columns": ["trial_id"]}
        contents[name] = parquet(found.replace_schema_metadata({"pandas": json.dumps(notes)}))

    import_run(changed(theirs, alter))
    assert len(open_run("theirs").trials("sweep")) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 9},
        {"surprise": 1},
        {"started_at": "yesterday"},
        {"profile": "x" * 1000},
        {"files": 1},
        {"machine": {}},
    ],
)
def test_a_manifest_of_another_kind_is_refused(theirs: Path, change: dict[str, Any]) -> None:
    contents = unpacked(theirs)
    manifest = json.loads(contents["manifest.json"]) | change
    assert "manifest" in refusal(packed({**contents, "manifest.json": json.dumps(manifest).encode()}, theirs))


@pytest.mark.parametrize("cpus", [0, -1, 1e300])
def test_a_machine_that_cannot_be_is_refused(theirs: Path, cpus: float) -> None:
    odd = changed(theirs, lambda _, manifest: manifest["machine"].update(available_cpus=cpus))
    assert "machine.available_cpus" in refusal(odd)


def test_a_full_disk_leaves_nothing(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = 0, os.fsync

    def fill(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        assert "no space left on device" in refusal(theirs)
    assert import_run(theirs) == "theirs"


def test_what_a_kill_left_of_an_import_is_no_run_and_not_in_the_way(theirs: Path) -> None:
    half = files.data() / ".import" / "theirs"
    half.mkdir(parents=True)
    (half / "manifest.json").write_bytes(unpacked(theirs)["manifest.json"])
    assert find_runs() == []
    assert import_run(theirs) == "theirs"
    assert left() == ["theirs"]
