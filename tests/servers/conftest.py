"""Fixtures of several tests of servers."""

from pathlib import Path

import pytest
from helpers.workers import Sabotage

_SABOTEUR = """
import os, pathlib, sys
def begin():
    exec(pathlib.Path({!r}).read_text())
if "lab.servers.worker" in sys.orig_argv:
    begin()
if "lab.servers.supervisor" in sys.orig_argv:
    os.register_at_fork(after_in_child=begin)
"""


@pytest.fixture
def sabotage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sabotage:
    """Have every worker that starts from now on begin with some code of the test's."""
    code = tmp_path / "code"
    (tmp_path / "sitecustomize.py").write_text(_SABOTEUR.format(str(code)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code.write_text("")

    def begin_with(text: str) -> None:
        code.write_text(text)

    return begin_with
