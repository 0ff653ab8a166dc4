"""Fixtures of several tests of servers."""

from pathlib import Path

import pytest
from helpers.workers import Sabotage, sabotaged


@pytest.fixture
def sabotage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sabotage:
    """Have every worker that starts from now on begin with some code of the test's."""
    return sabotaged(tmp_path, monkeypatch)
