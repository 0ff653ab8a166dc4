"""The instrument from outside: servers with known answers, a closed loop beside it, its own ceiling."""

import errno
import itertools
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.clients import gone, until
from helpers.load_rows import GENERATOR, rows
from helpers.load_servers import serving, stalling

from lab.cli import main
from lab.cpus import available_cpus
from lab.errors import LabError
from lab.experiments.instrument.stalls import closed_loop
from lab.figures import timeline
from lab.flags import Flag
from lab.load.attack import Result, attack, summarized
from lab.load.ceiling import Step, ceiling_rps, measure_ceiling, reasons
from lab.load.generators import (
    AboveCeilingWarning,
    generators_for,
    keep_ceilings,
    kept_ceiling_rps,
    warn_above,
)
from lab.load.log import OUTCOMES, Outcome
from lab.load.reference_server import reference_server
from lab.load.report import report
from lab.load.summary import over_time


@pytest.mark.parametrize("keepalive", [False, True])
def test_the_server_has_read_what_was_sent(keepalive: bool) -> None:
    with reference_server() as server:
        sent = attack(server.url, rate=200, duration=0.5, generators=2, keepalive=keepalive).summary["sent"]
        assert server.requests() == sent == 100


def test_a_reference_server_ends_with_its_starter() -> None:
    code = (
        "from lab.load.reference_server import reference_server\n"
        "with reference_server() as server:\n"
        "    print(server.pid, flush=True)\n"
        "    import os; os._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    until(lambda: gone(pid), 2)


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of Linux's scheduler")
@pytest.mark.parametrize(("generators", "leave_a_cpu"), [(1, True), (max(2, available_cpus()), False)])
def test_generators_go_before_other_processes_if_that_leaves_a_cpu(
    generators: int, leave_a_cpu: bool
) -> None:
    code = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    may = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    with reference_server() as server:
        summary = attack(server.url, rate=100, duration=0.1, generators=generators).summary
    assert summary["generator"]["realtime"] == (may and leave_a_cpu)
    says = "yes" if may and leave_a_cpu else "no"
    assert re.search(rf"\[real-time priority\] +{says}\n", report(summary))


def test_a_closed_loop_forgets_what_an_open_one_shows() -> None:
    """Coordinated omission: one slow request in the closed loop, half of all in the open one."""
    with serving(stalling(10, 0.5)) as server:
        closed = closed_loop(server.url, rate=100, duration_s=1)
    with serving(stalling(10, 0.5)) as server:
        open_loop = attack(server.url, rate=100, duration=1).requests
    slow = [int(((frame["end_s"] - frame["due_s"]) > 0.1).sum()) for frame in (closed, open_loop)]
    assert slow[0] <= 3
    assert slow[1] >= 40
    assert len(closed) < len(open_loop)
    assert list(closed.columns) == list(open_loop.columns)


def test_a_ceiling_is_measured_on_a_server_that_answers() -> None:
    *_, last = measure_ceiling(rates_rps=(20,), duration=0.05)
    assert last.rate_rps == 20
    assert last.held == (not reasons(last))


@pytest.mark.parametrize(
    ("holds", "tried", "ceiling"),
    [
        (lambda rate, _: rate <= 50, [20, 50, 100, 100, 100], 50),
        (lambda rate, number: rate <= 50 and number % 3 == 0, [20, 20, 20, 50, 50, 50, 100, 100, 100], 50),
        (lambda *_: True, [20, 50, 100, 200], 200),
        (lambda *_: False, [20, 20, 20], 0),
    ],
)
def test_a_rate_has_three_tries_to_hold(
    holds: Callable[[float, int], bool], tried: list[float], ceiling: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = itertools.count(1)

    def offered(_: str, *, rate: float, **__: object) -> Result:
        lag_s = 0.0 if holds(rate, next(number)) else 0.02
        asked: dict[str, Any] = {"url": "", "arrivals": "constant", "rate": rate, "duration_s": 1.0}
        asked |= {"generator": {"lag_p99_s": lag_s, "cpu_s": 0.1}, "warmup_errors": {}}
        return summarized(rows([0.001]), **asked)

    monkeypatch.setattr("lab.load.ceiling.attack", offered)
    monkeypatch.setattr("lab.load.ceiling.reference_server", lambda: nullcontext(AskedOnce()))
    steps = measure_ceiling(rates_rps=(20, 50, 100, 200))
    assert [step.rate_rps for step in steps] == tried
    assert ceiling_rps(steps) == ceiling


class AskedOnce:
    """A reference server that has read one request."""

    url = ""

    def requests(self) -> int:
        return 1


def test_a_ceiling_is_remembered() -> None:
    assert kept_ceiling_rps(keepalive=False) is None
    keep_ceilings(40, 80)
    assert (kept_ceiling_rps(keepalive=False), kept_ceiling_rps(keepalive=True)) == (40, 80)


def test_a_ceiling_that_cannot_be_kept_is_said(home: Path) -> None:
    (home / "data").touch()
    with pytest.raises(LabError, match=r"cannot write .*ceiling\.json"):
        keep_ceilings(40, 80)


@pytest.mark.parametrize(
    ("load", "enough"),
    [
        (["--rate", "100", "--duration", "0.1s"], ["3"]),
        (["--stages", "ramp from 1/s to 100/s over 0.1s"], []),
    ],
)
def test_the_command_warns_of_more_than_the_ceiling(
    load: list[str], enough: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.load.generators.available_cpus", lambda: 4)
    keep_ceilings(40, 80)
    with reference_server() as server:
        for generators in ("1", *enough):
            with pytest.raises(SystemExit, match="0"):
                main(["attack", server.url, *load, "--generators", generators])
    warning = "lab: 100/s is more than lab doctor trusts 1 generator with (40.0/s each): add --generators 3"
    assert capsys.readouterr().err == f"{warning} (generators=3)\n"


def test_python_warns_of_more_than_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.load.generators.available_cpus", lambda: 4)
    keep_ceilings(1000, 40)
    with reference_server() as server:
        with pytest.warns(AboveCeilingWarning, match="generators=3") as warned:
            attack(server.url, rate=100, duration=0.1, keepalive=True)
        assert warned[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error", AboveCeilingWarning)
            attack(server.url, rate=100, duration=0.1)
            measure_ceiling(rates_rps=(100,), duration=0.05, keepalive=True)


@pytest.mark.parametrize(("ceiling_rps", "advice"), [(30, "more CPUs"), (0, "when the machine is quiet")])
def test_what_more_generators_cannot_do_is_not_advised(
    ceiling_rps: float, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.load.generators.available_cpus", lambda: 4)
    keep_ceilings(1000, ceiling_rps)
    with pytest.warns(AboveCeilingWarning) as warned:
        warn_above(100, 1, keepalive=True)
    (text,) = [str(one.message) for one in warned]
    assert advice in text
    assert "--generators" not in text


@pytest.mark.parametrize(
    ("rate_rps", "cpus", "enough"),
    [(10, 64, 1), (500, 64, 1), (501, 64, 2), (6400, 64, 13), (6400, 2, 1), (6400, 1, 1)],
)
def test_a_rate_gets_as_many_generators_as_it_needs_and_the_cpus_allow(
    rate_rps: float, cpus: int, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.load.generators.available_cpus", lambda: cpus)
    assert generators_for(rate_rps, keepalive=False) == enough
    keep_ceilings(0, 4000)
    assert generators_for(rate_rps, keepalive=False) == enough, "a ceiling of 0 says that none was found"
    assert generators_for(rate_rps, keepalive=True) == min(enough, max(1, -(-rate_rps // 2000)))


@pytest.mark.parametrize("cpus", [1, 2])
def test_generators_that_leave_no_cpu_are_not_believed(cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.load.generators.available_cpus", lambda: cpus)
    keep_ceilings(40, 80)
    with pytest.warns(AboveCeilingWarning, match=r"trusts 1 generator with .* more CPUs") as warned:
        warn_above(41, 8, keepalive=False)
    assert len(warned) == 1


def test_seconds_of_an_attack_add_up() -> None:
    outcomes = [Outcome.OK, Outcome.OK, Outcome.TIMEOUT, Outcome.DROPPED, Outcome.UNFINISHED, Outcome.OK]
    table = over_time(rows([0.1, 1.1, 2.0, 0.0, 0.0, 0.1], outcomes, interval_s=0.5))
    assert table["start_s"].tolist() == [0, 1, 2, 3]
    assert table["due"].tolist() == [2, 2, 2, 0]
    assert table["ok"].tolist() == [1, 1, 1, 0]
    assert table["timeout"].tolist() == [0, 0, 0, 1]
    assert table["dropped"].tolist() == [0, 1, 0, 0]
    assert table["in_flight"].tolist() == [1, 1, 2, 1]
    assert table["p50_s"].tolist()[:2] == pytest.approx([0.6, 2.0])


def test_a_constant_rate_is_constant_in_every_bin() -> None:
    """0.3 s is the fourth tenth of a second, though 0.3 / 0.1 is under 3."""
    table = over_time(rows([0.02] * 400, interval_s=0.01), 0.1)
    assert table["due"].tolist()[:40] == [10] * 40


def test_nothing_is_lost_between_the_bins() -> None:
    requests = rows(list(np.linspace(0.01, 3, 200)), interval_s=0.013)
    for bin_s in (0.1, 0.7, 10.0):
        table = over_time(requests, bin_s)
        assert table["due"].sum() == table[list(OUTCOMES)].to_numpy().sum() == 200
        assert table["in_flight"].iloc[-1] == 0


def test_the_figure_shows_each_outcome() -> None:
    outcomes = [Outcome.OK, Outcome.TIMEOUT, Outcome.RESET] * 20
    requests = rows([0.1] * 60, outcomes)
    figure = timeline.over_time(over_time(requests), requests, "a title")
    legends = [legend for axes in figure.axes if (legend := axes.get_legend())]
    words = {text.get_text() for legend in legends for text in legend.get_texts()}
    assert {"answered well", "timeout", "reset", "offered", "a request", "a failed one"} == words


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Return the records of an attack of half a second."""
    asked: dict[str, Any] = {"url": "", "arrivals": "constant", "rate": 50.0, "duration_s": 0.5}
    path = tmp_path / "a.parquet"
    summarized(rows([0.1] * 25, interval_s=0.02), **asked, generator=GENERATOR, warmup_errors={}).save(path)
    return path


def test_kept_records_are_drawn(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = kept.with_name("b.png")
    for arguments in ([], ["--out", str(picture), "--bin", "1ms"]):
        with pytest.raises(SystemExit, match="0"):
            main(["plot", str(kept), *arguments])
    assert kept.with_suffix(".svg").read_text().startswith("<?xml")
    assert picture.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    for arguments, status, message in (
        (["--out", "c.txt"], "2", "ends in .svg"),
        (["--bin", "1us"], "2", "use a wider one"),
        (["--bin", "0"], "2", "a duration must be above 0"),
        (["--out", str(kept.parent / "none" / "c.svg")], "1", "is not a writable folder"),
    ):
        with pytest.raises(SystemExit, match=status):
            main(["plot", str(kept), *arguments])
        assert message in capsys.readouterr().err


def test_a_picture_is_drawn_whole_or_not_at_all(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = kept.with_suffix(".svg")
    picture.write_text("an older one")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit, match="1"):
        main(["plot", str(kept)])
    assert capsys.readouterr().err.startswith(f"lab: cannot write {picture}: no space left")
    assert picture.read_text() == "an older one"
    assert sorted(path.name for path in kept.parent.iterdir()) == ["a.parquet", "a.svg"]


def test_the_doctor_says_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    monkeypatch.setattr("lab.load.ceiling.RATES_RPS", (20,))
    monkeypatch.setattr("lab.cli.doctor._QUIET_S", 0.1)
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--format", "json"])
    findings = json.loads(capsys.readouterr().out)
    assert left.value.code == 1  # a ceiling of 20/s is too low for a study
    assert not findings["fit"]
    assert any("can be believed only up to" in complaint for complaint in findings["complaints"])
    assert findings["machine"]["available_cpus"] >= 1
    assert kept_ceiling_rps(keepalive=True) == findings["ceiling_rps"]["keepalive"]


def test_a_value_just_beyond_its_limit_can_be_told_from_it() -> None:
    assert str(Flag("stalled", 0.01004, 0.01)).endswith("1.004 % (limit 1 %)")
    assert str(Flag("stalled", 0.02, 0.01)).endswith("2 % (limit 1 %)")
    assert str(Flag("send_lag", 0.0100000001, 0.01)).count("just beyond") == 1


def test_the_doctor_keeps_each_ceiling_in_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(*, keepalive: bool, **_: object) -> list[Step]:
        return [Step(2000 if keepalive else 1000, keepalive, True, (), (), 0, 0, 0, 0, 0, True)]

    monkeypatch.setattr("lab.cli.doctor.measure_ceiling", found)
    monkeypatch.setattr("lab.cli.doctor._QUIET_S", 0.1)
    with pytest.raises(SystemExit):
        main(["doctor"])
    assert capsys.readouterr().err.startswith("lab: examining this machine takes up to")
    assert (kept_ceiling_rps(keepalive=False), kept_ceiling_rps(keepalive=True)) == (1000, 2000)
