"""What generators say about themselves: of the measured part alone, and of all of them together."""

import asyncio
import gc
import json
import pickle
import subprocess
import time
from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from helpers.load_servers import answer, broken, never, reset, serving
from hypothesis import given
from hypothesis import strategies as st

from lab import processes
from lab.load.attack import attack
from lab.load.generator import Health
from lab.load.generators import joint_figures, most_in_flight, split
from lab.load.target import Assignment

NAN = float("nan")


class Clock:
    """Stands in for the module time: it stands still, but for who computes, and jumps over idle times."""

    def __init__(self) -> None:
        self.now_s, self.idle_s = 100.0, 0.0

    def monotonic(self) -> float:
        return self.now_s

    def process_time(self) -> float:
        return self.now_s - self.idle_s

    thread_time = process_time

    def compute(self, for_s: float) -> None:
        self.now_s += for_s

    def idle(self, for_s: float | None) -> list[Any]:
        """Stand in for a selector's `select`, too."""
        self.now_s, self.idle_s = self.now_s + (for_s or 0.0), self.idle_s + (for_s or 0.0)
        return []


def blocked(begin_in_s: float, for_s: float, until_s: float) -> dict[str, float]:
    """Block the loop at once under a `Health` that begins then; report at `until_s`."""
    clock = Clock()

    async def block() -> dict[str, float]:
        start_s = clock.now_s
        health = Health(start_s + begin_in_s)
        gc.collect()
        clock.compute(for_s)
        await asyncio.sleep(start_s + until_s - clock.now_s)
        return health.report()

    with (
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("lab.load.generator.time", clock)
        patch.setattr(runner.get_loop(), "time", clock.monotonic)
        patch.setattr(runner.get_loop(), "_selector", SimpleNamespace(select=clock.idle))
        return runner.run(block())


def test_a_stall_in_the_warm_up_is_forgotten() -> None:
    found = blocked(begin_in_s=0.6, for_s=0.5, until_s=0.7)
    assert (found["stalled_s"], found["cpu_s"]) == pytest.approx((0, 0), abs=1e-9)


def test_a_stall_counts_from_where_the_warm_up_ends() -> None:
    found = blocked(begin_in_s=0.1, for_s=0.5, until_s=0.6)
    assert found["gc_pauses"] == 0  # the long one was before
    assert found["stall_longest_s"] == found["stalled_s"] == pytest.approx(0.4)
    assert found["stalled_share"] == pytest.approx(0.8)


def test_who_is_stopped_in_the_warm_up_has_nothing_to_say() -> None:
    found = blocked(begin_in_s=60, for_s=0.1, until_s=0.2)
    assert set(found.values()) == {0}


def test_the_longest_collection_is_kept() -> None:
    async def collecting() -> dict[str, float]:
        health = Health(time.monotonic())
        await asyncio.sleep(0.05)
        kept = [[number] for number in range(100_000)]
        gc.collect()
        kept.clear()
        gc.collect()
        return health.report()

    found = asyncio.run(collecting())
    assert found["gc_longest_s"] > 0.0001
    assert found["gc_pauses"] >= 2


def test_a_wait_for_time_outs_does_not_dilute_the_shares() -> None:
    """The generator stands still for 0.2 s of the 0.5 s in which it sends, then waits for 1 s."""

    async def behave(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 10:
            generator = psutil.Process().children()[0]
            generator.suspend()
            await asyncio.sleep(0.2)
            generator.resume()
        await never(number, writer)

    with serving(behave) as server:
        summary = attack(server.url, rate=100, duration=0.5, timeout=1).summary
    assert summary["generator"]["stalled_share"] > 0.3


def test_errors_of_the_warm_up_are_kept_apart() -> None:
    async def behave(number: int, writer: asyncio.StreamWriter) -> None:
        if number < 10:
            await (reset if number % 2 else broken)(number, writer)
        else:
            writer.write(answer())

    with serving(behave) as server:
        summary = attack(server.url, rate=50, duration=0.2, warmup=0.2, in_flight=1).summary
    assert summary["planned"] == summary["ok"] == 10
    assert summary["errors"] == {}
    assert summary["warmup"]["planned"] == 10
    assert summary["warmup"]["outcomes"]["http_error"] == summary["warmup"]["outcomes"]["reset"] == 5
    assert sorted(summary["warmup"]["errors"].values()) == [5, 5]


intervals = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 20) | st.none(), st.booleans()), min_size=1, max_size=40
)


