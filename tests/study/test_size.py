"""Servers of known behaviour are measured: what is seen of them, kept of them, and refused."""

import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.scripted_search import FAILED_RPS, HELD_RPS, Scripted

from lab.errors import LabError, UsageError
from lab.experiments import your_server
from lab.models.sizing import Limit
from lab.study.run import Run
from lab.study.runs import open_run
from lab.study.size import Interrupted, Size, size
from lab.study.size_plan import Plan
from lab.study.stability import Noise

APPS = Path(__file__).parent.parent / "helpers" / "sized"
MB = 2**20
FEWEST = 20
"""Requests at half of the sustained rate, whatever time that takes."""


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.study.size.Search", Scripted)


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at latencies no longer than at a rate, where nothing depends on how many requests there are."""
    monkeypatch.setattr("lab.study.size.LONGER", 1.0)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody else use the machine: a wait for CPUs looks like a wait for anything else."""
    monkeypatch.setattr("lab.study.watched.between", lambda *_: Noise(0.0, 0.0, None, 0.0))


def planned(*command: str, workers: tuple[int, ...] = (1,), **more: Any) -> Plan:
    return Plan(command=command, workers=workers, folder=str(APPS), **{"duration_s": 0.5, **more})


def wsgi(path: str, **more: Any) -> Plan:
    return planned(sys.executable, "prefork.py", "{host}", "{port}", "{workers}", path=path, **more)


def gunicorn() -> Plan:
    command = (sys.executable, "-m", "gunicorn", "-w", "{workers}", "-b", "{host}:{port}", "apps:wsgi")
    return planned(*command, workers=(2,))


def uvicorn() -> Plan:
    told = ("--workers", "{workers}", "--host", "{host}", "--port", "{port}", "--log-level", "error")
    return planned(sys.executable, "-m", "uvicorn", *told, "apps:asgi", workers=(2,))


def node() -> Plan:
    if not (found := shutil.which("node")):
        pytest.skip("there is no node here")
    return planned(found, "clustered.mjs", workers=(2,))


def described(plan: Plan, run: Run | None = None) -> Size:
    """Measure it; check what holds for every server."""
    found = size(plan, run)
    told = found.to_dict()
    assert told.keys() >= {
        "command", "slo", "recommended_workers", "limited_by", "why", "by_workers", "run_id",
    }  # fmt: skip
    assert [row["workers"] for row in told["by_workers"]] == plan.counts()
    assert told["limited_by"] in set(Limit)
    for row in found.rows:
        assert (row.lower_rps or 0) < HELD_RPS < FAILED_RPS < (row.upper_rps or 0)
        assert 0 < (row.p50_s_at_80 or 0) <= (row.p99_s_at_80 or 0)
        assert 0 < (row.p50_s_at_half or 0) <= (row.p99_s_at_half or 0)
        assert row.low_requests >= FEWEST, "those at half of the rate, however little more it answers here"
    return found


PYTHONS = [made for made in (gunicorn, uvicorn) if find_spec(made.__name__)]
"""Those that are installed: they are peers, which the package does not need."""


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("made", [*PYTHONS, node], ids=lambda made: made.__name__)
def test_workers_are_seen_by_placeholder_and_by_environment(made: Any) -> None:
    (row,) = described(made()).rows
    assert row.processes == 2
    assert row.low_failures == 0
    assert 2 * MB < (row.pss_bytes_per_worker or 0) < 500 * MB
    assert row.cpu_s_per_request is not None
    assert row.leak_bytes_per_request == 0


@pytest.mark.usefixtures("briefly", "alone")
def test_one_that_sleeps_waits_and_is_kept_in_its_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run, plan = open_run(), wsgi("/sleep", slo=("p99=9s",))
    found = described(plan, run)
    (row,) = found.rows
    assert (row.alone_s or 0) >= 0.02
    assert 0 < (row.cpu_s_per_request or 0) < 0.5 * (row.alone_s or 0)
    assert (found.run_id, found.verdict.workers) == (run.run_id, 1)
    assert found.verdict.limit == Limit.WAITING
    assert (found.verdict.beyond or 0) > 1

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.study.size.ForeignServer", interrupted)
    assert size(plan, run) == found, "it has been measured"
    with pytest.raises(Interrupted) as raised:
        size(replace(plan, workers=(2, 1)), run)
    assert raised.value.found.rows == found.rows, "the fewest are measured first"
    trials = run.newest("size-trials-1")
    assert trials is not None
    assert trials["requests"].tolist() == [20, 50]
    assert (trials["ok"] == trials["requests"]).all()
    with pytest.raises(KeyboardInterrupt):
        size(replace(plan, path="/other"), run)


