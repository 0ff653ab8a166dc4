"""`lab doctor`: how many CPUs each API says there are, beside how many loops ran at once."""

import json
from typing import Any

import pytest

from lab.cli import main
from lab.cpus import Said
from lab.study.stability import Noise


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
    assert "others used 90 % of all" in text


def test_the_doctor_says_it_to_programs(examined: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = json.loads(doctor(capsys, "--format", "json"))["cpu_counts"]
    assert found["ran_at_once"] == 1.47
    assert found["said"][0] == {"api": "cpu_count", "cpus": 64, "because": ""}
    assert found["said"][-1] == {"api": "loky", "cpus": None, "because": "not installed"}
