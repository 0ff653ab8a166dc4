"""The application: what each route answers, and where the hot loop's time and process are told.

A request that takes many times as long: how it is asked for, what it answers, and that it blocks.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from lab.hotloop import MOST_TIMES, LoopRun, python_loop
from lab.web import Work, blocking, create_app

Client = TestClient[web.Request, web.Application]


def ask(work: Work, talk: Callable[[Client], Awaitable[None]]) -> None:
    async def conversation() -> None:
        async with TestClient(TestServer(create_app(work))) as client:
            await talk(client)

    asyncio.run(conversation())


@pytest.mark.parametrize(("path", "text"), [("/", "Hello World!"), ("/healthz", "ok")])
def test_fast_routes(path: str, text: str) -> None:
    async def talk(client: Client) -> None:
        response = await client.get(path)
        assert (response.status, await response.text()) == (200, text)
        assert response.headers["X-Worker"] == str(os.getpid())

    ask(blocking(python_loop, 10), talk)


def test_the_slow_route_gives_the_sum_and_says_what_it_took() -> None:
    async def talk(client: Client) -> None:
        response = await client.get("/api/slow")
        assert await response.text() == f"Result number is {python_loop(1000)!r}"
        timing = dict(part.split(";dur=") for part in response.headers["Server-Timing"].split(", "))
        assert set(timing) == {"loop", "cpu"}
        assert 0 < float(timing["cpu"]) <= float(timing["loop"]) + 0.002
        assert response.headers["X-Worker"] == str(os.getpid())

    ask(blocking(python_loop, 1000), talk)


def test_the_slow_route_names_the_process_that_ran_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def elsewhere() -> LoopRun:
        return LoopRun(total=1.5, duration_s=0.25, cpu_s=0.125, pid=42)

    async def talk(client: Client) -> None:
        response = await client.get("/api/slow")
        assert await response.text() == "Result number is 1.5"
        assert response.headers["Server-Timing"] == "loop;dur=250.000, cpu;dur=125.000"
        assert response.headers["X-Worker"] == "42"

    with caplog.at_level(logging.INFO, "lab.web"):
        ask(elsewhere, talk)
    assert caplog.messages == ["result 1.5 in process 42"]


def test_a_loop_in_this_process_is_logged_without_its_pid_which_each_line_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def talk(client: Client) -> None:
        await client.get("/api/slow")

    with caplog.at_level(logging.INFO, "lab.web"):
        ask(blocking(python_loop, 10), talk)
    assert caplog.messages == [f"result {python_loop(10)!r}"]


def test_the_loop_blocks_the_event_loop() -> None:
    """Of two requests at once, the second is not even begun before the first is answered."""
    running = 0
    most = 0

    async def work() -> LoopRun:
        nonlocal running, most
        running += 1
        most = max(most, running)
        run = await blocking(python_loop, 20_000)()
        running -= 1
        return run

    async def talk(client: Client) -> None:
        await asyncio.gather(client.get("/api/slow"), client.get("/api/slow"))
        assert most == 1

    ask(work, talk)


def test_unknown_routes_are_not_found() -> None:
    async def talk(client: Client) -> None:
        assert (await client.get("/nothing")).status == 404

    ask(blocking(python_loop, 10), talk)


def test_a_request_of_many_times_runs_the_loop_as_often_and_names_the_sum_of_the_times() -> None:
    runs = iter(LoopRun(total=float(number), duration_s=0.25, cpu_s=0.125, pid=42) for number in range(9))

    async def work() -> LoopRun:
        return next(runs)

    async def talk(client: Client) -> None:
        response = await client.get("/api/slow?times=3")
        assert await response.text() == "Result number is 2.0"
        assert response.headers["Server-Timing"] == "loop;dur=750.000, cpu;dur=375.000"

    ask(work, talk)
    assert next(runs).total == 3.0


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

    async def talk(client: Client) -> None:
        others = asyncio.create_task(count_turns())
        (await client.get("/api/slow?times=5")).raise_for_status()
        others.cancel()

    ask(work, talk)
    assert len(seen) == 5
    assert len(set(seen)) == 1


@pytest.mark.parametrize("times", ["0", "-1", "1.5", "many", "", "²", str(MOST_TIMES + 1), "1" * 5000])
def test_another_number_of_times_is_refused(times: str) -> None:
    async def talk(client: Client) -> None:
        response = await client.get("/api/slow", params={"times": times})
        assert response.status == 400
        assert await response.text() == f"times must be a whole number from 1 to {MOST_TIMES}"

    ask(blocking(python_loop, 10), talk)