@pytest.mark.usefixtures("briefly", "alone")
def test_one_that_lets_one_worker_in_at_a_time_is_locked() -> None:
    found = described(wsgi("/lock", workers=(1, 2), slo=("p99=9s",)))
    assert (found.verdict.workers, found.verdict.limit) == (1, Limit.LOCK)
    assert "Something that all workers wait for limits it" in found.why


def test_a_leak_of_1_mb_a_request_is_seen_and_limits_it() -> None:
    found = described(wsgi("/leak"))
    (row,) = found.rows
    assert 0.8 * MB < (row.leak_bytes_per_request or 0) < 1.3 * MB
    assert found.verdict.limit == Limit.MEMORY
    assert row.low_failures == 0


def test_one_that_fails_each_fiftieth_request_is_limited_by_errors() -> None:
    """Of so few requests, 2 % are more than chance only where hardly any may fail."""
    found = size(wsgi("/fail", slo=("p99=9s", "success=99.9%")))
    (row,) = found.rows
    assert 1 <= row.low_failures <= row.low_requests / 20
    assert found.verdict.limit == Limit.ERRORS
    assert "Errors limit it" in found.why


@pytest.mark.usefixtures("briefly")
def test_what_is_sent_is_what_was_asked_for() -> None:
    order = {"method": "POST", "headers": {"X-Key": "hush"}, "body": b"one"}
    (row,) = described(wsgi("/order", ready_path="/", request=order)).rows
    assert row.low_failures == 0
    with pytest.raises(LabError, match="/order answers with status 403"):
        size(wsgi("/order", ready_path="/", request=order | {"headers": {"X-Key": "no"}}))


@pytest.mark.usefixtures("briefly")
def test_one_that_ignores_sigterm_is_measured_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.study.size_plan._DRAIN_S", 0.1)
    stubborn = "import runpy, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.argv.pop(0); "
    stubborn += "sys.path.insert(0, '.'); runpy.run_path('prefork.py', run_name='__main__')"
    command = (sys.executable, "-c", stubborn, "prefork.py", "{host}", "{port}", "{workers}")
    described(planned(*command, workers=(2,)))
    children = psutil.Process().children(recursive=True)
    assert not [one for one in children if "prefork.py" in one.cmdline()]


def test_a_path_that_is_not_there_is_said_before_anything_is_searched() -> None:
    with pytest.raises(LabError, match="/missing answers with status 404: name a path"):
        size(wsgi("/missing"))


def test_one_that_ends_under_load_has_the_last_word() -> None:
    dies = """
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        Answer.asked = getattr(Answer, "asked", 0) + 1
        if Answer.asked > 10:
            print("out of patience", flush=True)
            os._exit(3)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Answer).serve_forever()
"""
    with pytest.raises(LabError, match=r"ended under load .*out of patience"):
        size(planned(sys.executable, "-c", dies))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "give a command that starts the server"),
        ({"command": ("x",), "url": "http://127.0.0.1:1/"}, "or the --url of a running one"),
        ({"url": "http://127.0.0.1:1/", "workers": (1,)}, "leave out --workers"),
        ({"command": ("x", "{prot}")}, r"no placeholder \{prot\}"),
        ({"command": ("gunicorn -w {workers} app:app",)}, "leave out the quotes around a command"),
        ({"command": ("x",), "workers": (0,)}, "must be at least 1, got 0"),
        ({"command": ("x",), "workers": (10**6,)}, "must be at most"),
        ({"command": ("x",), "path": "api"}, "path must begin with /"),
        ({"command": ("x",), "slo": ()}, "at least one SLO"),
        ({"command": ("x",), "slo": ("p99=2",)}, "say the unit"),
        ({"command": ("x",), "precision": 0}, "precision must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Plan(**asked)


def test_secrets_in_headers_and_bodies_are_not_kept() -> None:
    secret = {"headers": [("Authorization", "Bearer hush")], "body": b"hush", "method": "POST", "seed": 0}
    plan = Plan(command=("x", "a b"), request=secret)
    kept = your_server.as_parameters(plan)
    assert "hush" not in repr(kept)
    assert kept["request"] == {"headers": [["Authorization", "..."]], "body": "...", "method": "POST"}
    again = your_server.plan(your_server.Parameters(run="", **kept))
    assert again.command == plan.command
    assert again.digest() == plan.digest()
    assert Plan(command=("x", "a b"), request={"method": "PUT"}).digest() != plan.digest()


def test_how_long_it_takes_is_said_beforehand_and_is_under_three_minutes_for_four() -> None:
    plan = Plan(command=("x",), workers=(1, 2, 4, 5))
    assert 60 < plan.lasts_s() < 180
    assert plan.lasts_s() == pytest.approx(4 * Plan(command=("x",), workers=(1,)).lasts_s())
