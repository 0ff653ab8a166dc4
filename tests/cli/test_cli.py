"""The `lab` command: help for people, one line for every error, and the status that scripts rely on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import click
import pytest

from lab import cli
from lab.cli import COMMANDS, main
from lab.errors import LabError, UsageError
from lab.study.runs import open_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    return tmp_path


def _status(*args: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_help_lists_every_command(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(*args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Usage: lab [OPTIONS] COMMAND [ARGS]..."
    assert set(COMMANDS) <= {line.split()[0] for line in lines if line.startswith("  ")}
    assert not [line for line in lines[1:] if line.endswith("...")], "a sentence is cut short"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_every_option_of_it(name: str) -> None:
    command = cli.command.get_command(click.Context(cli.command), name)
    assert command is not None
    assert command.name == name
    assert command.help
    unexplained = [
        option.name for option in command.params if isinstance(option, click.Option) and not option.help
    ]
    assert set(unexplained) <= {"form", "method"}, "only what its choices explain"


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lab, version ")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nosuch"], "there is no command 'nosuch': choose one of study, "),
        (["study", "--profile", "nosuch"], "there is no profile 'nosuch': choose one of full, quick, smoke"),
        (
            ["study", "--only", "nosuch"],
            "there is no notebook 'nosuch': choose one of 00-summary, 01-hot-loop",
        ),
        (["study", "--run", "../elsewhere"], "a run's name consists of letters, digits"),
        (["study", "--profil", "smoke"], "--profil"),
        (["study", "extra"], "extra"),
        (["report"], "RUN"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    args: list[str], words: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _status(*args) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("lab: ")
    assert words in line
    assert out == ""
    assert list(home.iterdir()) == []


def test_a_run_by_hand_is_open_and_not_unfinished(capsys: pytest.CaptureFixture[str]) -> None:
    open_run()
    open_run("study", profile="quick")
    open_run("sealed").seal()
    assert _status("runs", "--format", "json") == 0
    states = {row["run"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert (states.pop("study"), states.pop("sealed"), *states.values()) == ("unfinished", "complete", "open")


def test_runs_say_what_a_machine_is_beside_what_its_owner_calls_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = open_run("mine", profile="quick", host_label="rack-3").manifest.machine
    assert _status("runs") == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.endswith(
        f"  rack-3 ({machine.cpu_model}, {machine.available_cpus} of {machine.host_cpus} CPUs)"
    )


def test_a_report_of_no_run_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status("report", "nosuch") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "lab: there is no run 'nosuch': `lab runs` lists them"


def test_a_report_is_not_both_a_file_and_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status("report", "a-run", "--folder", "--single-file") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lab: a report is one file, or a folder: give --single-file or --folder")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LabError("it broke\nin two lines"), 1),
        (UsageError("nonsense"), 2),
        (PermissionError(13, "Permission denied", "a-file"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_a_command_raises_becomes_a_line_and_a_status(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(run: str, in_folder: bool) -> NoReturn:
        raise error

    monkeypatch.setattr("lab.report.write_report", fail)
    assert _status("report", "a-run") == status
    err = capsys.readouterr().err
    assert err.strip() == f"lab: {' '.join(str(error).split()) or 'interrupted'}"


def test_no_command_waits_for_the_grammar_of_iris(tmp_path: Path) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(sys.modules['rfc3987_syntax'], 'jsonschema' in sys.modules))\n"
        "from lab.cli import main\n"
        "main(['report', 'nosuch'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "None True\n"


def test_debug_shows_the_traceback_above_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status("--debug", "report", "nosuch") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any("write_report" in line for line in lines)
    assert lines[-1].startswith("lab: there is no run 'nosuch'")


def test_a_home_that_cannot_be_written_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("SCALING_LAB_HOME", str(home / "file"))
    assert _status("study", "--profile", "smoke") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write" in line
    assert "SCALING_LAB_HOME" in line
