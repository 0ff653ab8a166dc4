"""Other load generators: their reports are read, as they wrote them; those that are here are run.

The reports in `reports` are of wrk 4.1, hey 0.1.4, ab 2.3, autocannon 8.0, loadtest 8.2 and locust 2.47,
asked for 100 requests/s for 2 s by 4 connections, of a server that takes 2 ms and answers each tenth request
with 503.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lab.errors import LabError
from lab.load import peers
from lab.load.attack import attack
from lab.load.peers import TOOLS, Numbers, Tool
from lab.load.reference_server import reference_server
from lab.programs import find

ROOT = Path(__file__).parent.parent.parent

REPORTS = Path(__file__).parent / "reports"
INSTALLED = ("autocannon", "loadtest")
"""What `make test` installs: with `CI=true` these may not be absent."""


def report(name: str) -> str:
    return (REPORTS / name).read_text()


READ = {
    "wrk": peers.read_wrk(report("wrk.txt")),
    "hey": peers.read_hey(report("hey.txt")),
    "ab": peers.read_ab(report("ab.txt"), report("ab.csv")),
    "autocannon": peers.read_autocannon(report("autocannon.json")),
    "loadtest": peers.read_loadtest(report("loadtest.txt")),
    "locust": peers.read_locust(report("locust.json")),
}
SAID = {
    "wrk": Numbers(3840, 0.9 * 1917.17, 2.26e-3, 2.35e-3, 3.23e-3),
    "hey": Numbers(200, 0.9 * 99.3801, 2.6e-3, 2.9e-3, 5.7e-3),
    "ab": Numbers(200, 0.9 * 1833.74, 2.325e-3, 2.48e-3, 2.618e-3),
    "autocannon": Numbers(206, 186 / 2.02, 2e-3, 3e-3, 15e-3),
    "loadtest": Numbers(200, 90, 2e-3, 3e-3, 3e-3),
    "locust": Numbers(144, 130 / 1.3894268, 3e-3, 4e-3, 5e-3),
}


@pytest.mark.parametrize("name", [tool.name for tool in TOOLS])
def test_a_report_is_read_in_seconds_and_failures_are_told_apart(name: str) -> None:
    read, said = (vars(numbers) | {"flags": None} for numbers in (READ[name], SAID[name]))
    assert read == pytest.approx(said)


def test_requests_without_an_answer_are_not_ok() -> None:
    refused = 'Error distribution:\n  [20]\tGet "http://127.0.0.1:1/": dial tcp: connection refused\n'
    numbers = peers.read_hey(report("hey.txt") + refused)
    assert numbers.requests == 220
    assert numbers.throughput_rps == pytest.approx(99.3801 * 180 / 220)
    said = json.loads(report("autocannon.json")) | {"errors": 5}
    assert peers.read_autocannon(json.dumps(said)).requests == 206 + 5


@pytest.mark.parametrize(
    ("text", "value_s"), [("55.00us", 55e-6), ("1.33ms", 1.33e-3), ("2.50s", 2.5), ("1.50m", 90.0)]
)
def test_wrk_writes_times_with_their_unit(text: str, value_s: float) -> None:
    assert peers.read_wrk(report("wrk.txt").replace("3.23ms", text)).p99_s == pytest.approx(value_s)


def test_a_server_that_waits_is_a_known_answer_and_keeps_nobody_waiting() -> None:
    with reference_server(waits_s=(0.05, 0.15)) as server:
        result = attack(server.url, rate=200, duration=1)
    latency_s = np.sort(result.requests["end_s"] - result.requests["sent_s"])
    known_s = 0.05 + 0.1 * (np.arange(200) + 0.5) / 200
    assert result.summary["ok"] == 200
    assert (latency_s > known_s - 0.005).all()
    assert np.median(latency_s - known_s) < 0.1, "one after the other they would take 20 s"


def test_every_tool_is_present_or_absent() -> None:
    names = [tool.name for tool in TOOLS]
    assert sorted([tool.name for tool in peers.present()] + peers.absent()) == sorted(names) == sorted(READ)


@pytest.mark.parametrize("name", [tool.name for tool in TOOLS if tool.name in INSTALLED or find(tool.name)])
def test_a_tool_that_is_here_loads_our_server(name: str) -> None:
    if not find(name):
        pytest.skip(f"{name} is not on this machine: install npm, then `make test`")
    (tool,) = [tool for tool in TOOLS if tool.name == name]
    with reference_server() as server:
        measured = peers.run(tool, server.url, rate_rps=100, duration_s=1, connections=2)
        assert server.requests() >= 0.9 * measured.numbers.requests
    assert measured.numbers.throughput_rps >= 10
    assert measured.cpu_s > 0


def test_what_make_installs_is_locked_and_names_no_registry() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert set(INSTALLED) <= set(wanted)
    assert locked[""]["devDependencies"] == wanted
    assert all("resolved" not in package for package in locked.values())
    assert all("integrity" in package for name, package in locked.items() if name)


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that programs are found in."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def fake(folder: Path, code: str) -> Tool:
    """Put a program on PATH that runs some Python, and return it as a tool."""
    program = folder / "fake"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    return Tool("fake", "closed", lambda job: ["fake", job.url], lambda out, _: peers.read_wrk(out))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no such option')", "fake failed with status 1: no such option"),
        ("print('all is well')", "cannot read what fake says"),
    ],
)
def test_a_tool_that_fails_is_one_line(on_path: Path, code: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        peers.run(fake(on_path, code), "http://127.0.0.1:1/", rate_rps=1, duration_s=1)


def test_a_tool_that_does_not_end_is_ended(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.load.peers._GRACE_S", 0.0)
    with pytest.raises(LabError, match="did not end in time"):
        peers.run(fake(on_path, "import time; time.sleep(100)"), "http://x/", rate_rps=1, duration_s=1)


def test_a_tool_that_is_not_there_is_said_so(on_path: Path) -> None:
    with pytest.raises(LabError, match="nothing-of-the-kind is not on this machine"):
        peers.run(
            Tool("nothing", "open", lambda _: ["nothing-of-the-kind"], lambda out, _: peers.read_wrk(out)),
            "http://127.0.0.1:1/", rate_rps=1, duration_s=1,
        )  # fmt: skip
