"""How soon the playground reacts: a new rate is offered, and seen in its numbers, within a second."""

import time
from collections.abc import Callable, Iterator

import pytest

from lab.cpus import available_cpus
from lab.hotloop import measure
from lab.playground.engine import Engine, Parameters

RATE, CHANGED = 200.0, 260.0
WITHIN_S = 1.0
TIMES = 5

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def test_it_reacts_within_a_second_at_200_requests_a_second_while_all_cpus_are_busy(engine: Engine) -> None:
    cpus, step_s = available_cpus(), min(cost.cpu_s for cost in measure("python", 100_000)) / 100_000
    engine.start(
        Parameters(
            topology="cluster", dispatch="round-robin", workers=cpus, kernel="python",
            iterations=int(0.95 * cpus / RATE / step_s), arrivals="constant", rate=RATE,
        )
    )  # fmt: skip
    _wait(lambda: engine.moment().numbers.offered_rps > 0.95 * RATE, 30.0)
    reactions_s = [_reaction_s(engine, CHANGED if turn % 2 == 0 else RATE) for turn in range(TIMES)]
    used = ", ".join(f"{one:.2f} s" for one in reactions_s)
    print(f"\n{TIMES} changes of the rate at {RATE:g}/s, {cpus} busy workers: seen after {used}")
    assert max(reactions_s) < WITHIN_S


def _reaction_s(engine: Engine, rate: float) -> float:
    """Change the rate, and return how soon the numbers have moved; then wait until they have arrived."""
    before = engine.moment().numbers.offered_rps
    engine.set_rate(rate)
    took_s = _wait(lambda: abs(engine.moment().numbers.offered_rps - before) > 0.05 * RATE, 30.0)
    _wait(lambda: abs(engine.moment().numbers.offered_rps - rate) < 0.02 * RATE, 30.0)
    return took_s


def _wait(true: Callable[[], bool], within_s: float) -> float:
    began_s = time.monotonic()
    while not true():
        assert time.monotonic() < began_s + within_s
        time.sleep(0.01)
    return time.monotonic() - began_s
