"""`lab compare`, as a user runs it."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.lab_command import finish

from lab import files
from lab.cli import main
from lab.study.compare import Comparison


def test_a_run_does_not_differ_from_itself(home: Path) -> None:
    root = files.checkout()
    assert root is not None
    shutil.copytree(root / "data" / "reference", home / "data" / "reference")
    done = finish(home, "lab", "compare", "reference", "reference", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["runs"] == ["reference", "reference"]
    assert found["software"] == []
    assert found["differences"]
    assert not any(row["told"] for row in found["differences"])
    assert {row["ratio"] for row in found["differences"]} == {1.0}


@pytest.mark.parametrize(
    ("runs", "words"), [(["reference"], "at least two"), (["no-such-run", "reference"], "no-such-run")]
)
def test_what_cannot_be_compared_is_told_in_one_line(home: Path, runs: list[str], words: str) -> None:
    done = finish(home, "lab", "compare", *runs)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_where_no_number_can_be_compared_no_list_is_begun(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = files.checkout()
    assert root is not None
    shutil.copytree(root / "data" / "reference", home / "data" / "reference")
    monkeypatch.setenv(files.HOME, str(home))
    monkeypatch.setattr("lab.cli.compare.compare", lambda _: Comparison((), 0, ()))
    with pytest.raises(SystemExit) as ended:
        main(["compare", "reference", "reference"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "Ratios to" not in said
    assert "No differences told." in said
