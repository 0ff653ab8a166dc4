"""What `lab study` shows while it runs: one screen on a terminal, which it gives back; else plain lines."""

import io
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.clients import until
from helpers.study_fakes import condition, fake_attack
from rich.console import Console, ConsoleDimensions

from lab.cli.screen import Screen, result_in_words
from lab.errors import one_line
from lab.progress import NAME, State
from lab.study.run import Run
from lab.study.runs import open_run

LASTS_S = {"01-one": 5.0, "02-two": 60.0, "03-three": 30.0}


@pytest.fixture
def run() -> Run:
    return open_run("mine", profile="quick", host_label="rack-3")


@pytest.fixture
def screen(run: Run) -> Iterator[Screen]:
    console = Console(file=io.StringIO(), force_terminal=True, width=90, height=24)
    shown = Screen(run, LASTS_S, console)
    yield shown
    shown.close()


def drawn(screen: Screen, width: int = 90, height: int = 24) -> list[str]:
    """Return the lines of a screen of that size."""
    screen.console.size = ConsoleDimensions(width, height)
    paper = Console(file=io.StringIO(), width=width, height=height, record=True)
    paper.print(screen.drawn())
    return [line.rstrip() for line in paper.export_text().splitlines()]


def line_of(screen: Screen, name: str) -> str:
    (line,) = [line for line in drawn(screen) if name in line]
    return " ".join(line.split())


def write_state(run: Run, state: State) -> None:
    (run.path / NAME).write_text(json.dumps(asdict(state)))


def test_it_shows_what_is_done_what_runs_and_what_is_to_come(run: Run, screen: Screen) -> None:
    screen.ended("01-one", None, 7.0)
    with screen.running("02-two"):
        assert line_of(screen, "02-two") == "running 02-two about 1 min 0 s starting"
        write_state(run, State("two", 4, 12, 10.0, 8.0, "cluster x 2, python, 50/s for 3 s"))
        until(lambda: "trial 5 of 12" in line_of(screen, "02-two"))
        lines = drawn(screen)
        assert lines[0] == "Scaling Lab, run mine"
        assert lines[1].startswith("profile quick, rack-3 (")
        assert line_of(screen, "01-one") == "done 01-one 7 s"
        assert line_of(screen, "03-three") == "to come 03-three about 30 s"
        assert line_of(screen, "measuring") == "measuring cluster x 2, python, 50/s for 3 s"
        assert line_of(screen, "time left").startswith("time left about 2 min "), "7 s for 5: 1.4 x 90 s"
        write_state(run, State("two", 4, 12, 10.0, 0.0, "search", "search: trial 3, 50.0/s held"))
        until(lambda: line_of(screen, "measuring") == "measuring search: trial 3, 50.0/s held")
        assert "of 12" not in line_of(screen, "02-two")
    screen.ended("02-two", "UsageError: \x1b[31mno", 9.0)
    assert line_of(screen, "02-two") == r"failed 02-two 9 s UsageError: \x1b[31mno"


def test_the_last_trial_is_put_in_words(run: Run, screen: Screen) -> None:
    assert line_of(screen, "last trial") == "last trial –"
    with screen.running("01-one"):
        run.measure("sweep", [condition(20)], blocks=1, seed=1, execute=fake_attack)
        until(lambda: "20.0/s" in line_of(screen, "last trial"))
    row = run.newest_trial()
    assert row is not None
    words = result_in_words(row)
    assert one_line(words) == words
    assert words.startswith("single at 20.0/s: ")
    assert ", p99 " in words
    assert result_in_words(row | {"latency_p99_s": None, "workers": 2}).startswith("single x 2 at")


def test_what_is_interrupted_is_left_as_stopped(run: Run, screen: Screen) -> None:
    with pytest.raises(KeyboardInterrupt), screen.running("02-two"):
        raise KeyboardInterrupt
    screen.close()
    assert line_of(screen, "02-two") == "stopped 02-two about 1 min 0 s"


def test_a_small_terminal_shows_what_runs_and_is_never_overrun(run: Run, screen: Screen) -> None:
    with screen.running("03-three"):
        for width, height in ((40, 8), (20, 9), (200, 50), (90, 24)):
            lines = drawn(screen, width, height)
            assert len(lines) <= height
            assert max(map(len, lines)) <= width
            assert any("running" in line for line in lines)


STUDY = """
from contextlib import closing
from lab.cli.screen import watch
from lab.study.runs import open_run
with closing(watch(open_run("mine"), {"01-hot-loop": 1.0})) as watching:
    with watching.running("01-hot-loop"):
        pass
    watching.ended("01-hot-loop", None, 0.0)
print("the report")
"""


def studied(home: Path, **environment: str) -> str:
    """Watch a study that does nothing in a terminal of 80 columns; return what that is told."""
    known = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR", "COLUMNS")}
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    done = subprocess.run(
        [sys.executable, "-c", STUDY], stdout=-1, stderr=theirs, check=True,
        env=known | {"TERM": "xterm-256color", "SCALING_LAB_HOME": str(home)} | environment,
    )  # fmt: skip
    os.close(theirs)
    assert done.stdout == b"the report\n", "nothing else is on stdout"
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        return terminal.read(1 << 20).decode()


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_a_terminal_is_given_back_with_the_last_lines_on_it(home: Path, environment: dict[str, str]) -> None:
    told = studied(home, **environment)
    assert told.count("\x1b[?1049h") == told.count("\x1b[?1049l") == 1, "its other screen, and back"
    assert told.count("\x1b[?25l") == told.count("\x1b[?25h") == 1, "the cursor is back"
    *_, last = told.split("\x1b[?1049l")
    assert "01-hot-loop" in last
    assert "done" in last
    assert ("\x1b[32m" in last) == (not environment)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}])
def test_a_dumb_terminal_and_ci_are_told_plain_lines(home: Path, environment: dict[str, str]) -> None:
    told = studied(home, **environment)
    assert "1049" not in told
    assert "01-hot-loop: done, after 0 s\r\n" in told
