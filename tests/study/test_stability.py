"""Whether the machine was the same during a trial: by its own loops, or else by calibrations."""

import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab.study.stability import MOST_OFF, judged

QUIET = {"invalid_because": ""}


def blocks(*service_s: float, **common: object) -> pd.DataFrame:
    rows = [{"block": block, "service_p50_s": cost} for block, cost in enumerate(service_s, start=1)]
    return trials(*rows, **(QUIET | common))


def reasons(rows: pd.DataFrame) -> list[str]:
    found = judged(rows)
    assert list(found["valid"]) == list(found["invalid_because"] == "")
    return list(found["invalid_because"])


def test_a_trial_whose_loops_cost_more_or_less_than_its_condition_s_usual_ones_is_flagged() -> None:
    found = judged(blocks(0.100, 0.102, 0.163, 0.080, 0.101))
    assert list(found["valid"]) == [True, True, False, False, True]
    assert found["invalid_because"][2] == "its loops took 1.61 times as long as in its other blocks"
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
    assert not any(reasons(pd.concat([alone, crowded, labelled], ignore_index=True)))


def test_calibrations_decide_where_too_few_blocks_can_tell() -> None:
    drifted = [f"the loop's cost drifted by {sign}26% within the block" for sign in "+-"]
    rows = blocks(0.1, 0.2).assign(loop_drift=[1.26, 0.74])
    assert reasons(rows) == drifted
    assert reasons(blocks(0.1, 0.2).assign(loop_drift=[1.1, 0.9])) == ["", ""]


def test_trials_that_agree_outweigh_calibrations_that_do_not() -> None:
    assert reasons(blocks(0.1, 0.1, 0.1, loop_drift=1.3)) == ["", "", ""]


def test_a_trial_without_an_answer_is_left_to_the_calibrations() -> None:
    rows = blocks(0.1, 0.1, 0.1, float("nan"), loop_drift=1.3)
    assert [bool(reason) for reason in reasons(rows)] == [False, False, False, True]


def test_earlier_reasons_are_kept_in_front() -> None:
    (reason,) = reasons(blocks(0.1, invalid_because="the generator fell behind", loop_drift=1.3))
    assert reason == "the generator fell behind; the loop's cost drifted by +30% within the block"
