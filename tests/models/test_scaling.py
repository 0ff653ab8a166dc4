"""Speed-ups paired within blocks, and the scaling laws against published data sets."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from lab.errors import UsageError
from lab.models.scaling import ScalingLaw, envelope, fit_law, speedups

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
