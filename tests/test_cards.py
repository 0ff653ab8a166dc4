"""How objects show themselves: a server with its workers, a result, a plan, a run, a search, parameters."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.html_page import Page
from helpers.load_rows import GENERATOR, rows
from helpers.study_fakes import condition, fake_attack
from IPython.core.interactiveshell import InteractiveShell

from lab.cards import Card, Shown, listed
from lab.experiments import catalog
from lab.experiments.single_vs_cluster import Parameters
from lab.load.attack import summarized
from lab.load.report import Slo, report
from lab.servers import serve
from lab.servers.foreign import ForeignServer, ForeignSpec
from lab.study.plan import make_plan
from lab.study.runs import open_run
from lab.study.size_plan import Plan
from lab.study.sustained import Sustained

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e"


@pytest.fixture(scope="module")
def shell() -> Any:
    """What a notebook's kernel uses to show the value of a cell."""
    return InteractiveShell()


def seen(shell: Any, value: object) -> dict[str, str]:
    """Return what a front end gets of a cell's value: text, and HTML if there is any."""
    shown: dict[str, str] = shell.display_formatter.format(value)[0]
    return shown


class _Broken(Shown):
    def _card(self) -> Card:
        raise OSError(HOSTILE)


class _Hostile(Shown):
    def _card(self) -> Card:
        return Card(HOSTILE, {HOSTILE: HOSTILE})


@pytest.mark.parametrize("value", [_Broken(), _Hostile()])
def test_nothing_that_is_shown_is_obeyed_and_showing_never_fails(shell: Any, value: Shown) -> None:
    shown = seen(shell, value)
    assert shown["text/plain"].replace("\n", "").isprintable()
    page = Page(shown["text/html"])
    assert page.find("script") == []
    assert "alert(1)" in page.text("table") or "alert(1)" in shown["text/html"]


def test_many_values_are_listed_in_part_and_none_is_a_dash() -> None:
    assert listed(range(14)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more"
    assert listed(()) == "–"


def test_a_server_shows_its_workers_and_once_stopped_no_process(shell: Any) -> None:
    with serve(workers=2, dispatch="shared", iterations=1) as server:
        pids = server.workers
        text = seen(shell, server)["text/plain"]
        assert text.startswith("cluster server\n  state     running\n")
        assert "dispatch  shared" in text
        assert f"pids      {pids[0]}, {pids[1]}" in text
        assert seen(shell, server)["text/html"].count("<tr>") == len(text.splitlines()) - 1
        server.send_signal(signal.SIGSTOP)
        assert "has not responded for 1 s" in seen(shell, server)["text/plain"]
        server.send_signal(signal.SIGCONT)
    text = seen(shell, server)["text/plain"]
    assert "state     stopped" in text
    assert f"was at    {server.url}" in text
    assert "pid" not in text
    assert repr(server) == f"<cluster server, {server.url}, stopped>"


def test_a_server_of_somebody_else_does_not_show_its_command_line(shell: Any) -> None:
    command = (sys.executable, "-m", "http.server", "{port}", "--bind", "{host}", "--directory", "/secret")
    with ForeignServer(ForeignSpec(command=command)) as server:
        text = seen(shell, server)["text/plain"]
        assert "state    running" in text
        assert "secret" not in text + repr(server)


def test_a_result_shows_its_report(shell: Any) -> None:
    result = summarized(
        rows([0.01] * 20), url="http://x/", arrivals="constant", rate=10.0, duration_s=2.0,
        generator=GENERATOR, errors={}, warmup_errors={},
    )  # fmt: skip
    shown = seen(shell, result)
    assert shown["text/plain"] == report(result.summary)
    assert shown["text/html"].startswith("<pre")
    assert "[min, mean, 50, 90, 95, 99, max]" in shown["text/html"]
    assert repr(result) == "<Result of 20 requests, 100 % answered well, p99 10.0 ms>"


def test_a_plan_shows_how_many_trials_what_varies_and_how_long_it_takes(shell: Any) -> None:
    plan = make_plan("sweep", [condition(20), condition(40), condition(80)], blocks=2, seed=1)
    each_s = condition(20).duration_s
    assert plan.lasts_s() == 6 * each_s
    lines = seen(shell, plan)["text/plain"].splitlines()
    assert lines[:2] == ["Plan of sweep", "  trials       6: 3 conditions in 2 blocks, each in random order"]
    assert lines[-1] == "  rate varies  20.0, 40.0, 80.0"
    assert len(lines) == 4


def test_a_plan_for_somebodys_server_keeps_its_secrets(shell: Any) -> None:
    plan = Plan(
        command=("gunicorn", "--token=secret"), workers=(1, 2), request={"headers": {"Cookie": "secret"}}
    )
    text = seen(shell, plan)["text/plain"]
    assert text.startswith("Plan to size gunicorn\n")
    assert "workers  1, 2" in text
    assert "secret" not in text + repr(plan)


def test_a_run_shows_when_where_and_what_was_measured(
    shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    run = open_run("mine", profile="quick", host_label="rack-3")
    run.measure("sweep", [condition(20), condition(40)], blocks=2, seed=1, execute=fake_attack)
    facts = dict(line.strip().split("  ", 1) for line in seen(shell, run)["text/plain"].splitlines()[1:])
    assert facts["profile"].strip() == "quick, unfinished"
    assert facts["machine"].strip().startswith("rack-3 (")
    assert facts["trials"].strip().startswith("4, ")
    assert facts["measured"].strip() == "sweep"
    (run.path / "manifest.json").write_text("{")
    assert "cannot be shown" in seen(shell, run)["text/plain"]
    assert repr(run) == "<Run mine>"


def test_a_search_shows_its_bounds(shell: Any) -> None:
    slos = Slo.parse_all(["p99=250ms"])
    found = Sustained.by_rates("http://x/", slos, "constant", (50.0, None, "interrupted"), ())
    assert repr(found) == "<Sustained: at least 49.5/s>"
    text = seen(shell, found)["text/plain"]
    assert "SLO       p99 <= 250 ms, success >= 99 %, implied" in text
    assert "but       interrupted" in text
    text = seen(shell, replace(found, shares=(0.9, 0.95)))["text/plain"]
    assert "of the own limit  90 % to 95 %" in text


def test_parameters_show_each_with_its_value(shell: Any) -> None:
    defaults = catalog.defaults("02-single-vs-cluster")
    text = seen(shell, Parameters.from_batch(defaults, {"rate": 20}))["text/plain"]
    assert len(text.splitlines()) == 1 + len(defaults)
    assert "  rate               20.0\n" in text
    assert "  run                –\n" in text
