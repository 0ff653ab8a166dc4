"""Load whose rate may change: due times without a gap, and an end for each request."""

import asyncio
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers.clients import gone, until
from helpers.load_servers import greet, never, serving
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError, UsageError
from lab.load.arrivals import due_times, parse_stages
from lab.load.live import LiveLoad, Report, Row, Schedule

slices_s = st.lists(st.floats(0.001, 2.0), min_size=1, max_size=20)


def dues(schedule: Schedule, lengths_s: list[float], rate_rps: float, from_s: float = 0.0) -> list[float]:
    ends_s = from_s + np.cumsum(lengths_s)
    return [due_s for end_s in ends_s for due_s in schedule.until(float(end_s), rate_rps)]


@given(slices_s, slices_s)
def test_constant_arrivals_are_those_of_an_attack_in_two_stages(
    before_s: list[float], after_s: list[float]
) -> None:
    schedule = Schedule("constant", 0)
    live = dues(schedule, before_s, 20.0) + dues(schedule, after_s, 50.0, sum(before_s))
    stages = parse_stages(f"20/s for {sum(before_s)!r}s, 50/s for {sum(after_s)!r}s")
    planned = due_times(stages)
    assert abs(len(live) - len(planned)) <= 1  # one may be due at the very end
    shorter = min(len(live), len(planned))
    np.testing.assert_allclose(live[:shorter], planned[:shorter], atol=1e-6)


@given(slices_s, st.floats(0.1, 500.0))
def test_random_arrivals_do_not_depend_on_how_they_are_sliced(
    lengths_s: list[float], rate_rps: float
) -> None:
    whole = dues(Schedule("poisson", 7), [sum(lengths_s)], rate_rps)
    parts = dues(Schedule("poisson", 7), lengths_s, rate_rps)
    assert abs(len(whole) - len(parts)) <= 1
    np.testing.assert_allclose(parts[: len(whole)], whole[: len(parts)], atol=1e-6)


def test_random_arrivals_are_poissons() -> None:
    gaps_s = np.diff(dues(Schedule("poisson", 1), [0.1] * 2000, 100.0))
    assert gaps_s.mean() == pytest.approx(0.01, rel=0.03)
    assert gaps_s.std() == pytest.approx(0.01, rel=0.03)


def test_a_rate_of_zero_is_a_pause_in_which_nothing_is_forgotten() -> None:
    schedule = Schedule("constant", 0)
    assert dues(schedule, [1.05], 10.0)[-1] == pytest.approx(1.0)
    assert dues(schedule, [5.0], 0.0, 1.05) == []
    assert next(schedule.until(10.0, 10.0)) == pytest.approx(6.1)  # half of the way was gone before


class Heard:
    """Collects reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def __call__(self, report: Report) -> None:
        self.reports.append(report)

    @property
    def rows(self) -> list[Row]:
        return sorted(row for report in self.reports for row in report.rows)

    def has(self, requests: int) -> None:
        until(lambda: len(self.rows) >= requests)


def gaps_s(rows: list[Row]) -> list[float]:
    return [round(after.due_s - before.due_s, 5) for before, after in pairwise(rows)]


def test_a_new_rate_is_seen_in_the_due_times_at_once_and_no_request_is_lost() -> None:
    heard = Heard()
    with serving(greet) as server:
        with LiveLoad(server.url, 50.0, heard) as load:
            heard.has(40)
            reported = len(heard.reports)
            load.set_rate(200.0)
            changed_s = heard.reports[reported - 1].now_s
            heard.has(140)
        assert gone(load.pid)
    rows, last = heard.rows, heard.reports[-1]
    assert set(gaps_s(rows)) <= {0.02, 0.005} or len(set(gaps_s(rows))) == 3  # one gap has both rates
    first_s = next(before.due_s for before, gap_s in zip(rows, gaps_s(rows), strict=False) if gap_s < 0.02)
    assert first_s - changed_s < 1.0
    assert last.due == len(rows)
    assert last.waiting == 0
    unsent = [row.outcome == "dropped" for row in rows]
    assert unsent == sorted(unsent), "only the last, whose turn the end forestalled"
    assert sum(unsent) < 20
    assert {row.outcome for row in rows} <= {"ok", "unfinished", "dropped"}
    assert all(
        row.sent_s is not None and row.sent_s >= row.due_s - 1e-6 for row in rows if row.outcome == "ok"
    )


def test_requests_leave_when_due_though_none_is_answered() -> None:
    heard = Heard()
    with serving(never) as server, LiveLoad(server.url, 100.0, heard, timeout_s=0.3) as load:
        heard.has(30)
        assert any(report.waiting and report.waiting_due_s for report in heard.reports)
        load.stop()
    rows = heard.rows
    assert set(gaps_s(rows)) == {0.01}
    assert {row.outcome for row in rows} == {"timeout", "unfinished"}
    ended = [row for row in rows if row.outcome == "timeout"]
    assert min(row.end_s - row.due_s for row in ended if row.end_s) == pytest.approx(0.3, abs=0.01)
    assert heard.reports[-1].due == len(rows)


def test_a_starter_that_does_not_listen_delays_nothing() -> None:
    heard, listening = Heard(), threading.Event()

    def busy(report: Report) -> None:
        listening.wait()
        heard(report)

    with serving(greet) as server, LiveLoad(server.url, 1000.0, busy):
        until(lambda: len(server.requests) > 1000)  # all are sent while nobody reads
        listening.set()
        heard.has(1000)
    assert set(gaps_s(heard.rows)) == {0.001}


def test_a_target_that_cannot_be_loaded_is_refused() -> None:
    with pytest.raises(UsageError, match="not this machine's loopback"):
        LiveLoad("http://192.0.2.1/", 1.0, print)
    closed = asyncio.run(_closed_port())
    with pytest.raises(LabError, match="cannot reach"):
        LiveLoad(f"http://127.0.0.1:{closed}/", 1.0, print)


async def _closed_port() -> Any:
    server = await asyncio.start_server(print, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port
