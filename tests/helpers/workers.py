"""What is done to workers, and what they do to themselves."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.servers import Server

Sabotage = Callable[[str], None]

_SABOTEUR = """
import pathlib, sys
if "lab.servers.worker" in sys.orig_argv:
    exec(pathlib.Path({!r}).read_text())
"""
DIES = "import os; os.write(2, b'no luck today\\n'); os._exit(3)"
DIES_ONCE = f"import os; os.truncate(os.environ['PYTHONPATH'] + '/code', 0); {DIES}"
HANGS = "import time; time.sleep(600)"


def sabotaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sabotage:
    """Have every worker that starts from now on begin with some code of the test's."""
    code = tmp_path / "code"
    (tmp_path / "sitecustomize.py").write_text(_SABOTEUR.format(str(code)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code.write_text("")

    def begin_with(text: str) -> None:
        code.write_text(text)

    return begin_with


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def replaced(server: Server, pid: int, count: int = 1) -> bool:
    workers = server.workers
    return pid not in workers and len(workers) == count