@given(intervals, st.integers(1, 4))
def test_most_in_flight_is_counted_in_the_merged_records(
    drawn: list[tuple[int, int | None, bool]], generators: int
) -> None:
    sent_s = np.array([begin if sent else NAN for begin, _, sent in drawn], float)
    end_s = np.array(
        [begin + lasts if sent and lasts is not None else NAN for begin, lasts, sent in drawn], float
    )
    there = [
        sum(begin <= at and not end <= at for begin, end in zip(sent_s, end_s, strict=True))
        for at in sent_s[~np.isnan(sent_s)]
    ]
    found = most_in_flight(sent_s, end_s)
    assert found == max([0, *there])
    apart = [
        most_in_flight(*part) for part in zip(*(split(t, generators) for t in (sent_s, end_s)), strict=True)
    ]
    assert max(apart) <= found <= sum(apart)


def test_maxima_at_different_times_do_not_add_up() -> None:
    sent_s, end_s = np.array([0.0, 2.0]), np.array([1.0, 3.0])
    assert most_in_flight(sent_s, end_s) == 1


def test_the_lag_is_of_those_that_did_not_wait_for_a_slot() -> None:
    due_s = np.array([-1.0, 0.0, 1.0, 2.0, 3.0])
    columns = {
        "sent_s": np.array([8.0, 0.25, 9.0, 2.25, NAN]),
        "end_s": np.array([9.0, 9.0, 9.5, 3.0, NAN]),
        "waited": np.array([0, 0, 1, 0, 1]),
    }
    assert joint_figures(due_s, columns) == {"waited": 2, "most_in_flight": 2, "lag_p99_s": 0.25}
    columns["waited"][:] = 1
    assert joint_figures(due_s, columns)["lag_p99_s"] is None


def test_one_wait_for_a_slot_does_not_hide_a_late_generator() -> None:
    """The generator is held up for a while: what was due meanwhile is late, and found to be."""
    held = asyncio.Event()

    async def behave(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 1:
            await asyncio.sleep(0.1)  # the next one waits for its slot
        writer.write(answer())
        if number == 20 and not held.is_set():
            held.set()
            generator = psutil.Process().children()[0]
            generator.suspend()
            await asyncio.sleep(0.3)
            generator.resume()

    with serving(behave) as server:
        summary = attack(server.url, rate=100, duration=1, in_flight=4).summary
    assert summary["generator"]["waited"] >= 1
    assert "send_lag" in {flag["code"] for flag in summary["flags"]}


def test_who_says_that_it_is_ready_has_the_memory_for_its_plan() -> None:
    """Else the first requests of a long plan are late: the start follows at once."""
    planned = 2_000_000
    due_s = array("d", [3600.0]) * planned
    assigned = Assignment("127.0.0.1", 9, b"", timeout_s=1.0, progress=True)
    generator = processes.start("lab.load.generator", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with generator:
        assert generator.stdin  # pipes were asked for
        assert generator.stdout
        generator.stdin.write(pickle.dumps((assigned, due_s)))
        generator.stdin.flush()
        assert "ready" in json.loads(generator.stdout.readline())
        ready_bytes = psutil.Process(generator.pid).memory_info().rss
        generator.stdin.write(f"{time.monotonic()!r}\n".encode())
        generator.stdin.flush()
        assert "progress" in json.loads(generator.stdout.readline())
        running_bytes = psutil.Process(generator.pid).memory_info().rss
        generator.stdin.close()
        processes.end_group(generator)
    assert running_bytes - ready_bytes < 8 * planned  # a sixth of its log
