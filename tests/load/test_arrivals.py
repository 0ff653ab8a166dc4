"""Schedules are arithmetic: exact, without drift, and known before anything is sent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lab.errors import UsageError
from lab.load.arrivals import Stage, due_times, duration_s, parse_stages, total

rates = st.floats(0.1, 1000).map(lambda rate: round(rate, 3))
any_stages = st.builds(Stage, rates, rates, st.floats(0.1, 10))


def constant(rate: float, lasts_s: float) -> list[Stage]:
    return [Stage(rate, rate, lasts_s)]


@pytest.mark.parametrize(
    ("rate", "lasts_s", "planned"), [(50, 30, 1500), (3, 10, 30), (7, 1, 7), (0.1, 30, 3), (2.5, 1, 3)]
)
def test_a_constant_rate_plans_what_falls_due(rate: float, lasts_s: float, planned: int) -> None:
    assert len(due_times(constant(rate, lasts_s))) == planned


@pytest.mark.parametrize("rate", [3, 7, 50, 1000 / 3])
def test_a_million_arrivals_do_not_drift(rate: float) -> None:
    due_s = due_times(constant(rate, 1_000_000 / rate))
    assert len(due_s) == 1_000_000
    np.testing.assert_array_equal(due_s, np.arange(1_000_000) / rate)


def test_steps_follow_each_other() -> None:
    due_s = due_times(parse_stages("2/s for 1s, 4/s for 1s"))
    assert due_s.tolist() == [0.0, 0.5, 1.0, 1.25, 1.5, 1.75]


def test_a_stage_without_load_is_a_pause() -> None:
    assert due_times(parse_stages("2/s for 1s, 0/s for 5s, 1/s for 2s")).tolist() == [0.0, 0.5, 6.0, 7.0]


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("30/m for 4s", [Stage(0.5, 0.5, 4)]),
        ("1,500/s for 2 s,500/s for 1m30s", [Stage(1500, 1500, 2), Stage(500, 500, 90)]),
        ("1e3/s for 1s", [Stage(1000, 1000, 1)]),
        ("7200/h for 250ms", [Stage(2, 2, 0.25)]),
        (
            " 10 / s  for 1 min,ramp to 20/s over 5s , ramp  from 5/s to 0/s over 1s",
            [Stage(10, 10, 60), Stage(10, 20, 5), Stage(5, 0, 1)],
        ),
    ],
)
def test_stages_are_spelled_as_people_do(text: str, stages: list[Stage]) -> None:
    assert parse_stages(text) == stages


@pytest.mark.parametrize(
    "values", [(-1, 1, 1), (1, float("inf"), 1), (1, 1, 0), (1, 1, float("nan")), (1, 1, "x")]
)
def test_a_stage_that_cannot_be_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match=r"^(start_rps|end_rps|duration_s): "):
        Stage(*values)


def test_a_ramp_from_zero_is_a_square_root() -> None:
    due_s = due_times(parse_stages("ramp to 50/s over 10s"))
    np.testing.assert_allclose(due_s, np.sqrt(np.arange(250) * 2 * 10 / 50), rtol=1e-12)


def test_a_ramp_down_ends_in_time() -> None:
    due_s = due_times(parse_stages("ramp from 100/s to 0/s over 2s"))
    assert len(due_s) == 100
    assert due_s[-1] < 2
    np.testing.assert_allclose(100 * due_s - 25 * due_s**2, np.arange(100), atol=1e-9)


@given(st.lists(any_stages, min_size=1, max_size=4))
def test_due_times_are_where_the_integral_of_the_rate_is_whole(stages: list[Stage]) -> None:
    due_s = due_times(stages)
    assert due_s[0] == 0
    assert (np.diff(due_s) > 0).all()
    assert due_s[-1] < duration_s(stages)
    assert abs(len(due_s) - total(stages)) <= 1
    np.testing.assert_allclose(
        [_integral(stages, due) for due in due_s[:50]], np.arange(len(due_s))[:50], atol=1e-6
    )


def _integral(stages: list[Stage], until_s: float) -> float:
    count = 0.0
    for stage in stages:
        within_s = min(max(until_s, 0.0), stage.duration_s)
        slope = (stage.end_rps - stage.start_rps) / stage.duration_s
        count += stage.start_rps * within_s + slope * within_s**2 / 2
        until_s -= stage.duration_s
    return count


def test_poisson_gaps_are_exponential() -> None:
    gaps_s = np.diff(due_times(constant(100, 200), "poisson", seed=1))
    assert stats.kstest(gaps_s, stats.expon(scale=1 / 100).cdf).pvalue > 0.01
    assert abs(stats.pearsonr(gaps_s[:-1], gaps_s[1:]).statistic) < 0.03


def test_a_poisson_ramp_has_the_ramps_distribution() -> None:
    due_s = due_times(parse_stages("ramp to 200/s over 100s"), "poisson", seed=2)
    assert abs(len(due_s) - 10_000) < 4 * 100
    assert stats.kstest((due_s / 100) ** 2, stats.uniform.cdf).pvalue > 0.01


def test_poisson_arrivals_repeat_with_their_seed_alone() -> None:
    first, again, other = (due_times(constant(20, 5), "poisson", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10/s",
        "10 for 10s",
        "10/s for",
        "ramp to 5/s",
        "10/s for 1s,,",
        "-1/s for 1s",
        "10/s for 1x",
        "10/s for 10s for 1s",
        "10/s for 10s,500/s",
    ],
)
def test_malformed_stages_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="malformed"):
        parse_stages(text)


@pytest.mark.parametrize(
    ("stages", "arrivals"),
    [
        (constant(1e6, 1e6), "constant"),
        (constant(0, 1), "constant"),
        (constant(1, 1), "regular"),
        (constant(1e-9, 1), "poisson"),
    ],
)
def test_what_cannot_be_offered_is_refused(stages: list[Stage], arrivals: str) -> None:
    with pytest.raises(UsageError):
        due_times(stages, arrivals)
