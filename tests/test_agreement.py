"""The command that compares two runs: what it prints, and when it exits with 1."""

import runpy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lab.models.statistics import estimate
from lab.study.estimates import stated, table_of
from lab.study.runs import open_run

COMMAND = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "agreement.py"))


def _table(*middles: float) -> Any:
    six = [0.9, 0.95, 0.99, 1.01, 1.05, 1.1]
    return table_of(
        stated("scaling", "speed-up", estimate([middle * x for x in six]), workers=number)
        for number, middle in enumerate(middles, 1)
    )


def test_it_counts_and_names_what_is_apart() -> None:
    found = COMMAND["agreement"](_table(1.0, 1.9), _table(1.02, 2.9))
    *_, apart, overlap, held = COMMAND["report"](found).splitlines()
    assert apart == "apart: scaling: speed-up (workers=2): 1.707 to 2.094 and 2.605 to 3.196"
    assert overlap == "50.0% of the intervals overlap, fewer than 95%"
    assert held.startswith("50.0% of the intervals hold")
    assert COMMAND["report"](COMMAND["agreement"](_table(1.0), _table(1.0))).endswith("the runs agree")


def test_a_run_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMAND["main"](["reference"]) == 2
    assert capsys.readouterr().err == "name two runs: `lab runs` lists them\n"
    assert COMMAND["main"](["frist", "second"]) == 1
    assert capsys.readouterr().err.startswith("there is no run 'frist'")


def test_runs_of_too_few_blocks_agree_in_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    loops = pd.DataFrame({"kernel": "python", "repeat": 1, "wall_s": [0.1], "cpu_s": [0.1]})
    for run_id in ("one", "other"):
        open_run(run_id).table("hot-loop-python-1-1", lambda: loops)
    assert COMMAND["main"](["one", "other"]) == 1
    told = capsys.readouterr().out
    assert "hot-loop" in told
    assert told.endswith("measure at least six blocks in both\n")
