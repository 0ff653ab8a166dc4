"""Which number of workers is recommended, and what limits it: servers of known kinds, as numbers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.models.sizing import Limit, Sized, Verdict, fails, leak, verdict, verdict_of_running, worth_measuring
from lab.study.advice import in_words

CPUS = 2
MIB = 2**20
MEMORY = 4096 * MIB
WORKERS = (1, 2, 4, 5)


def measured(workers: int, rps: float, *, alone_s: float, cpu_s: float, **more: Any) -> Sized:
    """Return what is measured of a server of this capacity: its bounds lie around it."""
    values: dict[str, Any] = {
        "processes": workers,
        "lower_rps": 0.96 * rps,
        "upper_rps": 1.02 * rps,
        "alone_s": alone_s,
        "cpu_s_per_request": cpu_s,
        "generator_cpu_s_per_request": 0.0004,
        "busiest_share": 1 / workers if workers > 1 else None,
        "pss_bytes_per_worker": 30.0 * MIB,
        "leak_bytes_per_request": 0.0,
        "low_requests": 1000,
        "requests": 300,
    }
    return Sized(workers=workers, **values | more)


def computing(workers: int, cpu_s: float = 0.013, **more: Any) -> Sized:
    return measured(workers, min(workers, CPUS) / cpu_s, alone_s=1.05 * cpu_s, cpu_s=cpu_s, **more)


def waiting(workers: int, at_most: int = 1000, **more: Any) -> Sized:
    """Each worker waits 20 ms; if for one thing, only `at_most` of them can at a time."""
    return measured(workers, min(workers, at_most) / 0.0205, alone_s=0.0205, cpu_s=0.0006, **more)


def judged(rows: Sequence[Sized], **more: Any) -> Verdict:
    known: dict[str, Any] = {"cpus": CPUS, "memory_bytes": MEMORY}
    found = verdict(rows, **known | more)
    text = in_words(found, rows, CPUS, MEMORY)
    assert text.count(". ") == 1, f"two sentences: {text}"
    assert text.endswith("."), text
    return found


def test_a_server_that_computes_needs_a_worker_for_each_cpu() -> None:
    rows = [computing(n) for n in WORKERS]
    assert judged(rows) == Verdict(2, Limit.CPU)
    text = in_words(verdict(rows, cpus=CPUS, memory_bytes=MEMORY), rows, CPUS, MEMORY)
    assert text.startswith("Take 2 workers: they sustain 148/s to 157/s, more than fewer do; 4 or 5 ")
    assert "13.0 ms of CPU" in text


def test_fewer_workers_than_cpus_use_up_their_own() -> None:
    assert judged([computing(1)]) == Verdict(1, Limit.CPU)


def test_a_server_that_waits_is_helped_by_workers_until_the_cpus_are_full() -> None:
    found = judged([waiting(n) for n in WORKERS])
    assert found == Verdict(5, Limit.WAITING, beyond=68), "2 CPUs x 20.5 ms / .6 ms"


def test_threads_in_a_worker_wait_as_more_workers_would() -> None:
    rows = [replace(waiting(8 * n), workers=n, processes=n, busiest_share=None) for n in (1, 2)]
    assert judged(rows).limit == Limit.WAITING


@pytest.mark.parametrize("at_most", [1, 2])
def test_what_all_workers_wait_for_is_a_lock(at_most: int) -> None:
    assert judged([waiting(n, at_most) for n in WORKERS]) == Verdict(at_most, Limit.LOCK)


def test_computing_under_a_lock_is_a_lock_though_one_cpu_is_full() -> None:
    rows = [measured(n, 1 / 0.013, alone_s=0.0133, cpu_s=0.013) for n in WORKERS]
    assert judged(rows) == Verdict(1, Limit.LOCK)
    assert judged(rows[:1], cpus=1) == Verdict(1, Limit.CPU), "with one CPU, nothing else could be"


def test_one_worker_that_does_most_of_the_work_is_uneven() -> None:
    rows = [computing(1), *(replace(computing(1, busiest_share=0.9), workers=n, processes=n) for n in (2, 4))]
    assert judged(rows) == Verdict(1, Limit.UNEVEN)
    assert judged([replace(row, busiest_share=1.2 / (row.workers or 1)) for row in rows]).limit == Limit.LOCK
    few = [replace(row, busiest_share=min(1.0, 2 / (row.workers or 1)), requests=6) for row in rows]
    assert judged(few).limit == Limit.LOCK, "of so few requests, one worker may get most by chance"


def test_a_command_that_takes_no_number_of_workers_is_found_out() -> None:
    rows = [replace(computing(1), workers=n) for n in WORKERS]
    found = judged(rows)
    assert found == Verdict(1, Limit.UNKNOWN, ignores_workers=True)
    assert "WEB_CONCURRENCY" in in_words(found, rows, CPUS, MEMORY)


def test_workers_that_do_not_fit_into_the_memory_are_not_recommended() -> None:
    rows = [waiting(n, pss_bytes_per_worker=1500.0 * MIB) for n in WORKERS]
    assert judged(rows) == Verdict(2, Limit.MEMORY)
    assert judged(rows, memory_bytes=1000 * MIB) == Verdict(None, Limit.MEMORY)
    fit = [computing(n, pss_bytes_per_worker=1000.0 * MIB) for n in WORKERS]
    assert judged(fit) == Verdict(2, Limit.CPU), "5 do not fit, and would not help"


def test_a_leak_is_told_by_the_thousand_requests() -> None:
    rows = [computing(n, leak_bytes_per_request=1.0 * MIB) for n in WORKERS]
    found = judged(rows)
    assert found.limit == Limit.MEMORY
    assert "1,000 requests leave 1,000 MiB behind" in in_words(found, rows, CPUS, MEMORY)


def test_a_leak_that_takes_more_than_an_hour_to_fill_the_memory_limits_nothing() -> None:
    assert judged([computing(n, leak_bytes_per_request=4096.0) for n in WORKERS]).limit == Limit.CPU


def test_requests_that_fail_at_low_rates_are_errors_whatever_else_holds() -> None:
    rows = [computing(n, low_failures=20) for n in WORKERS]
    assert judged(rows).limit == Limit.ERRORS
    assert judged(rows, allowed_failures=0.05).limit == Limit.CPU
    rare = [computing(n, low_failures=15) for n in WORKERS]
    assert judged(rare).limit == Limit.ERRORS, "15 of 1,000 may be chance, but not twice"
    lost = [replace(row, lower_rps=None, upper_rps=1.0) for row in rows]
    assert judged(lost) == Verdict(None, Limit.ERRORS)


def test_a_generator_at_its_end_is_no_limit_of_the_server() -> None:
    ended: dict[str, Any] = {"generator_ended": True, "upper_rps": None, "reason": "it cannot be believed"}
    assert judged([replace(computing(n), **ended) for n in WORKERS]).limit == Limit.GENERATOR
    light = [computing(n, cpu_s=0.0003, generator_cpu_s_per_request=0.0006) for n in WORKERS]
    assert judged(light).limit == Limit.GENERATOR
    none = [Sized(workers=n, **ended) for n in WORKERS]
    assert judged(none) == Verdict(None, Limit.GENERATOR)


def test_a_search_that_ended_early_is_not_taken_for_as_good_as_the_best() -> None:
    rows = [
        replace(computing(1), upper_rps=None, reason="others disturbed 5 trials"),
        computing(2),
        computing(4),
    ]
    assert judged(rows).workers == 2


def test_what_no_rule_explains_is_unknown() -> None:
    slow = [measured(n, 0.5 * n / 0.02, alone_s=0.02, cpu_s=0.011) for n in (1, 2)]
    assert judged(slow) == Verdict(2, Limit.UNKNOWN)
    lost = Sized(workers=1, upper_rps=1.0, reason="even 1/s is too much: p99 is 3.00 s")
    assert judged([lost]) == Verdict(None, Limit.UNKNOWN)
    assert "p99 is 3.00 s" in in_words(judged([lost]), [lost], CPUS, MEMORY)


def seen_beside_others(bounds: Sequence[tuple[float, float]], others: Sequence[float]) -> list[Sized]:
    """Return what was seen of a server that computes for 30 ms, on two CPUs that others used, too."""
    return [
        replace(computing(n, cpu_s=0.03), lower_rps=lower_rps, upper_rps=upper_rps, others_cpu=share)
        for n, (lower_rps, upper_rps), share in zip(WORKERS, bounds, others, strict=True)
    ]


def test_what_others_took_does_not_make_more_workers_look_better() -> None:
    bounds = [(17.5, 18.4), (27.2, 28.6), (20.6, 21.7), (59.7, 62.7)]
    rows = seen_beside_others(bounds, (0.72, 0.55, 0.6, 0.04))
    assert judged(rows) == Verdict(2, Limit.CPU), "they did less than 5, but may do as much"
    assert "beside others that used up to 60 %" in in_words(judged(rows), rows, CPUS, MEMORY)


def test_what_others_took_does_not_make_more_workers_look_useless() -> None:
    bounds = [(11.7, 14.2), (3.34, 3.7), (5.92, 8.41), (14.7, 17.7)]
    rows = seen_beside_others(bounds, (0.77, 0.9, 0.88, 0.73))
    assert judged(rows) == Verdict(None, Limit.UNKNOWN)
    assert "could not be told beside others" in in_words(judged(rows), rows, CPUS, MEMORY)
    assert judged([replace(row, low_failures=30) for row in rows]).limit == Limit.ERRORS


def test_a_server_that_waits_is_told_beside_others() -> None:
    assert judged([waiting(n, others_cpu=0.75) for n in WORKERS]) == Verdict(5, Limit.WAITING, beyond=68)


def test_a_lock_that_is_waited_for_is_told_beside_others() -> None:
    rows = [waiting(n, at_most=1, others_cpu=0.9) for n in WORKERS]
    assert judged(rows) == Verdict(1, Limit.LOCK)
    assert "of 5 workers, about 1.0 have a request" in in_words(judged(rows), rows, CPUS, MEMORY)


def test_a_busy_event_loop_is_not_taken_for_waiting() -> None:
    """As measured of Node, answering at once: its latency alone is mostly not its own."""
    one = measured(1, 2200.0, alone_s=0.00177, cpu_s=0.000404)
    lost = Sized(workers=2, upper_rps=2450.0, reason="its time was up")
    assert judged([one, lost]) == Verdict(1, Limit.CPU)
    assert "what 2 sustain was not found" in in_words(judged([one, lost]), [one, lost], CPUS, MEMORY)


def test_an_event_loop_that_waits_cannot_be_told_beside_others() -> None:
    rows = [measured(n, 800.0, alone_s=0.022, cpu_s=0.00034, others_cpu=0.75) for n in WORKERS]
    assert judged(rows) == Verdict(None, Limit.UNKNOWN)


def test_no_lock_is_told_where_others_used_the_rest() -> None:
    rows = [measured(n, 1 / 0.013, alone_s=0.0133, cpu_s=0.013, others_cpu=0.25) for n in WORKERS]
    assert judged(rows) == Verdict(1, Limit.UNKNOWN)


def test_a_quota_counts_as_the_cpus_that_it_is_worth() -> None:
    rows = [measured(n, 0.5 / 0.013, alone_s=0.0133, cpu_s=0.013) for n in (1, 2)]
    assert judged(rows, cpus=0.5) == Verdict(1, Limit.CPU)


@pytest.mark.parametrize(
    ("more", "limit"),
    [
        ({}, Limit.UNKNOWN),
        ({"generator_ended": True, "upper_rps": None}, Limit.GENERATOR),
        ({"low_requests": 1000, "low_failures": 40}, Limit.ERRORS),
    ],
)
def test_of_a_running_server_only_two_limits_can_be_told(more: dict[str, Any], limit: Limit) -> None:
    row = replace(Sized(workers=None, lower_rps=48.0, upper_rps=51.0, alone_s=0.02), **more)
    found = verdict_of_running(row)
    assert found == Verdict(None, limit)
    assert in_words(found, [row], CPUS, MEMORY).startswith("The running server sustains ")


@given(st.permutations(WORKERS))
def test_the_order_of_measurement_does_not_matter(order: Sequence[int]) -> None:
    assert verdict([computing(n) for n in order], cpus=CPUS, memory_bytes=MEMORY) == Verdict(2, Limit.CPU)


@given(
    st.lists(st.floats(1, 1000), min_size=1, max_size=5),
    st.floats(0.0001, 0.1), st.floats(0.0001, 0.1), st.floats(0.0, 1.0),
)  # fmt: skip
def test_the_recommended_rate_may_always_be_the_best(
    rates: list[float], alone_s: float, cpu_s: float, share: float
) -> None:
    rows = [
        measured(n, rate, alone_s=alone_s, cpu_s=cpu_s, busiest_share=share)
        for n, rate in enumerate(rates, 1)
    ]
    found = judged(rows)
    chosen = next(row for row in rows if row.workers == found.workers)
    assert (chosen.upper_rps or 0) >= max(row.lower_rps or 0 for row in rows)


def test_fewer_failures_than_chance_gives_are_none() -> None:
    assert not fails(1000, 0, 0.01)
    assert not fails(1000, 16, 0.01)
    assert fails(1000, 20, 0.01)
    assert not fails(50, 1, 0.01), "1 of 50 may be luck"
    assert fails(50, 25, 0.01)
    assert fails(3, 1, 0.0)
    assert not fails(0, 0, 0.01)


@pytest.mark.parametrize(
    ("points", "bytes_per_request"),
    [
        ([(0, 30.0), (100, 130.0), (200, 230.0), (400, 430.0)], 1.0),
        ([(0, 30.0), (100, 60.0), (200, 60.0), (400, 60.0)], 0.0),
        ([(0, 30.0), (200, 230.0), (400, 330.0)], 0.5),
        ([(0, 30.0), (200, 31.0), (400, 32.0)], 0.0),
        ([(0, 90.0), (60, 94.0), (110, 98.0)], 0.0),
        ([(0, 30.0), (1000, 50.0), (2000, 70.0)], 0.02),
        ([(0, 30.0), (400, 430.0)], 0.0),
        ([(0, 30.0), (0, 430.0), (0, 430.0)], 0.0),
    ],
)
def test_a_leak_grows_as_long_as_requests_come(
    points: list[tuple[int, float]], bytes_per_request: float
) -> None:
    found = leak([(requests, MIB * held) for requests, held in points])
    assert found == pytest.approx(bytes_per_request * MIB)


def test_by_default_few_numbers_are_measured_up_to_the_folk_rule() -> None:
    assert worth_measuring(1) == [1, 2, 3]
    assert worth_measuring(2) == [1, 2, 4, 5]
    assert worth_measuring(64) == [1, 16, 32, 64, 128, 129]
    for cpus in range(1, 200):
        counts = worth_measuring(cpus)
        assert {1, cpus, 2 * cpus, 2 * cpus + 1} <= set(counts)
        assert len(counts) <= 6
        assert math.isfinite(sum(counts))
