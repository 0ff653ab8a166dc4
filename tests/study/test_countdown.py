"""The progress of a measurement: told to whoever polls or watches, with an honest time left."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.study_fakes import FakeResult, condition, fake_attack

from lab.study import progress
from lab.study.plan import Condition
from lab.study.run import open_run


def test_progress_is_told_to_whoever_polls(capsys: pytest.CaptureFixture[str]) -> None:
    run, states = open_run(), list[dict[str, Any]]()

    def watch(condition: Condition, seed: int) -> FakeResult:
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
    assert [line.partition(",")[0] for line in lines if " left (" in line] == [
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
