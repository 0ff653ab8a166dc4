"""Queues played through by hand, against each other, and against the exact formulas."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lab.errors import UsageError
from lab.models.queueing import mdc_mean_wait, mdc_wait_quantile
from lab.models.simulation import Dispatch, waits

REQUESTS = 200_000
gaps = st.lists(st.floats(0, 3), min_size=1, max_size=200)
workers = st.integers(1, 6)


def _poisson(workers: int, utilisation: float, seed: int = 1) -> NDArray[np.float64]:
    gaps_s = np.random.default_rng(seed).exponential(1 / (workers * utilisation), REQUESTS)
    return np.cumsum(gaps_s)


def test_a_queue_worked_out_by_hand() -> None:
    due_s = [0, 0, 1, 1, 1, 10]
    assert waits(due_s, 2, workers=1).tolist() == [0, 2, 3, 5, 7, 0]
    assert waits(due_s, 2, workers=2).tolist() == [0, 0, 1, 1, 3, 0]
    assert waits(due_s, [5, 1, 1, 1, 1, 1], workers=2).tolist() == [0, 0, 0, 1, 2, 0]
    assert waits(due_s, [5, 1, 1, 1, 1, 1], workers=2, dispatch="round-robin").tolist() == [0, 0, 4, 0, 5, 0]
    # The third, with the first worker for it holds fewer than two, waits though the other is free at 1.
    assert waits([0, 0.1, 0.2, 0.3], [5, 1, 1, 1], 2, "bounded", bound=2).tolist() == pytest.approx(
        [0, 0, 4.8, 0.8]
    )
    assert waits(due_s, 2, workers=2, dispatch="batches").tolist() == [0, 2, 0, 2, 4, 0]
    assert waits(due_s, 2, workers=1, dispatch="batches").tolist() == [0, 2, 3, 5, 7, 0]


@given(gaps, workers, st.floats(0, 5))
def test_with_constant_service_round_robin_is_one_central_queue(
    gaps_s: list[float], c: int, service_s: float
) -> None:
    due_s = np.cumsum(gaps_s)
    turns = waits(due_s, service_s, c, "round-robin")
    np.testing.assert_allclose(turns, waits(due_s, service_s, c, "central"), atol=1e-9)


@given(gaps, workers, st.floats(0, 5), st.integers(1, 9), st.randoms(use_true_random=False))
def test_a_bound_of_one_is_one_central_queue_and_with_equal_loops_so_is_any(
    gaps_s: list[float], c: int, service_s: float, bound: int, random: Random
) -> None:
    due_s, unequal_s = np.cumsum(gaps_s), [random.uniform(0, 5) for _ in gaps_s]
    one = waits(due_s, unequal_s, c, "bounded", bound=1)
    np.testing.assert_allclose(one, waits(due_s, unequal_s, c), atol=1e-9)
    equal = waits(due_s, service_s, c, "bounded", bound=bound)
    np.testing.assert_allclose(equal, waits(due_s, service_s, c), atol=1e-9)


@given(
    gaps,
    workers,
    st.sampled_from(["central", "bounded", "round-robin", "random", "batches"]),
    st.integers(0, 9),
)
def test_no_worker_ever_does_two_things_at_once(
    gaps_s: list[float], c: int, dispatch: Dispatch, seed: int
) -> None:
    due_s = np.cumsum(gaps_s)
    waited = waits(due_s, 1.0, c, dispatch, seed, bound=2)
    start = due_s + waited
    assert (waited >= 0).all()
    others = (start[:, None] >= start) & (start[:, None] < start + 1.0 - 1e-9)
    assert others.sum(axis=1).max() <= c


@given(gaps, st.integers(2, 6))
def test_chance_never_does_better_than_a_central_queue(gaps_s: list[float], c: int) -> None:
    due_s = np.cumsum(gaps_s)
    assert waits(due_s, 1.0, c, "random").sum() >= waits(due_s, 1.0, c, "central").sum() - 1e-9


def test_one_worker_is_the_same_however_requests_reach_it() -> None:
    due_s = _poisson(1, 0.7)[:2000]
    for dispatch in ("round-robin", "random"):
        np.testing.assert_allclose(waits(due_s, 1, 1, dispatch), waits(due_s, 1, 1), atol=1e-9)


@pytest.mark.parametrize("c", [1, 2, 4])
def test_central_and_round_robin_wait_as_mdc_says(c: int) -> None:
    due_s = _poisson(c, 0.8)
    for dispatch in ("central", "round-robin"):
        waited = waits(due_s, 1, c, dispatch)
        assert waited.mean() == pytest.approx(mdc_mean_wait(c, 0.8), rel=0.05)
        assert np.quantile(waited, 0.99) == pytest.approx(mdc_wait_quantile(0.99, c, 0.8), rel=0.08)


def test_random_waits_as_a_queue_each_whatever_the_number_of_workers() -> None:
    for c in (2, 4):
        waited = waits(_poisson(c, 0.7), 1, c, "random")
        assert waited.mean() == pytest.approx(mdc_mean_wait(1, 0.7), rel=0.05)


def test_exponential_service_waits_as_mmc_says() -> None:
    """Erlang C of three workers at .7, over 3 x (1 - .7): Adan & Resing, Queueing Systems, chapter 5."""
    service_s = np.random.default_rng(2).exponential(1, REQUESTS)
    waited = waits(_poisson(3, 0.7), service_s, 3)
    assert waited.mean() == pytest.approx(0.5470, rel=0.06)


def test_no_requests_wait_for_nothing() -> None:
    assert waits([], 1, 2).tolist() == []
    assert waits([], 1, 2, "random").tolist() == []


@pytest.mark.parametrize(
    ("due_s", "service_s", "c", "dispatch", "named"),
    [
        ([1, 0], 1, 1, "central", "due_s must be one list of finite times in ascending order, got "),
        ([0, float("nan")], 1, 1, "central", "due_s must be one list of finite times"),
        ([0, 1], -1, 1, "central", "service_s must be finite and at least 0, got -1"),
        ([0, 1], 1, 0, "central", "workers must be at least 1, got 0"),
        (
            [0, 1],
            1,
            1,
            "fastest",
            "dispatch must be 'central', 'bounded', 'round-robin', 'random' or 'batches', got",
        ),
    ],
)
def test_bad_input_is_named(
    due_s: list[float], service_s: float, c: int, dispatch: Dispatch, named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        waits(due_s, service_s, c, dispatch)
