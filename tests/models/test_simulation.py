"""Queues played through by hand, by plain Python, against each other, and against exact theory."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, get_args

import numpy as np
import pytest
from helpers import queues
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from lab.errors import UsageError
from lab.models.queueing import (
    mdc_mean_wait,
    mdc_wait_quantile,
    mmc_mean_wait,
    mmc_wait_quantile,
    ps_mean_latency,
    two_choices_mean_latency,
)
from lab.models.simulation import Dispatch, latencies, waits

ONE_AT_A_TIME = [dispatch for dispatch in get_args(Dispatch) if dispatch != "sharing"]
gaps = st.lists(st.floats(0, 3), min_size=1, max_size=200)
workers = st.integers(1, 6)
requests = st.lists(st.tuples(st.floats(0, 3), st.floats(0, 5)), min_size=1, max_size=60)
speeds = st.lists(st.floats(0.25, 4), min_size=1, max_size=5)


def test_a_queue_worked_out_by_hand() -> None:
    due_s = [0, 0, 1, 1, 1, 10]
    assert waits(due_s, 2, workers=1).tolist() == [0, 2, 3, 5, 7, 0]
    assert waits(due_s, 2, workers=2).tolist() == [0, 0, 1, 1, 3, 0]
    assert waits(due_s, [5, 1, 1, 1, 1, 1], workers=2).tolist() == [0, 0, 0, 1, 2, 0]
    assert waits(due_s, [5, 1, 1, 1, 1, 1], workers=2, dispatch="round-robin").tolist() == [0, 0, 4, 0, 5, 0]
    # The third, with the first worker for it holds fewer than two, waits though the other is free at 1.
    for dispatch in ("bounded", "shortest"):
        waited_s = waits([0, 0.1, 0.2, 0.3], [5, 1, 1, 1], 2, dispatch, bound=2)
        assert waited_s.tolist() == pytest.approx([0, 0, 4.8, 0.8])
    assert waits(due_s, 2, workers=2, dispatch="batches").tolist() == [0, 2, 0, 2, 4, 0]
    assert waits(due_s, 2, workers=1, dispatch="batches").tolist() == [0, 2, 3, 5, 7, 0]


def test_processor_sharing_worked_out_by_hand() -> None:
    assert latencies([5], 2, 1, "sharing").tolist() == [2]
    assert latencies([0, 1], 2, 1, "sharing").tolist() == [3, 3], "alone, together for two seconds, alone"
    assert waits([0, 1], 2, 1, "sharing").tolist() == [1, 1]
    assert waits([0, 1], 2, 2, "sharing").tolist() == [0, 0]
    assert latencies([0, 0, 0, 9], [2, 2, 2, 1], 2, "sharing").tolist() == pytest.approx([3, 3, 3, 1])


@pytest.mark.parametrize(
    ("dispatch", "latencies_s"),
    [
        ("central", [2, 4, 4, 6]),
        ("bounded", [2, 4, 4, 6]),
        ("round-robin", [2, 4, 4, 8]),
        ("shortest", [2, 4, 4, 8]),
        ("batches", [2, 4, 6, 8]),
    ],
)
def test_a_slow_worker_worked_out_by_hand(dispatch: Dispatch, latencies_s: list[float]) -> None:
    assert latencies([0, 0, 0, 0], 2, 2, dispatch, speeds=[1, 0.5]).tolist() == latencies_s


@given(requests, speeds, st.integers(1, 9))
def test_compiled_loops_do_what_plain_python_does(
    requests: list[tuple[float, float]], paces: list[float], bound: int
) -> None:
    due_s, service_s = np.cumsum([gap for gap, _ in requests]).tolist(), [work for _, work in requests]
    by_dispatch: dict[Dispatch, list[float]] = {
        "central": queues.to_the_fewest(due_s, service_s, paces, 1),
        "bounded": queues.to_the_fewest(due_s, service_s, paces, bound),
        "shortest": queues.to_the_fewest(due_s, service_s, paces),
        "round-robin": queues.to_the_fewest(due_s, service_s, paces, turns=True),
        "batches": queues.in_batches(due_s, service_s, paces),
    }
    for dispatch, expected_s in by_dispatch.items():
        played_s = latencies(due_s, service_s, len(paces), dispatch, bound=bound, speeds=paces)
        np.testing.assert_allclose(played_s, expected_s, rtol=0, atol=1e-9, err_msg=dispatch)
    played_s = latencies(due_s, service_s, len(paces), "sharing")
    np.testing.assert_allclose(played_s, queues.shared(due_s, service_s, len(paces)), rtol=0, atol=1e-9)


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


@given(requests, st.integers(0, 9))
def test_the_shorter_of_two_queues_is_the_shortest_if_there_are_two(
    requests: list[tuple[float, float]], seed: int
) -> None:
    due_s, service_s = np.cumsum([gap for gap, _ in requests]), [work for _, work in requests]
    two = waits(due_s, service_s, 2, "two-choices", seed)
    np.testing.assert_allclose(two, waits(due_s, service_s, 2, "shortest"), atol=1e-9)


@given(gaps, workers, st.sampled_from(ONE_AT_A_TIME), st.integers(0, 9))
def test_no_worker_ever_does_two_things_at_once(
    gaps_s: list[float], c: int, dispatch: Dispatch, seed: int
) -> None:
    due_s = np.cumsum(gaps_s)
    waited = waits(due_s, 1.0, c, dispatch, seed, bound=2)
    start = due_s + waited
    assert (waited >= 0).all()
    others = (start[:, None] >= start) & (start[:, None] < start + 1.0 - 1e-9)
    assert others.sum(axis=1).max() <= c


@given(requests, speeds, st.sampled_from(get_args(Dispatch)), st.integers(0, 9))
def test_no_request_takes_less_than_its_service(
    requests: list[tuple[float, float]], paces: list[float], dispatch: Dispatch, seed: int
) -> None:
    due_s, service_s = np.cumsum([gap for gap, _ in requests]), np.array([work for _, work in requests])
    waited_s = waits(due_s, service_s, len(paces), dispatch, seed)
    latencies_s = latencies(due_s, service_s, len(paces), dispatch, seed=seed)
    assert (waited_s >= 0).all()
    assert (latencies_s == waited_s + service_s).all()
    if dispatch != "sharing":
        paced_s = latencies(due_s, service_s, len(paces), dispatch, seed=seed, speeds=paces)
        assert (paced_s >= service_s / max(paces)).all()


@given(requests)
def test_one_worker_is_busy_until_the_same_time_however_it_serves(
    requests: list[tuple[float, float]],
) -> None:
    due_s, service_s = np.cumsum([gap for gap, _ in requests]), [work for _, work in requests]
    in_turn_s, shared_s = (due_s + latencies(due_s, service_s, 1, how) for how in ("central", "sharing"))
    assert shared_s.max() == pytest.approx(in_turn_s.max())


@given(gaps, st.integers(2, 6))
def test_chance_never_does_better_than_a_central_queue(gaps_s: list[float], c: int) -> None:
    due_s = np.cumsum(gaps_s)
    assert waits(due_s, 1.0, c, "random").sum() >= waits(due_s, 1.0, c, "central").sum() - 1e-9


def test_one_worker_is_the_same_however_requests_reach_it() -> None:
    due_s, service_s = _drawn("exponential", 0.7, seed=1)
    for dispatch in ONE_AT_A_TIME:
        waited_s = waits(due_s, service_s, 1, dispatch)
        np.testing.assert_allclose(waited_s, waits(due_s, service_s, 1), atol=1e-9)


REPLICATIONS, REQUESTS, WARM_UP = 24, 50_000, 5_000
SERVICES: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "constant": lambda random: np.ones(REQUESTS),
    "exponential": lambda random: random.exponential(size=REQUESTS),
    "seldom long": lambda random: random.exponential(np.where(random.random(REQUESTS) < 0.1, 5.5, 0.5)),
}
"""Service times whose mean is 1."""


def _drawn(service: str, rate: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return np.cumsum(random.exponential(1 / rate, REQUESTS)), SERVICES[service](random)


def _replicated(
    dispatch: Dispatch, c: int, service: str, utilisation: float, **options: Any
) -> NDArray[np.float64]:
    """Return latencies of Poisson arrivals, a row for each independent replication."""
    played = (
        latencies(*_drawn(service, c * utilisation, seed), c, dispatch, seed=seed, **options)
        for seed in range(REPLICATIONS)
    )
    return np.array([latencies_s[WARM_UP:] for latencies_s in played])


def _agree(replicated: NDArray[np.float64], exact: float) -> bool:
    """Say whether the interval (t; 99.9 %, as tests are many) holds the exact value, and is narrow."""
    low, high = stats.ttest_1samp(replicated, exact).confidence_interval(0.999)
    return bool(low <= exact <= high and high - low < 0.15 * exact)


@pytest.mark.parametrize(
    ("dispatch", "c", "service", "exact"),
    [
        ("central", 3, "exponential", 1 + mmc_mean_wait(3, 0.7)),
        ("central", 4, "constant", 1 + mdc_mean_wait(4, 0.7)),
        ("bounded", 3, "exponential", 1 + mmc_mean_wait(3, 0.7)),
        ("round-robin", 4, "constant", 1 + mdc_mean_wait(4, 0.7)),
        ("random", 4, "exponential", 1 + mmc_mean_wait(1, 0.7)),
        ("random", 2, "constant", 1 + mdc_mean_wait(1, 0.7)),
        ("batches", 1, "constant", 1 + mdc_mean_wait(1, 0.7)),
        ("sharing", 1, "constant", ps_mean_latency(0.7)),
        ("sharing", 1, "exponential", ps_mean_latency(0.7)),
        ("sharing", 1, "seldom long", ps_mean_latency(0.7)),
        ("sharing", 3, "exponential", 1 + mmc_mean_wait(3, 0.7)),
    ],
)
def test_mean_latency_is_that_of_exact_theory(dispatch: Dispatch, c: int, service: str, exact: float) -> None:
    assert _agree(_replicated(dispatch, c, service, 0.7).mean(axis=1), exact)


@pytest.mark.parametrize(
    ("service", "exact"),
    [("constant", mdc_wait_quantile(0.99, 4, 0.7)), ("exponential", mmc_wait_quantile(0.99, 4, 0.7))],
)
def test_the_tail_is_that_of_exact_theory(service: str, exact: float) -> None:
    waited_s = [waits(*_drawn(service, 4 * 0.7, seed), 4)[WARM_UP:] for seed in range(REPLICATIONS)]
    assert _agree(np.quantile(waited_s, 0.99, axis=1), exact)


def test_two_choices_of_many_workers_wait_as_the_limit_says() -> None:
    assert two_choices_mean_latency(0.5) == pytest.approx(1.26569, abs=5e-6)
    assert _agree(
        _replicated("two-choices", 400, "exponential", 0.5).mean(axis=1), two_choices_mean_latency(0.5)
    )


def test_the_shortest_of_two_queues_is_as_long_as_its_chain_says() -> None:
    assert _agree(_replicated("shortest", 2, "exponential", 0.7).mean(axis=1), _shorter_of_two(0.7))


def _shorter_of_two(utilisation: float, longest: int = 40) -> float:
    """Return the mean latency if requests join the shorter of two queues: the chain's equations, solved."""
    lengths, rate = longest + 1, 2 * utilisation
    flow = np.zeros((lengths, lengths, lengths, lengths))  # from (a, b) to (a, b)
    for a in range(lengths):
        for b in range(lengths):
            joins = [side for side, length in enumerate((a, b)) if length == min(a, b) < longest]
            for side in joins:
                flow[a, b, a + (side == 0), b + (side == 1)] = rate / len(joins)
            if a:
                flow[a, b, a - 1, b] = 1
            if b:
                flow[a, b, a, b - 1] = 1
    equations = flow.reshape(lengths**2, lengths**2).T.copy()
    equations -= np.diag(equations.sum(axis=0))
    equations[-1] = 1
    law = np.linalg.solve(equations, np.eye(lengths**2)[-1]).reshape(lengths, lengths)
    held = np.add.outer(np.arange(lengths), np.arange(lengths))
    return float((held * law).sum() / rate)


