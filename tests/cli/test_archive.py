"""`lab export` and `lab import`, as a user runs them; and what a hostile name does to who looks at a run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import changed
from helpers.html_page import Page

import lab
from lab import files
from lab.cli import main
from lab.errors import LabError
from lab.experiments.summary import machine_table
from lab.machine import describe
from lab.models.statistics import estimate
from lab.study.archive import export_run, import_run
from lab.study.estimates import stated, table_of
from lab.study.runs import open_run

HOSTILE = "<script>alert(1)</script>\x1b[2J\x1b]0;owned\x07\u202e\x9b31m"


def finish(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[object, str, str]:
    """Return the status of a command, and what it printed: on stdout, and on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(args)
    return ended.value.code, *capsys.readouterr()


def test_a_run_is_packed_here_and_taken_in_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, there = files.checkout(), home / "there"
    assert root is not None
    shutil.copytree(root / "data" / "reference", home / "data" / "reference")
    there.mkdir()
    monkeypatch.chdir(home)
    assert finish(capsys, "export", "reference") == (0, f"{home / 'reference.zip'}\n", "")
    monkeypatch.setenv(files.HOME, str(there))
    taking = finish(capsys, "import", str(home / "reference.zip"), "--as", "colleague")
    assert taking == (0, "colleague\n", "")
    packed, taken = (
        sorted(path.name for path in (folder / "trials").iterdir())
        for folder in (home / "data/reference", there / "data/colleague")
    )
    assert len(taken) > 90
    assert taken == packed


def test_a_file_that_is_there_is_replaced_only_on_demand(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    open_run("mine", profile="quick", host_label="rack-3")
    for place, options in (("mine.zip", []), ("other.zip", ["--out", "other.zip"])):
        Path(place).write_text("precious")
        with pytest.raises(SystemExit, match="1"):
            main(["export", "mine", *options])
        assert (
            f"{place} is there already: name another file, or replace it with --force"
            in capsys.readouterr().err
        )
        assert Path(place).read_text() == "precious"
        with pytest.raises(SystemExit, match="0"):
            main(["export", "mine", *options, "--force"])
    assert open_run(import_run(Path("other.zip"), "taken")).manifest.machine.label == "rack-3"


@pytest.mark.parametrize("label", [HOSTILE, "a" * 41, "a|b"])
def test_a_machine_with_a_hostile_name_is_not_taken_in(home: Path, label: str) -> None:
    open_run("mine", profile="quick")
    sent = changed(
        export_run("mine", home / "mine.zip"), lambda _, manifest: manifest["machine"].update(label=label)
    )
    with pytest.raises(LabError, match="is not taken in: its manifest is of another version, or damaged"):
        import_run(sent, "hostile")


def test_what_is_not_taken_in_is_told_in_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "not.zip").write_text("hello\x1b[31m")
    status, out, err = finish(capsys, "import", str(home / "not.zip"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert list((home / "data").glob("*")) == []


@pytest.fixture
def hostile(home: Path) -> str:
    """Take in a run whose manifest says what no machine does; return its name."""

    def speak(_: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["machine"] |= dict.fromkeys(("cpu_model", "kernel", "python", "governor"), HOSTILE)
        manifest["profile"] = HOSTILE
        manifest["packages"][HOSTILE] = HOSTILE

    open_run("mine", profile="quick")
    return import_run(changed(export_run("mine", home / "mine.zip"), speak), "hostile")


def said(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    _, out, err = finish(capsys, *args)
    return out + err


@pytest.mark.parametrize("args", [["runs"], ["runs", "--check"], ["compare", "hostile", "hostile"]])
def test_a_terminal_shows_what_it_would_else_obey(
    hostile: str, args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = estimate([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    stating = table_of([stated("scaling", HOSTILE, blocks, kernel=HOSTILE)])
    monkeypatch.setattr("lab.cli.compare.estimates", lambda _: stating)
    text = said(capsys, *args)
    assert text.replace("\n", "").isprintable()
    assert args == ["runs", "--check"] or r"\x1b[2J" in text
    if "--check" not in args:
        assert json.loads(said(capsys, *args, "--format", "json"))


def test_runs_of_other_profiles_are_refused_in_plain_words(
    hostile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "compare", "mine", hostile)
    assert "different profiles" in text
    assert text.replace("\n", "").isprintable()


def test_the_doctor_shows_no_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = describe().model_copy(update={"cpu_model": HOSTILE})
    monkeypatch.setattr("lab.machine.describe", lambda: here)
    monkeypatch.setattr("lab.cli.doctor._ceilings", lambda: ([], []))
    monkeypatch.setattr("lab.cli.doctor._QUIET_S", 0.01)
    text = said(capsys, "doctor")
    assert r"\x1b[2J" in text
    assert text.replace("\n", "").isprintable()


def test_a_page_shows_a_script_as_text(hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    machine = open_run(hostile).manifest.machine
    lab.table(machine_table(machine), caption=f"The machine, {machine}")
    page = Page(shown[0].data)
    assert page.find("script") == []
    assert "<script>alert(1)</script>" in page.text("table")
