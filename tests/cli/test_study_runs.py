"""The run that `lab study` takes: an unfinished one is resumed as and where it was begun, and only there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import files
from lab.cli import main
from lab.cli import study as command
from lab.errors import LabError
from lab.machine import describe
from lab.report import write_report
from lab.study.archive import export_run, import_run
from lab.study.manifest import Manifest, write_manifest
from lab.study.runs import open_run


@pytest.fixture(autouse=True)
def _measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "execute", lambda *_: None)
    monkeypatch.setattr(command, "write_report", lambda run_id, to_come: run_id)


def _begun(**changes: object) -> Manifest:
    run = open_run(profile="quick", notebooks=["01-hot-loop"])
    begun = run.manifest.model_copy(update=changes)
    write_manifest(run.path, begun)
    return begun


def _study(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    with pytest.raises(SystemExit, match="0"):
        main(["study", "--only", "01", *more])
    taken, said = capsys.readouterr()
    return taken.strip(), said


def test_one_that_was_begun_here_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    begun = _begun()
    taken, said = _study(capsys)
    assert taken == begun.run_id
    assert said.startswith(f"resuming {begun.run_id}: ")


def test_one_of_another_machine_or_version_is_left_and_a_new_one_begins(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = describe().model_copy(update={"cpu_model": "Abacus 3000"})
    for changes, why in (({"git_commit": "abc"}, "version"), ({"machine": machine}, "machine")):
        begun = _begun(**changes)
        taken, said = _study(capsys)
        assert taken != begun.run_id
        first, second, *_ = said.splitlines()
        assert first.startswith(f"not resuming {begun.run_id}: it was begun ")
        assert why in first
        assert first.endswith("; a new run begins")
        assert second.startswith(f"new run {taken}: ")


def test_one_of_another_version_that_is_asked_for_is_resumed_with_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun = _begun(git_commit="abc")
    taken, said = _study(capsys, "--run", begun.run_id)
    assert taken == begun.run_id
    assert "warning: it was begun by another version (commit abc, here " in said


def test_one_of_another_profile_goes_on_with_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    full = _begun(profile="full")
    _, said = _study(capsys, "--run", full.run_id)
    assert f"{full.run_id}: profile full, " in said
    _, said = _study(capsys, "--run", full.run_id, "--profile", "smoke")
    assert f"{full.run_id}: profile smoke, " in said


def test_one_on_a_machine_of_the_same_name_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    first, said = _study(capsys, "--host-label", "rack-3")
    assert f"run {first}: profile quick, rack-3 (" in said
    assert open_run(first).manifest.machine.label == "rack-3"
    begun = open_run("named", profile="quick", notebooks=["01-hot-loop"], host_label="rack-3")
    taken, _ = _study(capsys)
    assert taken == begun.run_id, "without a name, it keeps the one it was begun with"
    begun = open_run("again", profile="quick", notebooks=["01-hot-loop"], host_label="rack-3")
    taken, said = _study(capsys, "--host-label", "rack-4")
    assert taken != begun.run_id
    assert said.startswith("not resuming again: it was begun on rack-3; a new run begins")


def _reference_of_another_machine() -> str:
    checkout, reference = files.checkout(), files.data() / files.REFERENCE
    assert checkout
    reference.mkdir(parents=True)
    shutil.copy(checkout / "data" / files.REFERENCE / "manifest.json", reference)
    machine = describe().model_copy(update={"cpu_model": "Abacus 3000"})
    write_manifest(reference, open_run(reference.name).manifest.model_copy(update={"machine": machine}))
    return reference.name


def _imported() -> str:
    return import_run(export_run(_begun().run_id, files.home() / "run.zip"), "theirs")


@pytest.mark.parametrize("elsewhere", [_reference_of_another_machine, _imported])
def test_one_of_another_machine_is_refused_at_once_unless_it_is_only_read(
    elsewhere: Callable[[], str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kept() -> dict[Path, tuple[bytes, int]]:
        there = [path for path in home.rglob("*") if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in there}

    name = elsewhere()
    before = kept()
    with pytest.raises(SystemExit, match="2"):
        main(["study", "--run", name, "--only", "00", "--only", "08"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lab: nothing can be added to run {name}: it was ")
    assert line.endswith("; begin a new run, or read this one with --only 00 --only 11")
    assert kept() == before
    with pytest.raises(
        LabError, match=f"`lab study --run {name} .*--only 11-machines --only 00-summary` makes"
    ):
        write_report(name)
    with pytest.raises(SystemExit, match="0"):
        main(["study", "--run", name, "--only", "00", "--only", "11"])


def test_one_that_is_complete_and_is_not_added_to_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    taken, _ = _study(capsys)
    run = open_run(taken)
    complete = run.manifest
    assert complete.state == "complete"
    assert _study(capsys, "--run", taken)[0] == taken
    assert run.manifest == complete


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--run", "named", "--host-label", "rack-4"],
            "run named was begun on rack-3: leave out --host-label",
        ),
        (["--host-label", "<b>"], "a host label has at most 40 letters"),
        (["--host-label", ""], "--host-label needs a name, such as rack-3"),
    ],
)
def test_another_or_an_odd_name_is_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    open_run("named", profile="quick", notebooks=["01-hot-loop"], host_label="rack-3")
    with pytest.raises(SystemExit, match="2"):
        main(["study", "--only", "01", *options])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lab: {words}")
