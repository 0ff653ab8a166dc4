"""How an attack stands: told by hand-made generators, and shown on a terminal."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from typing import Any

from helpers.load_servers import greet, serving

from lab.load.attack import Progress, teller


def said(sent: int, in_flight: int = 0, latency_s: tuple[float, ...] = (), **more: Any) -> dict[str, Any]:
    progress = {"sent": sent, "in_flight": in_flight, "outcomes": {"ok": sent}, "latency_s": list(latency_s)}
    return {"progress": progress, **more}


def test_it_is_told_when_every_generator_has_spoken_anew() -> None:
    told: list[Progress] = []
    tell = teller(told.append, 2, 10.0, 1000)
    for second in (1, 2):
        tell(1, said(30 * second, 1, (0.1, 0.1)), second - 0.1)
        assert len(told) == second - 1
        tell(0, said(50 * second, 2, (0.3, 0.3)), float(second))
        tell(0, {"ready": 7}, float(second))
    assert [now.sent for now in told] == [80, 160]
    assert [now.rate_rps for now in told] == [80, 80]
    assert told[1].outcomes["ok"] == 160
    assert (told[1].in_flight, told[1].p50_s) == (3, 0.2)


def test_who_has_ended_is_not_waited_for() -> None:
    told: list[Progress] = []
    tell = teller(told.append, 2, 10.0, 1000)
    tell(0, said(10, health={}), 0.5)
    tell(1, said(20, 4), 1.0)
    tell(1, said(30, 2), 2.0)
    tell(1, said(31, health={}), 2.1)
    assert [(now.sent, now.in_flight, now.rate_rps) for now in told] == [(30, 4, 30), (40, 2, 10)]


def test_a_rate_counts_from_the_first_due_time() -> None:
    told: list[Progress] = []
    tell = teller(told.append, 1, 10.0, 1000, begins_s=-5.0)
    tell(0, said(40), -4.0)
    tell(0, said(240), 1.0)
    assert [now.rate_rps for now in told] == [40, 40]


def shown(terminal: bool, duration: str) -> str:
    """Return what an attack says on stderr while it runs."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(theirs, (24, 120))
    told = bytearray()

    def read() -> None:
        with os.fdopen(ours, "rb", buffering=0) as reader, contextlib.suppress(OSError):
            while part := reader.read(65_536):
                told.extend(part)

    reading = threading.Thread(target=read)
    reading.start()
    with serving(greet) as server:
        command = [sys.executable, "-m", "lab", "attack", server.url, "--rate", "50", "--warmup", "1.2s"]
        options = ["--duration", duration, "--generators", "2"]
        environment = os.environ | {"CI": "", "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "120"}
        subprocess.run(
            [*command, *options], stderr=theirs, stdout=subprocess.PIPE, env=environment, check=True
        )
    os.close(theirs)  # a terminal's end is an error to its reader
    reading.join()
    return told.decode()


def test_the_command_shows_a_line() -> None:
    told = shown(terminal=True, duration="2.2s")
    form = r"(\d) s left, (\d+)/s, p50 \S+ \S+, p99 \S+ \S+, ok \d+, failed 0, in flight \d+"
    lines = re.findall(form, told)
    assert {left_s for left_s, _ in lines} >= {"1", "0"}, told
    assert int(lines[0][1]) <= 60


def test_a_log_of_an_attack_gets_no_line_each_second() -> None:
    assert shown(terminal=False, duration="0.2s") == ""