def test_workers_of_unequal_speed_are_queues_of_their_own_if_split_by_chance() -> None:
    """Each is M/M/1, at .35 requests per service time of a full-speed worker."""
    replicated = _replicated("random", 4, "exponential", 0.35, speeds=[1, 1, 2, 0.5])
    assert _agree(replicated.mean(axis=1), float(np.mean([1 / (speed - 0.35) for speed in (1, 1, 2, 0.5)])))


def test_the_more_a_dispatch_sees_the_shorter_the_latency() -> None:
    ways: list[Dispatch] = ["central", "shortest", "two-choices", "random"]
    means = [_replicated(dispatch, 20, "exponential", 0.8).mean(axis=1) for dispatch in ways]
    assert (np.diff(means, axis=0) > 0).all(), "in every replication"


def test_no_requests_wait_for_nothing() -> None:
    for dispatch in get_args(Dispatch):
        assert waits([], 1, 2, dispatch).tolist() == latencies([], [], 2, dispatch).tolist() == []


def test_what_is_passed_may_be_read_only_and_is_left_as_it_is() -> None:
    due_s = np.arange(6.0)
    due_s.flags.writeable = False
    assert waits(due_s[::2], due_s[::2] * 2, 1).tolist() == [0, 0, 2]
    assert due_s.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("due_s", "service_s", "c", "dispatch", "named"),
    [
        ([1, 0], 1, 1, "central", "due_s must be one list of finite times in ascending order, got "),
        ([0, float("nan")], 1, 1, "central", "due_s must be one list of finite times"),
        (["soon"], 1, 1, "central", "due_s must be numbers, got "),
        ([0, 1], -1, 1, "central", "service_s must be finite and at least 0, got -1"),
        ([0, 1], [1, 1, 1], 1, "central", "service_s must be one time, or one for each of 2 requests, got 3"),
        ([0, 1], 1, 0, "central", "workers must be at least 1, got 0"),
        (
            [0, 1],
            1,
            1,
            "fastest",
            "dispatch must be 'central', 'bounded', 'round-robin', 'random', 'batches', 'shortest', "
            "'two-choices' or 'sharing', got",
        ),
    ],
)
def test_bad_input_is_named(
    due_s: list[float], service_s: float, c: int, dispatch: Dispatch, named: str
) -> None:
    for ask in (waits, latencies):
        with pytest.raises(UsageError, match=named):
            ask(due_s, service_s, c, dispatch)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"speeds": [1]}, "speeds must have a number for each of 2 workers, got 1"),
        ({"speeds": [1, 0]}, "speeds must be finite and above 0, got [1, 0]"),
        ({"speeds": ["fast"]}, "speeds must be numbers, got ['fast']"),
        (
            {"speeds": [1, 1], "dispatch": "sharing"},
            "speeds are not for sharing: its requests share all workers, at one speed",
        ),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"bound": 0}, "bound must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        latencies([0, 1], 1, 2, **options)
    assert str(error.value) == line


def test_numba_is_imported_when_needed_and_what_it_kept_may_be_damaged(tmp_path: Path) -> None:
    code = """
import sys
from lab.models.simulation import waits
print("numba" in sys.modules, waits([0, 0], 2, 1).tolist())
"""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == "False [0.0, 2.0]\n"
        (kept,) = tmp_path.rglob("*.nbi")
        kept.write_bytes(kept.read_bytes()[:100])
