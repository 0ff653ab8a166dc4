"""Plans: what a trial's id depends on, that order is random but repeatable, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.study_fakes import condition
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.study import plan
from lab.study.plan import make_plan, share_of_limit, trial_id

CONDITIONS = [condition(rate) for rate in (5, 10, 20, 40, 80)]


def order(blocks: int = 3, seed: int = 1, conditions: list[Any] = CONDITIONS) -> list[list[str]]:
    plan = make_plan("sweep", conditions, blocks=blocks, seed=seed)
    return [[trial.trial_id for trial in block.trials] for block in plan]


@given(st.integers(0, 2**40), st.integers(1, 6))
def test_each_block_holds_every_condition_once(seed: int, blocks: int) -> None:
    plan = make_plan("sweep", CONDITIONS, blocks=blocks, seed=seed)
    assert [block.number for block in plan] == list(range(1, blocks + 1))
    for block in plan:
        assert sorted(trial.condition.rate or 0 for trial in block.trials) == [5, 10, 20, 40, 80]
        assert [trial.position for trial in block.trials] == [1, 2, 3, 4, 5]
    ids = [trial.trial_id for block in plan for trial in block.trials]
    assert len(set(ids)) == len(ids)


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    assert order(seed=1) == order(seed=1)
    assert order(seed=1) == order(seed=1, conditions=CONDITIONS[::-1])
    assert order(seed=1) != order(seed=2)
    assert len({tuple(name.rpartition(".")[2] for name in block) for block in order(blocks=6)}) == 6


def test_an_id_outlives_another_seed_more_blocks_and_more_conditions() -> None:
    before = {name for block in order() for name in block}
    after = {
        name for block in order(blocks=4, seed=9, conditions=[*CONDITIONS, condition(99)]) for name in block
    }
    assert before < after


def test_an_id_outlives_a_new_factor_that_is_at_its_default() -> None:
    """As runs hold it that were measured before workers could be pinned, or held to a quota."""
    assert trial_id("sweep", 1, condition(20)) == "sweep.b01.8214b96942d5"


def test_an_id_changes_with_experiment_block_and_every_factor() -> None:
    base = condition(20)
    changes: dict[str, Any] = {
            "rate": 21, "duration_s": 2, "iterations": 5, "kernel": "numpy", "arrivals": "poisson",
            "timeout_s": 3, "path": "/", "keepalive": True, "pin": True, "warmup": 2, "labels": {"step": 0.5},
            "topology": "cluster", "dispatch": "shared", "quota_cpus": 0.5, "peer": "uvicorn",
    }  # fmt: skip
    changed = [replace(base, **{name: value}) for name, value in changes.items()]
    ids = {trial_id("sweep", 1, one) for one in [base, *changed]} | {
        trial_id("sweep", 2, base),
        trial_id("x", 1, base),
    }
    assert len(ids) == len(changed) + 3


def test_workers_beyond_the_cpus_add_no_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available_cpus", lambda: 2)
    assert [plan.capacity_rps(workers, 0.1) for workers in (1, 2, 3)] == pytest.approx([10, 20, 20])


@given(st.floats(0.01, 100), st.floats(1e-6, 100), st.integers(1, 100))
def test_a_load_is_one_trial_whatever_rate_its_block_works_out(
    load: float, loop_s: float, workers: int
) -> None:
    asked = condition(None, load=load, topology="cluster", workers=workers)
    planned = asked.planned(loop_s)
    assert planned.rate
    assert planned.rate == pytest.approx(load * plan.capacity_rps(workers, loop_s))
    assert trial_id("sweep", 1, planned) == trial_id("sweep", 1, asked)
    assert trial_id("sweep", 1, asked) != trial_id("sweep", 1, replace(asked, load=load / 2))
    assert planned.planned(2 * loop_s).rate == pytest.approx(planned.rate / 2)


def test_a_load_has_no_rate_until_it_is_planned() -> None:
    asked = condition(None, load=0.5)
    with pytest.raises(UsageError, match=r"a load of 0\.5 has no rate yet"):
        _ = asked.offered_rps
    assert asked.planned(0.1).offered_rps == pytest.approx(5)


def test_a_rate_is_what_it_is_at_any_speed() -> None:
    assert condition(20).planned(0.5) == condition(20)


@pytest.mark.parametrize("twenty", [20, 20.0, np.int64(20), np.float64(20)])
def test_numbers_of_any_type_are_one_condition(twenty: Any) -> None:
    same = condition(twenty, labels={"n": np.int64(2)}, topology="cluster", workers=np.int64(2))
    expected = condition(20, labels={"n": 2}, topology="cluster", workers=2)
    assert trial_id("sweep", 1, same) == trial_id("sweep", 1, expected)


def test_trials_of_a_block_meet_the_same_arrivals_and_blocks_different_ones() -> None:
    plan = make_plan("sweep", CONDITIONS, blocks=4, seed=1)
    seeds = [{trial.seed for trial in block.trials} for block in plan]
    assert all(len(seed) == 1 for seed in seeds)
    assert len(set.union(*seeds)) == 4


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rate": 0}, "rate must be above 0, got 0"),
        ({"rate": float("inf")}, "rate must be finite, got inf"),
        ({"quota_cpus": 0}, "quota_cpus must be above 0, got 0"),
        ({"quota_cpus": 0.001}, "quota_cpus must be at least 0.01, got 0.001"),
        ({"duration_s": -1}, "duration_s must be above 0, got -1"),
        ({"timeout_s": 0}, "timeout_s must be above 0, got 0"),
        ({"topology": "cluster", "workers": 0}, "workers must be at least 1, got 0"),
        ({"topology": "cluster", "workers": 1.5}, "workers must be a whole number, got 1.5"),
        ({"workers": 2}, "single server has one worker"),
        ({"iterations": -1}, "iterations must be at least 0, got -1"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"kernel": "fortran"}, "kernel must be 'python', 'numpy', 'numba' or 'sleep', got 'fortran'"),
        ({"dispatch": "random"}, "dispatch must be 'shared'"),
        ({"topology": "ring"}, "topology must be 'single'"),
        ({"arrivals": "bursts"}, "arrivals must be 'constant' or 'poisson', got 'bursts'"),
        ({"path": "api"}, "path must start with a slash"),
        ({"peer": "unicorn"}, "there is no peer 'unicorn': did you mean uvicorn?"),
        ({"peer": "uvicorn", "pin": True}, "pin and quota_cpus are for servers of ours"),
        ({"load": 0}, "load must be above 0, got 0"),
        ({"rate": None}, "a condition needs a rate, or a load to work it out from"),
        ({"labels": {"rate": 1}}, "labels: 'rate' cannot be a column"),
        ({"labels": {"load": 1}}, "labels: 'load' cannot be a column"),
        ({"labels": {"utilisation": 1}}, "labels: 'utilisation' cannot be a column"),
        ({"labels": {"loop_drift": 1}}, "labels: 'loop_drift' cannot be a column"),
        ({"labels": {"Load %": 1}}, "labels: 'Load %' cannot be a column"),
        ({"labels": {"step": [1]}}, "labels: 'step' must be text or a number, got [1]"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused_in_one_line(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError) as error:
        condition(**changes)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("experiment", "conditions", "blocks"),
    [
        ("No spaces", CONDITIONS, 1),
        ("../up", CONDITIONS, 1),
        ("dotted.name", CONDITIONS, 1),
        ("sweep", [], 1),
        ("sweep", CONDITIONS, 0),
        ("sweep", [condition(5), condition(5.0)], 1),
        ("sweep", [condition(None, load=0.5), condition(None, load=0.5)], 1),
        ("sweep", [condition(None, load=0.5).planned(0.1)], 1),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(experiment: str, conditions: list[Any], blocks: int) -> None:
    with pytest.raises(UsageError):
        make_plan(experiment, conditions, blocks=blocks, seed=1)


def test_labels_tell_twins_apart() -> None:
    twins = [condition(5, labels={"arm": arm}) for arm in "ab"]
    (block,) = make_plan("control", twins, blocks=1, seed=1)
    assert {trial.condition.factors()["arm"] for trial in block.trials} == {"a", "b"}


def test_a_share_of_the_limit_takes_columns_in_which_times_are_not_known() -> None:
    unknown = pd.Series([None, 0.05], dtype=object)
    shares = share_of_limit(pd.Series([10.0, 30.0]), pd.Series([0.1, 0.1]), unknown, pd.Series([4, 4]), 2)
    assert shares.tolist() == pytest.approx([10 * 0.1 / 4, 30 * 0.05 / 2])
    assert share_of_limit(10.0, 0.1, None, 1, 2) == pytest.approx(1.0)
