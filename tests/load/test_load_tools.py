"""Other load generators: their reports are read, pinned as they print them; those present are run."""

import json
import sys
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.load import tools
from lab.load.known_server import known_server
from lab.load.tools import Tool, readers
from lab.load.tools.known import TOOLS
from lab.load.tools.readers import Numbers

WRK = """\
Running 2s test @ http://127.0.0.1:46463/
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   395.57us    0.95ms   8.91ms   90.05%
    Req/Sec    41.63k    11.26k   58.09k    55.00%
  Latency Distribution
     50%   55.00us
     75%  106.00us
     90%    1.33ms
     99%    4.63ms
  82878 requests in 2.00s, 7.43MB read
  Non-2xx or 3xx responses: 78
Requests/sec:  41350.32
Transfer/sec:      3.71MB
"""

HEY = """\

Summary:
  Total:\t2.0046 secs
  Slowest:\t0.0016 secs
  Fastest:\t0.0001 secs
  Average:\t0.0003 secs
  Requests/sec:\t199.5399

Latency distribution:
  10% in 0.0001 secs
  50% in 0.0003 secs
  90%% in 0.0005 secs
  99% in 0.0012 secs

Status code distribution:
  [200]\t400 responses
  [503]\t2 responses

Error distribution:
  [3]\tGet "http://127.0.0.1:1/": dial tcp 127.0.0.1:1: connect: connection refused
"""

AB = """\
Complete requests:      2000
Failed requests:        0
Non-2xx responses:      5
Requests per second:    33947.40 [#/sec] (mean)
Time per request:       0.295 [ms] (mean)
Time per request:       0.029 [ms] (mean, across all concurrent requests)
"""

AUTOCANNON = {
    "duration": 2.0,
    "errors": 1,
    "2xx": 390,
    "3xx": 0,
    "requests": {"total": 400},
    "latency": {"mean": 0.89, "p50": 0, "p90": 3, "p99": 7, "max": 9, "totalCount": 500},
}

LOADTEST = """\
Target URL:          http://127.0.0.1:46463/
Completed requests:  400
Total errors:        4
Total time:          2 s
Mean latency:        0.1 ms
Effective rps:       200

Percentage of requests served within a certain time
  50%      1 ms
  90%      1 ms
  95%      1 ms
  99%      3 ms
 100%      8 ms (longest request)
"""

LOCUST = [
    {
        "num_requests": 100,
        "num_failures": 10,
        "start_time": 1000.0,
        "last_request_timestamp": 1002.0,
        "total_response_time": 250.0,
        "max_response_time": 29.6,
        "response_times": {"1.0": 50, "2": 40, "3": 9, "30": 1},
    }
]

VEGETA = {
    "requests": 50,
    "throughput": 49.5,
    "status_codes": {"200": 48, "0": 2},
    "latencies": {"mean": 2e6, "50th": 1e6, "90th": 3e6, "95th": 4e6, "99th": 5e6, "max": 6e6},
}

K6 = {
    "metrics": {
        "http_req_duration": {"avg": 2.0, "med": 1.0, "p(90)": 3.0, "p(99)": 5.0, "max": 6.0},
        "http_reqs": {"count": 100, "rate": 50.0},
        "http_req_failed": {"passes": 10, "fails": 90},
    }
}

OHA = {
    "summary": {"total": 2.0, "average": 0.002, "slowest": 0.006},
    "latencyPercentiles": {"p50": 0.001, "p90": 0.003, "p99": 0.005},
    "statusCodeDistribution": {"200": 90, "500": 8},
    "errorDistribution": {"deadline": 2},
}


def percentiles() -> list[str]:
    return ["Percentage served,Time in ms", *(f"{percent},{percent / 100:.3f}" for percent in range(101))]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (readers.wrk(WRK), Numbers(82878, 82800, 41350.32, 395.57e-6, 55e-6, 1.33e-3, 4.63e-3, 8.91e-3)),
        (readers.hey(HEY), Numbers(405, 400, 199.5399, 0.0003, 0.0003, 0.0005, 0.0012, 0.0016)),
        (readers.ab(AB, percentiles()), Numbers(2000, 1995, 33947.4, 295e-6, 0.5e-3, 0.9e-3, 0.99e-3, 1e-3)),
        (readers.autocannon(json.dumps(AUTOCANNON)), Numbers(401, 390, 195, 0.89e-3, 0, 3e-3, 7e-3, 9e-3)),
        (readers.loadtest(LOADTEST), Numbers(400, 396, 200, 0.1e-3, 1e-3, 1e-3, 3e-3, 8e-3)),
        (readers.locust(json.dumps(LOCUST)), Numbers(100, 90, 45, 2.5e-3, 1e-3, 2e-3, 3e-3, 29.6e-3)),
        (readers.vegeta(json.dumps(VEGETA)), Numbers(50, 48, 49.5, 2e-3, 1e-3, 3e-3, 5e-3, 6e-3)),
        (readers.k6(json.dumps(K6)), Numbers(100, 90, 45, 2e-3, 1e-3, 3e-3, 5e-3, 6e-3)),
        (readers.oha(json.dumps(OHA)), Numbers(100, 90, 45, 2e-3, 1e-3, 3e-3, 5e-3, 6e-3)),
    ],
)
def test_a_report_is_read_in_seconds(found: Numbers, expected: Numbers) -> None:
    assert vars(found) == pytest.approx(vars(expected))


def test_every_tool_is_present_or_absent() -> None:
    names = [tool.name for tool in TOOLS]
    assert sorted([tool.name for tool in tools.present()] + tools.absent()) == sorted(names)
    assert "oha" in names


@pytest.mark.parametrize("tool", tools.present(), ids=lambda tool: tool.name)
def test_a_tool_that_is_present_loads_our_server(tool: Tool) -> None:
    with known_server() as server:
        measured = tools.run(tool, server.url, rate_rps=50, duration_s=2, connections=2)
        assert server.requests() >= 0.9 * measured.numbers.requests
    assert measured.numbers.ok
    assert measured.numbers.ok >= 50
    assert measured.cpu_s > 0


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
    return Tool("fake", "closed", lambda job: ["fake", job.url], lambda out, _: readers.wrk(out))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no such option')", "fake failed with status 1: no such option"),
        ("print('all is well')", "cannot read what fake says"),
    ],
)
def test_a_tool_that_fails_is_one_line(on_path: Path, code: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        tools.run(fake(on_path, code), "http://127.0.0.1:1/", rate_rps=1, duration_s=1)


def test_a_tool_that_does_not_end_is_ended(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.load.tools.tool._GRACE_S", 0.0)
    with pytest.raises(LabError, match="did not end in time"):
        tools.run(fake(on_path, "import time; time.sleep(100)"), "http://x/", rate_rps=1, duration_s=1)


def test_a_tool_that_is_not_there_is_said_so(on_path: Path) -> None:
    with pytest.raises(LabError, match="nothing-of-the-kind is not on this machine"):
        tools.run(
            Tool("nothing-of-the-kind", "open", lambda _: [], lambda out, _: readers.wrk(out)),
            "http://127.0.0.1:1/", rate_rps=1, duration_s=1,
        )  # fmt: skip
