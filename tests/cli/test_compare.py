"""`lab compare`, as a user runs it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from lab import files
from lab.cli import main
from lab.study.compare import Comparison


def compared(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[object, str, str]:
    """Return the status of the command, and what it printed: on stdout, and on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(["compare", *args])
    return ended.value.code, *capsys.readouterr()


def reference(home: Path) -> None:
    """Copy the committed run to where runs are."""
    root = files.checkout()
    assert root is not None
    shutil.copytree(root / "data" / "reference", home / "data" / "reference")


def test_a_run_does_not_differ_from_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference(home)
    status, out, err = compared(capsys, "reference", "reference", "--format", "json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["runs"] == ["reference", "reference"]
    assert found["software"] == []
    assert found["differences"]
    assert not any(row["told"] for row in found["differences"])
    assert {row["ratio"] for row in found["differences"]} == {1.0}


@pytest.mark.parametrize(
    ("runs", "words"), [(["reference"], "at least two"), (["no-such-run", "reference"], "no-such-run")]
)
def test_what_cannot_be_compared_is_told_in_one_line(
    runs: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = compared(capsys, *runs)
    assert status in (1, 2)
    assert words in err
    assert (out, err.count("\n")) == ("", 1)


def test_where_no_number_can_be_compared_no_list_is_begun(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference(home)
    monkeypatch.setattr("lab.cli.compare.estimates", lambda _: pd.DataFrame())
    monkeypatch.setattr("lab.cli.compare.compare", lambda _: Comparison((), 0, ()))
    status, out, _ = compared(capsys, "reference", "reference")
    assert status == 0
    assert "Ratios to" not in out
    assert "No differences told." in out
