"""Speed-ups paired within blocks, the scaling laws against published data, and the speed-up stack by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from lab.errors import UsageError
from lab.models.scaling import (
    LOSSES,
    ScalingLaw,
    Stack,
    WorkerTime,
    envelope,
    fit_law,
    speedup_stack,
    speedups,
    worker_time,
)

SPECSDM91 = (
    [1, 18, 36, 72, 108, 144, 216],
    [64.9, 995.9, 1652.4, 1853.2, 1828.9, 1775.0, 1702.2],
)
SYNTHETIC = ([1, 2, 4, 6, 8, 10], [1, 1.8868, 3.0769, 3.5294, 3.5398, 3.3557])

contentions = st.floats(0, 0.5)
coherencies = st.floats(0, 0.05)
base_rates = st.floats(1, 1e4)


def test_speedups_are_paired_within_blocks() -> None:
    workers = [1, 2, 4] * 6
    blocks = [block for block in range(6) for _ in range(3)]
    rates = [speed * one for speed in (10, 11, 12, 13, 14, 15) for one in (1, 1.9, 3.0)]
    one, two, four = speedups(workers, blocks, rates)
    assert (one.workers, two.workers, four.workers) == (1, 2, 4)
    assert one.throughput_rps.value == 12.5
    assert (one.speedup.value, one.efficiency.value) == (1, 1)
    assert two.speedup.value == pytest.approx(1.9)
    assert two.efficiency.value == pytest.approx(0.95)
    assert (four.speedup.low, four.speedup.high) == pytest.approx((3, 3))
    assert (four.efficiency.low, four.efficiency.high) == pytest.approx((0.75, 0.75))


def test_the_order_of_trials_does_not_matter() -> None:
    workers, blocks, rates = [1, 2, 1, 2], ["a", "a", "b", "b"], [10.0, 19, 12, 20]
    forth, back = speedups(workers, blocks, rates), speedups(workers[::-1], blocks[::-1], rates[::-1])
    assert [point.speedup.value for point in forth] == [point.speedup.value for point in back]


def test_a_block_without_one_worker_is_left_out() -> None:
    points = speedups([1, 2, 2, 4], ["a", "a", "b", "b"], [10, 19, 500, 900])
    assert [point.workers for point in points] == [1, 2]
    assert points[1].speedup.value == 1.9
    assert points[1].throughput_rps.trials == 1


def test_a_trial_that_answered_nothing_counts() -> None:
    assert speedups([1, 2], [0, 0], [10, 0])[1].speedup.value == 0


@pytest.mark.parametrize(
    ("workers", "rates", "named"),
    [
        ([2, 4], [10, 20], "relative to one worker"),
        ([1, 1], [10, 20], "two trials"),
        ([0, 1], [10, 20], "workers"),
        ([], [], "workers"),
        ([1, 2], [0, 20], "denominator"),
        ([1, 2], [10, math.nan], "not finite"),
    ],
)
def test_speedups_refuse_what_has_no_base(workers: list[int], rates: list[float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        speedups(workers, [0] * len(workers), rates)


def test_usl_of_specsdm91() -> None:
    law = fit_law(*SPECSDM91, cpus=216)
    assert law.contention == pytest.approx(0.02773, abs=5e-6)
    assert law.coherency == pytest.approx(1.044e-4, abs=5e-8)
    assert law.one_worker_rps == pytest.approx(90.00, abs=0.01)
    assert math.sqrt((1 - law.contention) / law.coherency) == pytest.approx(96.51956, rel=1e-5)  # its peak


def test_the_law_has_the_published_standard_errors_at_specsdm91() -> None:
    law = fit_law(*SPECSDM91, cpus=216)

    def throughput(n: NDArray[np.float64], g: float, a: float, b: float, /) -> NDArray[np.float64]:
        return ScalingLaw(g, a, b).throughput_rps(n)

    start = (law.one_worker_rps, law.contention, law.coherency)
    _, covariance = curve_fit(throughput, *SPECSDM91, start)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([14.21, 0.009122, 1.988e-5], rel=4e-4)


def test_usl_of_the_synthetic_data() -> None:
    law = fit_law(*SYNTHETIC, cpus=10)
    assert (law.contention, law.coherency, law.one_worker_rps) == pytest.approx((0.02, 0.02, 1), rel=1e-3)


@given(base_rates, contentions, coherencies)
def test_a_law_is_found_again_from_its_own_throughput(g: float, a: float, b: float) -> None:
    workers = [1, 2, 3, 4, 6, 8, 12, 16]
    made = ScalingLaw(g, a, b)
    found = fit_law(workers, made.throughput_rps(workers).tolist(), cpus=16)
    np.testing.assert_allclose(found.throughput_rps(workers), made.throughput_rps(workers), rtol=1e-4)
    assert found.contention == pytest.approx(a, abs=1e-3)
    assert found.coherency == pytest.approx(b, abs=1e-3)


def test_amdahls_roof() -> None:
    assert ScalingLaw(50, 0.1, 0).throughput_rps(1e9) == pytest.approx(50 / 0.1)


def test_workers_beyond_the_cpus_are_not_fitted() -> None:
    workers, rates = SYNTHETIC
    with_kink = fit_law([*workers, 12, 16], [*rates, 0.1, 0.1], cpus=10)
    assert with_kink == fit_law(workers, rates, cpus=10)


def test_two_core_counts_are_refused_a_law() -> None:
    with pytest.raises(UsageError, match="three numbers of workers up to 2 CPUs, got 2"):
        fit_law([1, 2, 3, 4], [50, 93, 93, 93], cpus=2)


@pytest.mark.parametrize(
    ("workers", "rates", "named"),
    [([], [], "workers"), ([0, 1, 2], [1, 2, 3], "workers"), ([1, 2, 4], [1, 0, 2], "throughput_rps")],
)
def test_a_fit_names_its_bad_input(workers: list[int], rates: list[float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        fit_law(workers, rates, cpus=4)


@given(base_rates, st.floats(0.1, 2), st.integers(2, 16))
def test_both_ends_of_the_envelope_go_through_both_points(one: float, ratio: float, n: int) -> None:
    many = one * ratio
    for law in envelope(one, many, n):
        assert law.throughput_rps([1, n]) == pytest.approx([one, many])
        assert 0 <= law.contention <= 1
        assert law.coherency >= 0


def test_the_envelope_of_two_workers() -> None:
    amdahl, coherent = envelope(50, 93)
    lost = 2 / (93 / 50) - 1
    assert (amdahl.contention, amdahl.coherency) == pytest.approx((lost, 0))
    assert (coherent.contention, coherent.coherency) == pytest.approx((0, lost / 2))
    assert (amdahl.throughput_rps([3, 8]) > coherent.throughput_rps([3, 8])).all()


def test_more_than_ideal_is_taken_as_ideal() -> None:
    for law in envelope(50, 103):
        assert (law.contention, law.coherency) == (0, 0)
    with pytest.raises(UsageError, match="workers must be at least 2, got 1"):
        envelope(50, 50, workers=1)


def _rows(*workers: dict[str, Any]) -> dict[str, list[float]]:
    """Make requests, all sent at the start, that each worker answers one after the other.

    `loops` of `service_s`, each with `cpu_s` on a CPU and `beside_s` beside the loop; `sent_s` sends them.
    """
    columns: dict[str, list[float]] = {
        name: [] for name in ("worker", "sent_s", "end_s", "service_s", "service_cpu_s")
    }
    for number, about in enumerate(workers, start=1):
        service_s, beside_s = about["service_s"], about.get("beside_s", 0.0)
        for done in range(1, about["loops"] + 1):
            columns["worker"].append(number)
            columns["sent_s"].append(about.get("sent_s", 0.0))
            columns["end_s"].append(about.get("sent_s", 0.0) + done * (service_s + beside_s))
            columns["service_s"].append(service_s)
            columns["service_cpu_s"].append(about.get("cpu_s", service_s))
    return columns


def _time(workers: int, *about: dict[str, Any]) -> WorkerTime:
    found = worker_time(workers, **_rows(*about))
    assert found is not None
    return found


def test_a_worker_that_runs_out_early_does_not_count_against_all() -> None:
    """Two workers, 3.0 s; one has nothing to do for the last .26 s. 1.89 times one worker becomes 1.98."""
    loops = {"service_s": 0.02}
    rows = _rows({"loops": 150} | loops, {"loops": 137} | loops)
    one_rps = 50.6
    assert len(rows["end_s"]) / max(rows["end_s"]) / one_rps == pytest.approx(1.89, abs=0.005)
    found = worker_time(2, **rows)
    assert found is not None
    assert found.throughput_rps / one_rps == pytest.approx(1.98, abs=0.005)
    assert found.window_s == pytest.approx(2.74)


def test_the_window_begins_when_the_last_worker_gets_work() -> None:
    found = _time(2, {"loops": 20, "service_s": 0.1}, {"loops": 10, "service_s": 0.1, "sent_s": 0.55})
    assert found.window_s == pytest.approx(1.55 - 0.55)
    assert found.answered == pytest.approx(20), "the loops that the window cuts count in proportion"
    assert found.idle_s == pytest.approx(0)


def test_time_is_split_by_hand() -> None:
    found = _time(1, {"loops": 10, "service_s": 0.08, "beside_s": 0.02, "cpu_s": 0.06})
    assert (found.window_s, found.answered) == pytest.approx((1.0, 10))
    assert (found.idle_s, found.overhead_s) == pytest.approx((0, 0.2))
    assert (found.in_loop_s, found.loop_cpu_s) == pytest.approx((0.8, 0.6))


def test_a_worker_without_a_request_is_idle_and_one_with_a_request_is_not() -> None:
    """The second request is sent .3 s after the first is answered; the third waits then, or is not sent."""
    columns = {"service_s": [0.1] * 4, "service_cpu_s": [0.1] * 4, "end_s": [0.1, 0.5, 0.6, 0.7]}
    idle = worker_time(1, worker=[1] * 4, sent_s=[0.0, 0.4, 0.4, 0.4], **columns)
    waiting = worker_time(1, worker=[1] * 4, sent_s=[0.0, 0.4, 0.0, 0.4], **columns)
    assert idle is not None
    assert waiting is not None
    assert (idle.idle_s, idle.overhead_s) == pytest.approx((0.3, 0))
    assert (waiting.idle_s, waiting.overhead_s) == pytest.approx((0, 0.3))


def test_a_worker_that_never_answers_is_idle_all_the_time() -> None:
    found = _time(3, *[{"loops": 10, "service_s": 0.1}] * 2)
    assert (found.idle_s, found.in_loop_s) == pytest.approx((1.0, 2.0))


def test_workers_that_were_never_busy_together_have_no_window() -> None:
    apart = _rows({"loops": 1, "service_s": 0.1}, {"loops": 1, "service_s": 0.1, "sent_s": 0.2})
    assert worker_time(2, **apart) is None
    assert worker_time(2, **_rows()) is None


def test_four_workers_on_two_cpus_wait_half_of_the_time() -> None:
    one = _time(1, {"loops": 100, "service_s": 0.01})
    four = _time(4, *[{"loops": 50, "service_s": 0.02, "cpu_s": 0.01}] * 4)
    stack = speedup_stack(one, four)
    assert stack.factors == pytest.approx({"busy": 1, "in_loop": 1, "on_cpu": 0.5, "cpu_speed": 1})
    assert stack.speedup == pytest.approx(2)
    assert stack.losses == pytest.approx({"busy": 0, "in_loop": 0, "on_cpu": 2, "cpu_speed": 0})


def test_each_loss_has_its_own_factor() -> None:
    """Two workers: a tenth is idle, overhead grows, loops wait a fifth, and cost a quarter more CPU."""
    one = WorkerTime(1, 1.0, 8, idle_s=0.0, overhead_s=0.2, in_loop_s=0.8, loop_cpu_s=0.8)
    two = WorkerTime(2, 1.0, 9.6, idle_s=0.2, overhead_s=0.3, in_loop_s=1.5, loop_cpu_s=1.2)
    assert speedup_stack(one, two).factors == pytest.approx(
        {"busy": 0.9, "in_loop": (1.5 / 1.8) / 0.8, "on_cpu": 0.8, "cpu_speed": 0.8}
    )


def test_losses_of_equal_factors_are_equal_and_their_order_does_not_matter() -> None:
    stack = Stack(8, 0.5, 0.5, 1.0, 1.0)
    assert stack.losses["busy"] == stack.losses["in_loop"] == pytest.approx(3)
    assert set(stack.losses) == set(LOSSES)


def test_a_gain_is_a_loss_below_zero() -> None:
    losses = Stack(2, 1.0, 1.0, 1.0, 1.05).losses
    assert losses["cpu_speed"] == pytest.approx(-0.1)


def test_what_cannot_be_stacked_is_refused() -> None:
    one = _time(1, {"loops": 10, "service_s": 0.1})
    two = _time(2, *[{"loops": 10, "service_s": 0.1, "cpu_s": math.nan}] * 2)
    assert two.throughput_rps == pytest.approx(20), "throughput needs no CPU time"
    with pytest.raises(UsageError, match="CPU time of the loops"):
        speedup_stack(one, two)
    with pytest.raises(UsageError, match="over one worker, got 2"):
        speedup_stack(two, two)
    rows = _rows(*[{"loops": 2, "service_s": 0.1}] * 3)
    with pytest.raises(UsageError, match="3 workers answered, but there are 2"):
        worker_time(2, **rows)
    with pytest.raises(UsageError, match="is missing"):
        worker_time(3, **rows | {"service_s": [math.nan] * 6})


durations_s = st.floats(0.001, 1)
"""Of one request: how long after the last answer it is sent, what it takes beside its loop, and in it."""
answers = st.lists(st.tuples(st.floats(0, 1), durations_s, durations_s, st.floats(0.1, 1)), min_size=1)


def _measured(workers: list[list[tuple[float, float, float, float]]]) -> dict[str, Any]:
    rows = []
    for number, mine in enumerate(workers):
        now_s = 0.0
        for pause_s, beside_s, service_s, on_cpu in mine:
            sent_s = now_s + pause_s - 0.5  # half of them are sent before the last answer, and wait
            now_s = max(now_s, sent_s) + beside_s + service_s
            rows.append((number, sent_s, now_s, service_s, on_cpu * service_s))
    names = ("worker", "sent_s", "end_s", "service_s", "service_cpu_s")
    return dict(zip(names, np.array(rows).T, strict=True))


@given(st.lists(answers, min_size=1, max_size=4), st.integers(0, 2))
def test_no_time_is_lost(workers: list[list[tuple[float, float, float, float]]], silent: int) -> None:
    rows = _measured(workers)
    count = len(workers) + silent
    found = worker_time(count, **rows)
    assume(found is not None)
    assert found is not None
    whole_s = found.idle_s + found.overhead_s + found.in_loop_s
    assert whole_s == pytest.approx(count * found.window_s)
    assert found.idle_s >= silent * found.window_s - 1e-9
    assert found.overhead_s >= -1e-9
    assert found.loop_cpu_s <= found.in_loop_s + 1e-9
    assert 0 < found.answered <= len(rows["end_s"]) + 1e-9


@given(answers, st.lists(answers, min_size=1, max_size=4))
def test_the_product_of_the_factors_is_the_measured_speedup(
    one: list[tuple[float, float, float, float]], several: list[list[tuple[float, float, float, float]]]
) -> None:
    base, many = worker_time(1, **_measured([one])), worker_time(len(several), **_measured(several))
    assume(base is not None and many is not None)
    assert base is not None
    assert many is not None
    stack = speedup_stack(base, many)
    speedup = (many.answered / many.window_s) / (base.answered / base.window_s)
    product = len(several) * stack.busy * stack.in_loop * stack.on_cpu * stack.cpu_speed
    assert product == pytest.approx(speedup)
    assert sum(stack.losses.values()) == pytest.approx(len(several) - speedup, abs=1e-9)
