"""Whether the machine was the same during a trial: by its own loops, or else by calibrations."""

import math

import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab.flags import Flag
from lab.study.stability import MOST_OFF, judged, with_utilisation


def blocks(*service_s: float, **common: object) -> pd.DataFrame:
    rows = [{"block": block, "service_p50_s": cost} for block, cost in enumerate(service_s, start=1)]
    return trials(*rows, **common)


def flags(rows: pd.DataFrame) -> list[tuple[Flag, ...]]:
    found = judged(rows)
    assert list(found["valid"]) == [not flags for flags in found["flags"]]
    return list(found["flags"])


def test_a_trial_whose_loops_cost_more_or_less_than_its_condition_s_usual_ones_is_flagged() -> None:
    found = judged(blocks(0.100, 0.102, 0.163, 0.080, 0.101))
    assert list(found["valid"]) == [True, True, False, False, True]
    (slower,), (faster,) = found["flags"][2:4]
    assert (slower.code, slower.limit, faster.code, faster.limit) == ("loop_ratio", 1.15, "loop_ratio", 0.85)
    assert [slower.value, faster.value] == pytest.approx([0.163 / 0.101, 0.080 / 0.101])
    assert found["loop_ratio"].tolist() == pytest.approx(
        [0.100 / 0.101, 0.102 / 0.101, 0.163 / 0.101, 0.080 / 0.101, 1]
    )


@pytest.mark.parametrize(("off", "valid"), [(MOST_OFF - 0.01, True), (MOST_OFF + 0.01, False)])
def test_the_threshold_is_the_same_on_both_sides(off: float, valid: bool) -> None:
    for factor in (1 + off, 1 - off):
        assert list(judged(blocks(0.1, 0.1, 0.1 * factor))["valid"]) == [True, True, valid]


def test_a_condition_is_compared_with_itself_only() -> None:
    """Four workers on two CPUs take twice as long for a loop as one: that is no disturbance."""
    alone, crowded = blocks(0.1, 0.1, 0.1), blocks(0.2, 0.2, 0.2, workers=4, topology="cluster")
    labelled = blocks(0.3, 0.3, 0.3).assign(place=["a"] * 3)
    assert not any(flags(pd.concat([alone, crowded, labelled], ignore_index=True)))


def test_calibrations_decide_where_too_few_blocks_can_tell() -> None:
    (slower,), (faster,) = flags(blocks(0.1, 0.2).assign(loop_drift=[1.26, 0.74]))
    assert (slower.code, slower.limit, faster.code, faster.limit) == ("loop_drift", 0.15, "loop_drift", -0.15)
    assert [slower.value, faster.value] == pytest.approx([0.26, -0.26])
    assert flags(blocks(0.1, 0.2).assign(loop_drift=[1.1, 0.9])) == [(), ()]


def test_trials_that_agree_outweigh_calibrations_that_do_not() -> None:
    assert flags(blocks(0.1, 0.1, 0.1, loop_drift=1.3)) == [(), (), ()]


def test_a_trial_without_an_answer_is_left_to_the_calibrations() -> None:
    rows = blocks(0.1, 0.1, 0.1, float("nan"), loop_drift=1.3)
    assert [bool(found) for found in flags(rows)] == [False, False, False, True]


def test_earlier_flags_are_kept_in_front() -> None:
    late = Flag("send_lag", 0.002, 0.001)
    (found,) = flags(blocks(0.1, loop_drift=1.3, flags=(late,)))
    assert [flag.code for flag in found] == ["send_lag", "loop_drift"]


def test_blocks_of_one_load_are_one_condition_though_their_rates_differ() -> None:
    rates = blocks(0.1, 0.1, 0.163).assign(load=0.5, rate=[5.0, 6.0, 4.0])
    assert list(judged(rates)["valid"]) == [True, True, False]


def test_the_own_utilisation_is_rate_times_own_service_time_per_worker() -> None:
    rows = trials(
        {"rate": 5.0, "service_mean_s": 0.1},
        {"rate": 30.0, "service_mean_s": 0.1, "workers": 2},
        {"service_mean_s": float("nan")},
    )
    found = with_utilisation(rows)["utilisation"].tolist()
    assert found[:2] == pytest.approx([0.5, 1.5])
    assert math.isnan(found[2]), "nothing was answered"
