"""`lab serve`: a server in the foreground, its one line, its signals and its exit statuses."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from helpers.clients import PATIENCE_S, Connection, computing, get, gone, refused, until

SHORT = ["--iterations", "1000"]
COMMAND = [sys.executable, "-m", "lab", "serve"]


@contextmanager
def command(
    *options: str, stdin: int = subprocess.DEVNULL
) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """Run `lab serve` until the block ends, and give the process and its line."""
    with subprocess.Popen(
        [*COMMAND, *options], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def all_gone(ready: dict[str, Any]) -> bool:
    return all(gone(pid) for pid in (ready["pid"], *ready["workers"]))


def status(process: "subprocess.Popen[str]") -> int:
    return process.wait(PATIENCE_S)


@pytest.mark.parametrize(  # the other signals, tests/servers/test_lifecycle.py
    ("topology", "number"),
    [("single", signal.SIGINT), ("cluster", signal.SIGTERM), ("offload", signal.SIGINT)],
)
def test_it_says_when_it_is_ready_and_ends_when_told_to(topology: str, number: int) -> None:
    workers = [] if topology == "single" else ["--workers", "2"]
    with command("--topology", topology, *workers, *SHORT) as (process, ready):
        assert ready.keys() == {"event", "url", "pid", "workers"}
        assert ready["event"] == "ready"
        assert get(ready["url"]).worker in ready["workers"]
        process.send_signal(number)
        assert status(process) == 0
        assert all_gone(ready)
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_workers_log_to_stderr() -> None:
    with command("--topology", "single", *SHORT) as (process, ready):
        total = get(ready["url"]).body.removeprefix("Result number is ")
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert f"{ready['pid']} result {total}\n" in errors


def test_signals_are_obeyed_by_the_command_and_by_the_supervisor() -> None:
    with command("--workers", "1", *SHORT) as (process, ready):
        supervisor = psutil.Process(ready["pid"])
        process.send_signal(signal.SIGTTIN)
        until(lambda: len(supervisor.children()) == 2)
        supervisor.send_signal(signal.SIGTTOU)
        until(lambda: len(supervisor.children()) == 1)
        process.send_signal(signal.SIGHUP)
        until(lambda: ready["workers"][0] not in {child.pid for child in supervisor.children()})
        supervisor.terminate()
        assert status(process) == 0


def test_a_second_interrupt_does_not_wait_for_the_request() -> None:
    options = ["--workers", "1", "--iterations", str(10**9), "--drain", "600"]
    with command(*options) as (process, ready), Connection(ready["url"]) as client:
        client.ask()
        computing(ready["workers"])
        process.send_signal(signal.SIGINT)
        until(lambda: refused(ready["url"]))
        process.send_signal(signal.SIGINT)
        assert status(process) == 0
        assert all_gone(ready)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it(number: int) -> None:
    with subprocess.Popen(
        [*COMMAND, "--workers", "2", *SHORT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        until(lambda: psutil.Process(process.pid).children())  # the supervisor is there, its workers hardly
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert status(process) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
        until(lambda: all(gone(child.pid) for child in started))


def test_a_killed_command_leaves_nothing() -> None:
    with command("--workers", "2", *SHORT) as (process, ready):
        process.kill()
        until(lambda: all_gone(ready), 2)


def test_it_ends_with_its_terminal() -> None:
    terminal, stdin = pty.openpty()
    with command("--workers", "1", *SHORT, stdin=stdin) as (process, ready):
        os.close(stdin)
        os.close(terminal)
        assert status(process) == 0
        assert all_gone(ready)


def test_it_ends_when_whoever_holds_its_input_does() -> None:
    with command("--workers", "1", *SHORT, stdin=subprocess.PIPE) as (process, ready):
        assert process.stdin is not None
        process.stdin.close()
        assert status(process) == 0
        assert all_gone(ready)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--topology", "star"], 2, "lab: topology must be 'single', 'cluster' or 'offload', got 'star'\n"),
        (["--workers", "0"], 2, "lab: workers must be at least 1, got 0\n"),
        (["--port", "80x"], 2, "lab: Invalid value for '--port': '80x' is not a valid integer.\n"),
        (["--port", "70000"], 2, "lab: port must be at most 65535, got 70000\n"),
        (["--host", "no.such.host.invalid"], 1, "lab: cannot listen on no.such.host.invalid: "),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options: list[str], code: int, message: str) -> None:
    done = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    assert done.returncode == 1
    assert done.stderr == (
        f"lab: port {port} of 127.0.0.1 is taken: stop what listens there, or use port 0 for a free one\n"
    )


def test_a_supervisor_that_is_killed_is_a_failure() -> None:
    with command("--workers", "1", *SHORT) as (process, ready):
        os.kill(ready["pid"], signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert errors.endswith(f"lab: the server ended: process {ready['pid']} ended, SIGKILL\n")
        assert all_gone(ready)


def test_a_log_that_nobody_reads_does_not_hold_up_answers() -> None:
    quick = ["--topology", "single", "--iterations", "10"]
    with command(*quick) as (process, ready), Connection(ready["url"]) as client:
        for _ in range(2000):  # their log would fill a pipe
            assert client.ask().answer().status == 200
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize(("topology", "closed"), [("single", "<&- 2>&-"), ("cluster", "2>&-")])
def test_closed_standard_streams_are_no_obstacle(topology: str, closed: str) -> None:
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "--topology", topology, *SHORT]
    with subprocess.Popen(shell, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        for _ in range(3):
            assert get(ready["url"]).body.startswith("Result number is ")
        process.terminate()
        assert status(process) == 0
        assert all_gone(ready)


def test_without_a_place_for_its_line_it_serves() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shell = ["/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh", *COMMAND, "--port", str(port), *SHORT]
    with subprocess.Popen(shell, stdin=subprocess.DEVNULL) as process:
        until(lambda: not refused(f"http://127.0.0.1:{port}"))
        assert get(f"http://127.0.0.1:{port}").status == 200
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_more_workers_than_make_sense_are_refused() -> None:
    done = subprocess.run([*COMMAND, "--workers", "1000000"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "workers must be at most" in done.stderr
    assert len(done.stderr.splitlines()) == 1
