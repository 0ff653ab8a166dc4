"""How far work is: what is seen on a terminal, a dumb one, in a file, and with stderr closed."""

import os
import pty
import subprocess
import sys
import termios

import pytest

from lab.progress import display

WORK = """
from lab.progress import display
line = display({every_s})
line.show("[b]one[/b] \\x1b[31m" + "x" * 200, 0.0)
line.show("two", 0.5)
line.show("two", 0.6)
line.close("the last")
print("result")
"""


ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}


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


def test_a_dumb_terminal_is_told_plain_lines() -> None:
    told = on_terminal({"TERM": "dumb", "FORCE_COLOR": "1"}).split("\r\n")
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
