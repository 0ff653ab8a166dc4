"""Whatever happens to a request, it ends in exactly one outcome, and what was planned is their sum."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import psutil
import pytest
import uvloop
from helpers.clients import gone, until
from helpers.load_servers import (
    Behaviour,
    Served,
    broken,
    gibberish,
    greet,
    half,
    never,
    reset,
    serving,
    start,
    switching,
    too_long,
    until_closed,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.load.attack import attack
from lab.load.log import OUTCOMES, Log, Outcome
from lab.load.sender import Sender
from lab.load.target import Assignment

Offered = tuple[Sender, Served]
Loop = Callable[[Coroutine[Any, Any, Offered]], Offered]
LOOPS = pytest.mark.parametrize("loop", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
"""Production runs on the first where there is one."""

OUTCOME_OF: dict[Behaviour, str] = {
    greet: "ok",
    too_long: "ok",
    until_closed: "ok",
    switching: "http_error",
    broken: "http_error",
    gibberish: "http_error",
    half: "reset",
    reset: "reset",
    never: "timeout",
}

TIMEOUTS_S = (0.1, 1.0, 10.0)
"""As short as the machine allows: until it holds nothing up for half as long, and only servers decide."""


@pytest.mark.parametrize("keepalive", [False, True])
@pytest.mark.parametrize("behave", OUTCOME_OF)
def test_each_failure_has_its_outcome(behave: Behaviour, keepalive: bool) -> None:
    sender = _offered(uvloop.run, [behave] * 10, keepalive)
    assert [OUTCOMES[code] for code in sender.log.outcome] == [OUTCOME_OF[behave]] * 10
    assert sender.errors.total() == (0 if OUTCOME_OF[behave] == "ok" else 10)


@pytest.mark.parametrize("keepalive", [False, True])
def test_an_attack_tells_each_failure(keepalive: bool) -> None:
    script = [behave for behave in OUTCOME_OF for _ in range(5)]
    for timeout_s in (0.3, *TIMEOUTS_S[1:]):
        with serving(lambda number, writer: script[number](number, writer)) as server:
            summary = attack(
                server.url, rate=180, duration=0.25, timeout=timeout_s, keepalive=keepalive
            ).summary
        if server.late_s + summary["generator"]["stalled_s"] < timeout_s / 2:
            break
    assert summary["outcomes"] == dict.fromkeys(OUTCOMES, 0) | Counter(OUTCOME_OF[one] for one in script)
    assert sum(summary["errors"].values()) == 45 - summary["ok"]
    assert str(server.port) not in "".join(summary["errors"])


@LOOPS
@settings(max_examples=25)
@given(
    script=st.lists(st.sampled_from(list(OUTCOME_OF)), min_size=1, max_size=12),
    keepalive=st.booleans(),
    in_flight=st.none() | st.integers(1, 3),
    stop_after_s=st.none() | st.floats(0, 0.1),
    warmup=st.integers(0, 12),
)
def test_planned_is_the_sum_of_the_outcomes(
    loop: Loop,
    script: list[Behaviour],
    keepalive: bool,
    in_flight: int | None,
    stop_after_s: float | None,
    warmup: int,
) -> None:
    sender = _offered(loop, script, keepalive, in_flight, stop_after_s, warmup)
    found = Counter(OUTCOMES[code] for code in sender.log.outcome)
    assert found.total() == len(script)
    late = [code for code, waited in zip(sender.log.outcome, sender.log.waited, strict=True) if waited]
    assert in_flight is not None or not late
    failed = sum(found[name] for name in set(OUTCOMES) - {"ok", "dropped", "unfinished"})
    errors = sender.errors + sender.warmup_errors
    assert failed <= errors.total() <= failed + late.count(Outcome.DROPPED)
    if stop_after_s is None:
        assert found["unfinished"] == 0
        if in_flight is None:
            assert found == Counter(OUTCOME_OF[behave] for behave in script)


def _offered(
    loop: Loop,
    script: list[Behaviour],
    keepalive: bool,
    in_flight: int | None = None,
    stop_after_s: float | None = None,
    warmup: int = 0,
) -> Sender:
    for timeout_s in TIMEOUTS_S:
        sender, served = loop(_offer(script, keepalive, in_flight, stop_after_s, warmup, timeout_s))
        if served.late_s < timeout_s / 2:
            break
    return sender


async def _offer(
    script: list[Behaviour],
    keepalive: bool,
    in_flight: int | None,
    stop_after_s: float | None,
    warmup: int,
    timeout_s: float,
) -> Offered:
    served = Served(0)
    server = await start(lambda number, writer: script[number](number, writer), served)
    assignment = Assignment(
        "127.0.0.1",
        served.port,
        b"GET / HTTP/1.1\r\n\r\n",
        timeout_s,
        keepalive=keepalive,
        in_flight=in_flight,
    )
    due_s = array("d", [(k - warmup) / 200 for k in range(len(script))])
    sender = Sender(assignment, due_s, Log(len(due_s)), time.monotonic() + warmup / 200)
    if stop_after_s is not None:
        asyncio.get_running_loop().call_later(stop_after_s, sender.stop)
    await sender.run()
    server.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    return sender, served


def test_a_wait_for_a_slot_ends_with_the_time_out() -> None:
    with serving(never) as server:
        summary = attack(server.url, rate=5000, duration=0.01, timeout=0.2, in_flight=1).summary
    assert summary["outcomes"]["timeout"] + summary["outcomes"]["dropped"] == 50
    assert summary["outcomes"]["dropped"] >= 1
    assert summary["latency_ok_s"]["p50"] is None


def test_a_server_that_is_killed_leaves_resets_and_refusals() -> None:
    code = (
        "import os, socket\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "print(listener.getsockname()[1], flush=True)\n"
        "answered = 0\n"
        "while True:\n"
        "    connection, _ = listener.accept()\n"
        "    if connection.recv(1000):\n"
        "        answered += 1\n"
        "        if answered == 10: os.kill(os.getpid(), 9)\n"
        "        connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n')\n"
        "    connection.close()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        summary = attack(f"http://127.0.0.1:{int(server.stdout.readline())}/", rate=100, duration=0.5).summary
        server.kill()
    outcomes = summary["outcomes"]
    assert outcomes["ok"] == 9
    assert outcomes["reset"] >= 1
    assert outcomes["refused"] >= 1
    assert sum(outcomes.values()) == 50


def test_running_out_of_descriptors_is_the_clients_fault() -> None:
    code = (
        "import json, resource, sys\n"
        "from lab.load.attack import attack\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "print(json.dumps(attack(sys.argv[1], rate=200, duration=0.5, timeout=1).summary))\n"
    )
    with serving(never) as server:
        done = subprocess.run([sys.executable, "-c", code, server.url], capture_output=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["outcomes"]["client_error"] > 50
    assert summary["outcomes"]["client_error"] + summary["outcomes"]["timeout"] == 100
    assert next(iter(summary["errors"])) == "too many open files (EMFILE)"


def test_running_out_of_ports_is_the_clients_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_port(*_: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr("asyncio.selector_events.BaseSelectorEventLoop.sock_connect", no_port)
    sender = _offered(asyncio.run, [greet] * 3, keepalive=False)
    assert [Outcome(code) for code in sender.log.outcome] == [Outcome.CLIENT_ERROR] * 3
    assert sender.errors == {"cannot assign requested address (EADDRNOTAVAIL)": 3}


def test_generators_share_the_in_flight_limit() -> None:
    with serving(never) as server:
        options = {"generators": 3, "in_flight": 8}
        summary = attack(server.url, rate=1000, duration=0.1, timeout=1, **options).summary  # type: ignore[arg-type]
    assert summary["generator"]["most_in_flight"] == 8


@pytest.mark.parametrize(("connections", "made"), [(0, 10), (1, 1)])
def test_no_more_idle_connections_are_kept_than_asked(connections: int, made: int) -> None:
    with serving(greet) as server:
        summary = attack(
            server.url, rate=50, duration=0.2, keepalive=True, connections=connections, in_flight=1
        ).summary
        assert server.connections == made + 1  # one asked whether anybody is there
    assert summary["ok"] == 10


@pytest.mark.parametrize(
    ("options", "warmed_up", "in_flight", "ended_by"),
    [
        ("", 0, None, signal.SIGHUP),
        ("--generators 3 --in-flight 8", 0, 8, signal.SIGINT),
        ("--warmup 200ms --generators 2", 10, None, signal.SIGTERM),
        ("--warmup 60s --generators 2 --in-flight 8 --keepalive", 3000, 8, signal.SIGINT),
    ],
)
def test_an_interrupt_leaves_a_partial_result(
    options: str, warmed_up: int, in_flight: int | None, ended_by: signal.Signals
) -> None:
    with serving(never) as server:
        load = "--rate 50 --duration 60s --format json"
        command = [sys.executable, "-m", "lab", "attack", server.url, *load.split(), *options.split()]
        attacking = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_hear_as_in_the_background
        )
        before = warmed_up if warmed_up == 10 else 0
        until(lambda: len(server.requests) > before + 6)
        generators = psutil.Process(attacking.pid).children()
        attacking.send_signal(ended_by)
        out, _ = attacking.communicate(timeout=30)
    summary = json.loads(out)
    assert attacking.returncode == 130
    for part, planned in ((summary, 3000), (summary["warmup"], warmed_up)):
        outcomes = part["outcomes"]
        assert part["planned"] == sum(outcomes.values()) == planned
        assert part["sent"] == outcomes["unfinished"] == planned - outcomes["dropped"]
        assert part["errors"] == {}
    sent = summary["sent"] + summary["warmup"]["sent"]
    assert 6 <= sent <= (in_flight or 2000)
    assert (summary["sent"] == 0) == (warmed_up == 3000)
    assert (summary["sent_rate"] == 0) == (warmed_up == 3000)
    assert summary["sent_rate"] <= 50.1
    assert not summary["valid"]
    assert summary["flags"][0]["code"] == "interrupted"
    assert not any(generator.is_running() for generator in generators)


def _hear_as_in_the_background() -> None:
    """Ignore SIGINT, as what a script starts with `&` does; hear SIGHUP, even where these tests do not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_no_generator_outlives_its_starter() -> None:
    code = "import sys, lab; lab.attack(sys.argv[1], rate=50, duration=60, generators=2)"
    with serving(greet) as server:
        starter = subprocess.Popen([sys.executable, "-c", code, server.url])
        until(lambda: len(server.requests) > 5)
        generators = psutil.Process(starter.pid).children()
        starter.kill()
        starter.wait()
        assert len(generators) == 2
        until(lambda: all(gone(one.pid) for one in generators), 2)


