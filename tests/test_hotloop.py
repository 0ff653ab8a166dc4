"""The work itself: the article's sum from every kernel, and figures of what a run costs."""

import math
import threading

import pytest

from lab.errors import UsageError
from lab.hotloop import ITERATIONS, REFERENCE_SUM, SUMMING, TOLERANCE, kernel, measure

FEW = 20_000


def _terms(iterations: int) -> list[float]:
    return [math.atan(i) * math.tan(i) for i in range(iterations, -1, -1)]


def test_the_article_counts_down_from_seven_to_the_seventh() -> None:
    assert ITERATIONS == 823_543


@pytest.mark.parametrize("name", SUMMING)
def test_the_articles_sum(name: str) -> None:
    assert kernel(name)(ITERATIONS) == pytest.approx(REFERENCE_SUM, rel=TOLERANCE[name], abs=0)


def test_plain_python_gives_every_digit() -> None:
    assert kernel("python")(ITERATIONS) == REFERENCE_SUM


@pytest.mark.parametrize("name", SUMMING)
@pytest.mark.parametrize("iterations", [0, 1, 2, 1000, FEW])
def test_shorter_loops_agree_with_an_exact_sum_of_the_same_terms(name: str, iterations: int) -> None:
    terms = _terms(iterations)
    slack = TOLERANCE[name] * math.fsum(map(abs, terms)) + iterations * 1e-16
    assert kernel(name)(iterations) == pytest.approx(math.fsum(terms), rel=0, abs=slack)


@pytest.mark.parametrize("name", SUMMING)
def test_the_loop_counts_down_to_nothing_from_below_nothing(name: str) -> None:
    assert kernel(name)(-1) == 0


@pytest.mark.parametrize("name", SUMMING)
def test_the_sum_is_a_plain_float_that_prints_as_the_article_does(name: str) -> None:
    assert type(kernel(name)(10)) is float


@pytest.mark.parametrize("name", SUMMING)
def test_a_measurement_has_a_figure_for_each_repeat(name: str) -> None:
    costs = measure(name, FEW, repeats=3)
    assert len(costs) == 3
    assert all(cost.wall_s > 0 and cost.cpu_s >= 0 for cost in costs)
    assert sum(cost.cpu_s for cost in costs) > 0


def test_cpu_time_is_that_of_the_loops_own_thread() -> None:
    """Other threads of the process are busy meanwhile; their time is not the loop's."""
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            kernel("python")(1000)

    other = threading.Thread(target=burn)
    other.start()
    try:
        costs = measure("python", FEW, repeats=5)
    finally:
        stop.set()
        other.join()
    assert sum(cost.cpu_s for cost in costs) < 0.9 * sum(cost.wall_s for cost in costs)


def test_an_unknown_kernel_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match="unknown kernel 'fortran': choose one of python, numpy, numba, sleep"
    ):
        kernel("fortran")
    with pytest.raises(UsageError, match="unknown kernel"):
        measure("")


def test_sleeping_takes_time_but_no_cpu_and_computes_nothing() -> None:
    costs = measure("sleep", 200_000, repeats=3)
    assert all(cost.wall_s >= 0.02 for cost in costs)
    assert all(cost.cpu_s < 0.2 * cost.wall_s for cost in costs)
    assert kernel("sleep")(1) == kernel("sleep")(-1) == 0.0
