"""`lab size`: its text, its JSON, its run and its exit statuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.scripted_search import Scripted

from lab import files
from lab.cli import main
from lab.experiments import your_server
from lab.models.sizing import Sized
from lab.servers import serve
from lab.study.runs import find_runs, open_run
from lab.study.size import Size
from lab.study.size_plan import Plan

OURS = (sys.executable, "-m", "http.server", "{port}", "--bind", "{host}")


@pytest.fixture(autouse=True)
def notebooks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Search by script, execute no notebook, and note with what parameters one would have been."""
    executed: list[dict[str, Any]] = []
    monkeypatch.setattr("lab.study.size.Search", Scripted)
    monkeypatch.setattr(
        "lab.cli.execute.execute", lambda name, output, parameters: executed.append(parameters)
    )
    monkeypatch.setattr("lab.report.write_report", lambda run_id, to_come: Path(run_id) / "index.html")
    return executed


def said(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, list[str]]:
    with pytest.raises(SystemExit) as left:
        main(["size", *args])
    out, err = capsys.readouterr()
    return int(str(left.value.code)), out, err.splitlines()


def test_json_is_what_the_contract_says_and_the_notebook_finds_what_was_measured(
    capsys: pytest.CaptureFixture[str], notebooks: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--workers", "1", "--duration", "0.3s", "--header", "X-Key: hush", "--format", "json")
    status, out, err = said(capsys, *options, "--", *OURS)
    told = json.loads(out)
    assert status == 0
    assert told["command"] == list(OURS)
    assert told["slo"][0] == {"name": "p99", "limit": 0.25, "implied": False}
    (row,) = told["by_workers"]
    assert row.keys() >= {
        "workers", "lower_rps", "upper_rps", "p99_s_at_half", "p99_s_at_80", "cpu_s_per_request",
        "pss_bytes_per_worker", "busiest_share",
    }  # fmt: skip
    assert (told["recommended_workers"], row["workers"]) == (1, 1)
    assert told["why"].startswith("Take 1 worker: it sustains ")
    (manifest,) = find_runs()
    assert (manifest.run_id, manifest.profile, manifest.state) == (told["run_id"], "size", "complete")
    assert err[0].startswith(f"run {manifest.run_id}: ")
    assert "about " in err[0]
    assert err[-1].startswith("report: ")

    (parameters,) = notebooks
    assert "hush" not in json.dumps(parameters) + manifest.model_dump_json()
    monkeypatch.setattr("lab.study.size.ForeignServer", None)
    plan = your_server.plan(your_server.Parameters(**parameters))
    again = your_server.measure(open_run(manifest.run_id), plan)
    assert again.to_dict() == told | {"slo": again.to_dict()["slo"]}
    figure = your_server.figure(again)
    assert figure is not None
    assert [axes.get_title("left") for axes in figure.axes] == [
        "Sustained rate", "Latency at .8 of it", "Who uses the CPUs then",
    ]  # fmt: skip


def test_of_a_running_server_there_is_one_number(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(topology="single", workers=1, iterations=1000) as server:
        status, out, _ = said(capsys, "--url", server.url + "/api/slow", "--duration", "0.3s")
    assert status == 0
    assert out.startswith("The running server sustains ")
    assert "workers" not in out
    assert "SLO: p99 <= 250 ms, success >= 99 %, implied" in out


def test_where_random_arrivals_miss_the_slo_it_is_told() -> None:
    row = Sized(workers=2, lower_rps=100.0, upper_rps=110.0, p50_s_at_80=0.01, p99_s_at_80=0.26)
    rows = (replace(row, workers=1, upper_rps=None, p99_s_at_80=0.2, reason="its time was up"), row)
    assert your_server.notes(Size(Plan(command=("x",)), rows, cpus=2, memory_bytes=1e9)) == [
        "1: its time was up",
        "2: at .8 of the rate with random arrivals, p99 is 260 ms, more than the SLO allows: leave more room",
    ]


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        ((), 2, "give a command"),
        (("--url", "http://127.0.0.1:1/", "--", "x"), 2, "give a command"),
        (("--url", "http://127.0.0.1:1/", "--path", "/slow"), 2, "leave out --path and --ready-path"),
        (("--url", "http://127.0.0.1:1/", "--ready-path", "/up"), 2, "leave out --path and --ready-path"),
        (("--workers", "0", "--", "x"), 2, "--workers must be at least 1 each, got 0"),
        (("--workers", "two", "--", "x"), 2, "malformed --workers 'two': write numbers such as 1,2,4"),
        (("--", "x", "{hots}"), 2, "has no placeholder {hots}"),
        (("--header", "nonsense", "--", "x"), 2, "malformed header"),
        (("--", "no-such-program"), 1, "cannot start no-such-program: no such file"),
        (("--", sys.executable, "-c", "print('no luck'); raise SystemExit(3)"), 1, "no luck"),
        (("--url", "http://127.0.0.1:1/"), 1, "cannot reach"),
        (("--start-timeout", "0.3s", "--", "sleep", "60"), 1, "does it listen on {host}:{port}?"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_run(
    args: tuple[str, ...], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left, out, err = said(capsys, *args)
    assert (left, out) == (status, "")
    assert err[-1].startswith("lab: ")
    assert message in err[-1]
    assert not list(files.data().glob("*"))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://me:secret@127.0.0.1:8000/"])
def test_a_url_that_cannot_be_attacked_is_told_before_anything_else(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = said(capsys, "--url", url)
    assert (status, out, len(err)) == (2, "", 1)
    assert "secret" not in err[0]


def test_one_that_listens_elsewhere_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); time.sleep(60)"
    args = ("--start-timeout", "1.5s", "--", sys.executable, "-c", elsewhere)
    status, _, err = said(capsys, *args)
    assert status == 1
    assert "it listens on port " in err[-1]
    assert "use {port}, or PORT" in err[-1]
