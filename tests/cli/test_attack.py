"""`lab attack`: exit statuses, one-line errors, and files."""

import errno
import json
from pathlib import Path

import pytest
from helpers.load_servers import broken, greet, serving

from lab.cli import main
from lab.errors import LabError
from lab.load import records
from lab.load.attack import Result


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main(["attack", *map(str, arguments)])
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return records of one short attack."""
    path = tmp_path_factory.mktemp("kept") / "a.parquet"
    with serving(greet) as server:
        assert run(server.url, "--rate", "50", "--duration", "200ms", "--warmup", "40ms", "--out", path) == 0
    return path


def test_records_are_kept_and_reported_on_again(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(records.read(kept)) == 12
    assert run("--from", kept, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["planned"] == 10
    assert run("--from", kept, "--format", "csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "due_s,sent_s,end_s,outcome,status,service_s,service_cpu_s,worker,bytes_in"
    assert len(lines) == 11
    assert run("--from", kept) == 0
    assert capsys.readouterr().out.startswith("Requests      [planned, rate, throughput]")
    assert run("--from", kept, "--format", "hist") == 0
    assert "#" in capsys.readouterr().out


def test_a_missed_objective_is_status_1_and_says_which(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--from", kept, "--slo", "p99=60s", "--slo", "success=100%") == 0
    assert run("--from", kept, "--slo", "p99=1us", "--slo", "success=100%") == 1
    assert capsys.readouterr().err.startswith("lab: SLO missed: p99 is ")


@pytest.mark.parametrize(
    "option",
    [
        "--rate=5",
        "--duration=1s",
        "--timeout=30s",
        "--generators=1",
        "--warmup=1s",
        "--header=X:y",
        "--insecure",
    ],
)
def test_kept_records_are_not_attacked_with(
    kept: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--from", kept, option) == 2
    name = option.partition("=")[0]
    assert (
        capsys.readouterr().err
        == f"lab: {name} sets up an attack, --from reads kept records: leave one out\n"
    )


def test_a_folder_is_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--from", tmp_path) == 2
    assert "is a directory" in capsys.readouterr().err
    with pytest.raises(LabError, match="it is a folder; name a file in it"):
        Result.load(tmp_path)


@pytest.mark.parametrize("rate", ["50/s", "3,000/m", "50"])
def test_rates_and_no_warm_up_are_taken_as_people_write_them(
    rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(greet) as server:
        options = ["--duration", "100ms", "--warmup", "0", "--slo", "p99=8.7 s", "--format", "json"]
        assert run(server.url, "--rate", rate, *options) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["planned"], summary["warmup"]["planned"]) == (5, 0)
    assert [(slo["name"], slo["met"], slo["implied"]) for slo in summary["slo"]] == [
        ("p99", True, False), ("success", True, True),
    ]  # fmt: skip


def test_an_objective_is_not_met_by_failing_fast(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(broken) as server:
        assert run(server.url, "--rate", "50", "--duration", "100ms", "--slo", "p99=2s") == 1
    said = capsys.readouterr()
    assert "lab: SLO missed: success is 0 %, under 99 %, which a latency SLO implies\n" in said.err
    assert "[success >= 99 %, implied]" in said.out


def test_a_report_is_printed_though_its_file_cannot_be_written(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    assert run("--from", kept, "--out", tmp_path / "b.parquet") == 1
    said = capsys.readouterr()
    assert said.out.startswith("Requests ")
    assert said.err.startswith(f"lab: cannot write {tmp_path / 'b.parquet'}: no space left on device")
    assert not (tmp_path / "b.parquet").exists()


def test_stages_are_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(greet) as server:
        stages = "50/s for 100ms, ramp to 150/s over 100ms"
        assert run(server.url, "--stages", stages, "--header", "X-A: b", "--format", "json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["planned"] == summary["ok"] == 15
    assert summary["rate"] == pytest.approx(75)
    assert summary["stages"] == stages
    assert b"X-A: b\r\n" in server.requests[1]


RATE = ("--rate", "5", "--duration", "1s")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--rate", "0", "--duration", "1s"), 2, "rate must be above 0"),
        (("--rate", "-1", "--duration", "1s"), 2, "malformed rate"),
        (("--rate", "nan", "--duration", "1s"), 2, "malformed rate"),
        (("--rate", "many", "--duration", "1s"), 2, "malformed rate"),
        (("--rate", "1/s", "--duration", "1 fortnight"), 2, "malformed duration"),
        (("--rate", "1"), 2, "a rate and a duration, or stages"),
        ((), 2, "a rate and a duration, or stages"),
        ((*RATE, "--stages", "5/s for 1s"), 2, "stages say it all: leave out the rate"),
        (("--stages", "fast"), 2, "malformed stages"),
        ((*RATE, "--arrivals", "uniform"), 2, "arrivals must be 'constant' or 'poisson'"),
        ((*RATE, "--timeout", "0"), 2, "timeout: a duration must be above 0"),
        ((*RATE, "--generators", "0"), 2, "generators must be at least 1"),
        ((*RATE, "--generators", "1000000"), 2, "16 per CPU, got 1000000"),
        ((*RATE, "--in-flight", "0"), 2, "in_flight must be at least 1"),
        ((*RATE, "--in-flight", "1", "--generators", "2"), 2, "in_flight must be at least 2"),
        ((*RATE, "--connections", "-1"), 2, "lab: connections must be at least 0, got -1"),
        ((*RATE, "--seed", "-1"), 2, "seed must be at least 0"),
        ((*RATE, "--slo", "p99"), 2, "malformed SLO"),
        ((*RATE, "--header", "nothing"), 2, "malformed header"),
        ((*RATE, "--header", "X: a\r\nY: b"), 2, "cannot be sent"),
        ((*RATE, "--method", "GE T"), 2, "cannot be sent"),
        ((*RATE, "--out", "/nowhere/a.parquet"), 1, "not a writable folder"),
        ((*RATE, "--from", "a.parquet"), 2, "name a URL to attack, or records"),
        ((*RATE, "--frmat", "json"), 2, "No such option"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("http://127.0.0.1:9/", *arguments) == status
    error = capsys.readouterr().err
    assert error.startswith("lab: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("url", "status", "message"),
    [
        ("http://127.0.0.1:9/", 1, "connection refused; is the server running?"),
        ("http://10.1.2.3/", 2, "add --remote"),
        ("http://[2001:db8::1]:80/", 2, "add --remote"),
        ("http://does-not-exist.invalid/", 1, "cannot resolve"),
        ("ftp://127.0.0.1/", 2, "malformed URL"),
        ("127.0.0.1:8000", 2, "malformed URL"),
        ("http://127.0.0.1:99999/", 2, "malformed URL"),
        ("http://127.0.0.1/a b", 2, "malformed URL"),
        ("http://127.0.0.1/\r\nX: y", 2, "malformed URL"),
        ("http://127.0.0.1:0/", 2, "malformed URL"),
        ("http://münchen..de/", 2, "malformed host"),
        ("http://me:pw@127.0.0.1/", 2, "use --header 'Authorization"),
        ("http://:pw@127.0.0.1/", 2, "use --header 'Authorization"),
        ("http://me:pw@[127.0.0.1/", 2, "use --header 'Authorization"),
        ("http://127.0.0.1\\@pw.example/", 2, "use --header 'Authorization"),
        ("http://", 2, "malformed URL"),
    ],
)
def test_a_bad_target_is_one_line(
    url: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(url, *RATE) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert "pw" not in error
