"""How many CPUs each API says there are, and how many loops run at once; what the doctor shows of it."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from lab import cpu_counts
from lab.cli import main
from lab.cpu_counts import Said, all_said, run_at_once
from lab.errors import LabError
from lab.study.stability import Noise


def said() -> dict[str, Said]:
    return {one.api: one for one in all_said()}


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave only the programs of an empty folder to be found; return it."""
    monkeypatch.setattr(
        cpu_counts, "find", lambda name: str(tmp_path / name) if (tmp_path / name).exists() else None
    )
    return tmp_path


def test_every_api_that_is_here_is_asked(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(alone, "node", "echo 7")
    program(alone, "nproc", "echo 5")
    (alone / "loky.py").write_text("def cpu_count(): return 3")
    monkeypatch.syspath_prepend(alone)
    importlib.invalidate_caches()
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 6, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr("lab.cpus.quota_cpus", lambda: 1.5)
    found = {api: one.cpus for api, one in said().items()}
    assert found == {
        "Python os.cpu_count()": 64,
        "Python os.process_cpu_count()": 6,
        "affinity": 4,
        "cgroup quota": 1.5,
        "loky.cpu_count()": 3,
        "Node os.availableParallelism()": 7,
        "nproc": 5,
    }


def test_what_is_not_here_or_fails_is_said(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(alone, "nproc", "exit 3")
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr("lab.cpus.quota_cpus", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    found = said()
    assert found["cgroup quota"] == Said("cgroup quota", None, "no quota")
    assert found["Python os.process_cpu_count()"].because == "from Python 3.13 on"
    assert found["loky.cpu_count()"].because == "not installed"
    assert found["Node os.availableParallelism()"].because == "not installed"
    assert found["nproc"].because.startswith("failed: ")
    assert found["nproc"].cpus is None


def test_loops_run_at_once_on_no_more_cpus_than_there_are_loops() -> None:
    assert 0 < run_at_once(1, 0.1) <= 1.1


def test_a_loop_that_ends_early_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_counts, "_LOOP", "")
    with pytest.raises(LabError, match="a loop ended early"):
        run_at_once(2, 0.1)


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the doctor find these counts; return for how many loops it asked."""
    asked: list[int] = []

    def run(loops: int, for_s: float) -> float:
        asked.append(loops)
        return 1.47

    counts = [
        Said("cpu_count", 64),
        Said("quota", 1.5),
        Said("nproc", 2),
        Said("loky", None, "not installed"),
    ]
    monkeypatch.setattr("lab.cli.doctor.all_said", lambda: counts)
    monkeypatch.setattr("lab.cli.doctor.run_at_once", run)
    monkeypatch.setattr("lab.cli.doctor._ceilings", lambda: ([], []))
    monkeypatch.setattr("lab.cli.doctor._QUIET_S", 0.01)
    monkeypatch.setattr("lab.study.stability.between", lambda *_: Noise(0.0, 0.0, None, 0.0))
    return asked


def doctor(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit):
        main(["doctor", *args])
    return capsys.readouterr().out


def test_the_doctor_shows_each_beside_what_ran(
    examined: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {line.split()[0]: line.split()[1:] for line in doctor(capsys).splitlines()}
    assert lines["cpu_count"] == ["64", "more", "than", "ran"]
    assert (lines["quota"], lines["nproc"]) == (["1.5"], ["2"])
    assert lines["loky"] == ["–", "not", "installed"]
    assert lines["loops"][-1] == "1.47"
    assert examined == [64]


def test_a_busy_machine_tells_nothing_of_counts(
    examined: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lab.study.stability.between", lambda *_: Noise(0.0, 0.9, None, 0.0))
    text = doctor(capsys)
    assert "more than ran" not in text
    assert "others used 90.0% of all" in text


def test_the_doctor_says_it_to_programs(examined: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = json.loads(doctor(capsys, "--format", "json"))["cpu_counts"]
    assert found["ran_at_once"] == 1.47
    assert found["said"][0] == {"api": "cpu_count", "cpus": 64, "because": ""}
    assert found["said"][-1] == {"api": "loky", "cpus": None, "because": "not installed"}