def test_a_generator_that_dies_is_said_to_have_died() -> None:
    code = (
        "import sys, psutil\n"
        "from lab.load.attack import attack\n"
        "def kill(_): psutil.Process().children()[0].kill()\n"
        "attack(sys.argv[1], rate=50, duration=60, on_progress=kill)"
    )
    with serving(greet) as server:
        done = subprocess.run(
            [sys.executable, "-c", code, server.url], capture_output=True, text=True, check=False
        )
    assert "LabError: a load generator ended early" in done.stderr


def test_a_blocked_generator_says_so() -> None:
    """SIGSTOP holds the generator for 200 ms, from when the server has its tenth request."""

    async def behave(number: int, writer: asyncio.StreamWriter) -> None:
        await greet(number, writer)
        if number == 10:
            generator = psutil.Process(os.getpid()).children()[0]
            generator.suspend()
            await asyncio.sleep(0.2)
            generator.resume()

    with serving(behave) as server:
        summary = attack(server.url, rate=100, duration=1).summary
    assert not summary["valid"]
    assert {flag["code"] for flag in summary["flags"]} & {"stall", "stalled"}
    assert summary["generator"]["stall_longest_s"] >= 0.18
    assert summary["planned"] == summary["ok"] == 100
    assert summary["latency_s"]["max"] >= 0.15
