"""A request that takes many times as long: how it is asked for, what it answers, and that it blocks."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer

from lab.hotloop import LoopRun, python_loop
from lab.web import MOST_TIMES, blocking, create_app


def test_it_runs_the_loop_as_often_and_names_the_sum_of_the_times() -> None:
    runs = iter(LoopRun(total=float(number), duration_s=0.25, cpu_s=0.125, pid=42) for number in range(9))

    async def work() -> LoopRun:
        return next(runs)

    async def talk() -> None:
        async with TestClient(TestServer(create_app(work))) as client:
            response = await client.get("/api/slow?times=3")
            assert await response.text() == "Result number is 2.0"
            assert response.headers["Server-Timing"] == "loop;dur=750.000, cpu;dur=375.000"
        assert next(runs).total == 3.0

    asyncio.run(talk())


def test_nothing_else_has_its_turn_between_the_runs() -> None:
    turns = 0
    seen: list[int] = []

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def work() -> LoopRun:
        seen.append(turns)
        return LoopRun(total=0.0, duration_s=0.0, cpu_s=0.0, pid=42)

    async def talk() -> None:
        async with TestClient(TestServer(create_app(work))) as client:
            others = asyncio.create_task(count_turns())
            (await client.get("/api/slow?times=5")).raise_for_status()
            others.cancel()

    asyncio.run(talk())
    assert len(seen) == 5
    assert len(set(seen)) == 1


@pytest.mark.parametrize("times", ["0", "-1", "1.5", "many", "", "²", str(MOST_TIMES + 1), "1" * 5000])
def test_another_number_is_refused(times: str) -> None:
    async def talk() -> None:
        async with TestClient(TestServer(create_app(blocking(python_loop, 10)))) as client:
            response = await client.get("/api/slow", params={"times": times})
            assert response.status == 400
            assert await response.text() == f"times must be a whole number from 1 to {MOST_TIMES}"

    asyncio.run(talk())
