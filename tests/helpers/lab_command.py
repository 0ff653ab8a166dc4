"""Run the commands as users do, each in a home of its own by which all of its processes are found again."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from lab import files

_HOME = "SCALING_LAB_HOME"


def start(home: Path, *args: str) -> subprocess.Popen[str]:
    """Start `python -m ...` in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", *args],
        env=os.environ | {_HOME: str(home)},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def finish(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` to its end, with what it printed."""
    with start(home, *args) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def study(*args: str) -> tuple[str, ...]:
    """Return the arguments of `lab study` at its smallest profile."""
    return ("lab", "study", "--profile", "smoke", *args)


def papermill(notebook: str, *args: str) -> tuple[str, ...]:
    """Return the arguments of papermill for one of the notebooks."""
    path = files.notebooks() / f"{notebook}.ipynb"
    return ("papermill", "--no-progress-bar", "-k", "python3", str(path), os.devnull, *args)


def processes(home: Path, of: str = "") -> list[psutil.Process]:
    """Return the processes of this home, whoever adopted them, with `of` in their command line."""
    return [process for process in psutil.process_iter() if _is_of(process, home, of)]


def _is_of(process: psutil.Process, home: Path, of: str) -> bool:
    try:
        return process.environ().get(_HOME) == str(home) and of in " ".join(process.cmdline())
    except psutil.Error:  # gone, a zombie, or somebody else's
        return False


def are_gone(home: Path, within_s: float) -> bool:
    """Wait until no process of this home is left, for so long."""
    deadline_s = time.monotonic() + within_s
    while left := processes(home):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"left behind: {[process.cmdline() for process in left]}")
        time.sleep(0.02)
    return True


def progress(home: Path) -> dict[str, Any]:
    """Return how far the one measurement of this home is; nothing before it has begun."""
    for path in home.glob("data/*/progress.json"):
        state: dict[str, Any] = json.loads(path.read_text())
        return state
    return {}
