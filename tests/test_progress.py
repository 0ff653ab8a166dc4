"""How far work is: what is seen on a terminal, a dumb one, in a file, and with stderr closed.

The progress of a measurement is told to whoever polls, too, with an honest time left.
"""

import json
import os
import pty
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.study_fakes import condition, fake_attack

from lab import progress
from lab.progress import display
from lab.study.plan import Condition
from lab.study.runs import open_run
from lab.study.trial import Attacked

WORK = """
from lab.progress import display
line = display({every_s})
line.show("[b]one[/b] \\x1b[31m" + "x" * 200, 0.0)
line.show("two", 0.5)
line.show("two", 0.6)
line.close("the last")
print("result")
"""


ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("CI", "COLUMNS", "NO_COLOR")}


def run(stderr: int, environment: dict[str, str], every_s: float = 0.0) -> None:
    """Do some work in a process of its own, which shows its progress there."""
    code = WORK.format(every_s=every_s)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=-1, stderr=stderr, env=ENVIRONMENT | environment, check=True
    )
    assert done.stdout == b"result\n"


def on_terminal(environment: dict[str, str]) -> str:
    """Return what a terminal of 40 columns is told."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 40))
    run(theirs, {"TERM": "xterm"} | environment)
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        return terminal.read(65_536).decode()


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_a_terminal_shows_a_bar_and_a_line_that_replace_themselves(environment: dict[str, str]) -> None:
    told = on_terminal(environment)
    first, *others = told.split("\r\x1b[2K")[1:]
    assert "[b]one[/b] \\x1b[31mxx" in first, "neither markup nor escape codes are obeyed"
    assert first.endswith("…")
    assert all("two" in line for line in others[:2])
    assert told.endswith("\x1b[2Kthe last\r\n"), "the bar is gone"
    assert told.count("\x1b[?25l") == told.count("\x1b[?25h") == 1, "the cursor is back"
    assert ("\x1b[9" in told) == (not environment)


@pytest.mark.parametrize("environment", [{"TERM": "dumb", "FORCE_COLOR": "1"}, {"CI": "true"}])
def test_a_dumb_terminal_is_told_plain_lines_and_so_is_ci(environment: dict[str, str]) -> None:
    told = on_terminal(environment).split("\r\n")
    assert told == ["[b]one[/b] \\x1b[31m" + "x" * 200, "two", "the last", ""]


def test_a_file_is_told_plain_lines_each_once(capfd: pytest.CaptureFixture[str]) -> None:
    run(2, {"FORCE_COLOR": "1"})
    assert capfd.readouterr().err.splitlines()[1:] == ["two", "the last"]
    run(2, {}, every_s=60.0)
    assert capfd.readouterr().err == "the last\n"


def test_nothing_happens_where_stderr_is_closed_or_nobody_reads_on() -> None:
    code = WORK.format(every_s=0.0)
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 2>&-', "-", sys.executable, "-c", code], stdout=-1, check=True
    )
    assert closed.stdout == b"result\n"
    read, write = os.pipe()
    os.close(read)
    run(write, {})
    os.close(write)


def test_an_interrupted_display_may_be_closed_twice(capsys: pytest.CaptureFixture[str]) -> None:
    line = display()
    line.close()
    line.close("the last")
    assert capsys.readouterr().err == "the last\n"


def test_progress_is_told_to_whoever_polls(capsys: pytest.CaptureFixture[str]) -> None:
    run, states = open_run(), list[dict[str, Any]]()

    def watch(condition: Condition, seed: int) -> Attacked:
        states.append(json.loads((run.path / "progress.json").read_text()))
        return fake_attack(condition, seed)

    some, all_of_them = [condition(20)], [condition(20), condition(40), condition(80)]
    run.measure("sweep", some, blocks=2, seed=1, execute=fake_attack)
    run.measure("sweep", all_of_them, blocks=2, seed=1, execute=watch)
    states.append(json.loads((run.path / "progress.json").read_text()))
    assert [state["done"] for state in states] == [2, 3, 4, 5, 6]
    assert {state["total"] for state in states} == {6}
    assert states[0]["left_s"] > 0 == states[-1]["left_s"]
    assert states[0]["current"].startswith("single, python, ")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines if ": trial " in line] == [
        *(f"sweep: trial {number} of 2" for number in (1, 2)),
        *(f"sweep: trial {number} of 6" for number in (3, 4, 5, 6)),
    ]
    assert lines[2].startswith("sweep: 2 trials measured, 0 from disk, in ")
    assert lines[-1].startswith("sweep: 4 trials measured, 2 from disk, in ")


def test_the_time_left_counts_what_trials_take_beyond_their_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    following = progress.Countdown(tmp_path, "sweep", [10.0, 10.0, 20.0], from_disk=3)
    left_s = []
    for later_s in (0, 13, 13):
        now_s += later_s
        following.begins("anything")
        left_s.append(json.loads((tmp_path / "progress.json").read_text())["left_s"])
        following.ends()
    assert left_s == [40 + 3 * 2, 30 + 2 * 3, 20 + 3]  # 2 s beyond is the first guess, 3 s is what it was


def test_the_last_moment_is_not_called_0_seconds() -> None:
    state = progress.State("sweep", 1, 2, 10.0, 0.3, "single, 50/s")
    assert str(state) == "trial 2 of 2, nearly done with these (single, 50/s)"
    assert str(replace(state, left_s=4.0)) == "trial 2 of 2, about 4 s left of these (single, 50/s)"


def test_a_search_is_told_to_whoever_polls_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = progress.Told(tmp_path, "sustained")
    line.show("trial 3, 50.0/s", 0.25)
    state = progress.State.read(tmp_path)
    assert state is not None
    assert (str(state), state.share, bool(state.current)) == ("trial 3, 50.0/s", 0.25, True)
    line.close()
    state = progress.State.read(tmp_path)
    assert state is not None
    assert not state.current, "what was measured is being read"
    assert capsys.readouterr().err == "trial 3, 50.0/s\n"
