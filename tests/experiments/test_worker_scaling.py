"""Worker scaling: speed-ups known by hand, and laws that hold whatever was measured."""

from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from helpers.trial_rows import trials
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.experiments import worker_scaling as study
from lab.models.scaling import ScalingLaw

PARAMETERS: dict[str, Any] = {
    "run": "",
    "workers": [1, 2, 4],
    "overload": 1.5,
    "duration_s": 2,
    "dispatch": "shared",
    "pin": False,
    "kernel": "python",
    "iterations": 1000,
    "timeout_s": 30,
    "blocks": 2,
    "seed": 1,
}


def _measured(blocks: list[dict[int, float]]) -> pd.DataFrame:
    """Make trials of blocks that map workers to requests per second."""
    return trials(
        *(
            {"block": number, "workers": workers, "throughput_rps": rate_rps}
            for number, block in enumerate(blocks, start=1)
            for workers, rate_rps in block.items()
        ),
        topology="cluster",
    )


TWO_BLOCKS = [{2: 20.0, 1: 10.0}, {1: 20.0, 2: 36.0}]
rates_rps = st.floats(0.01, 1e4)
any_blocks = st.lists(
    st.fixed_dictionaries({1: rates_rps, 2: rates_rps, 4: rates_rps}), min_size=1, max_size=5
)


def test_two_blocks_by_hand() -> None:
    one, two = study.scaling(_measured(TWO_BLOCKS)).to_dict("records")
    assert one["workers"] == 1
    assert one["throughput_rps"] == 15
    assert one["speedup"] == one["efficiency"] == one["speedup_low"] == one["speedup_high"] == 1
    assert two["workers"] == 2
    assert [two["throughput_rps_low"], two["throughput_rps"], two["throughput_rps_high"]] == [20, 28, 36]
    assert [two["speedup_low"], two["speedup"], two["speedup_high"]] == pytest.approx([1.8, 1.9, 2.0])
    assert [two["efficiency_low"], two["efficiency"], two["efficiency_high"]] == pytest.approx(
        [0.9, 0.95, 1.0]
    )


def test_speedup_is_over_the_same_block_so_a_slow_one_cancels() -> None:
    scaling = study.scaling(_measured([{1: 10, 2: 19}, {1: 1, 2: 1.9}, {1: 100, 2: 190}]))
    assert scaling["speedup"].iloc[1] == pytest.approx(1.9)
    assert scaling["speedup_low"].iloc[1] == pytest.approx(scaling["speedup_high"].iloc[1])


def test_enough_blocks_give_an_interval_narrower_than_the_range() -> None:
    gains = [1.1, 1.8, 1.81, 1.82, 1.83, 1.84, 1.85, 1.86, 2.6]
    two = study.scaling(_measured([{1: 10, 2: 10 * gain} for gain in gains])).iloc[1]
    assert two["speedup"] == pytest.approx(1.83)
    assert 1.1 < two["speedup_low"] <= 1.83 <= two["speedup_high"] < 2.6


def test_a_block_whose_base_answered_nothing_is_left_out_of_speedups() -> None:
    scaling = study.scaling(_measured([{1: 0, 2: 50}, {1: 10, 2: 18}]))
    assert scaling["speedup"].tolist() == pytest.approx([1, 1.8])
    assert scaling["speedup_high"].iloc[1] == pytest.approx(1.8)


def test_a_number_of_workers_that_answered_nothing_has_no_point() -> None:
    assert study.scaling(_measured([{1: 10, 2: 18, 4: 0}]))["workers"].tolist() == [1, 2]


def test_no_base_at_all_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match="one worker"):
        study.scaling(_measured([{1: 0, 2: 50}]))


@settings(deadline=None)
@given(any_blocks, st.floats(0.1, 10))
def test_a_faster_machine_changes_throughput_and_no_speedup(
    blocks: list[dict[int, float]], factor: float
) -> None:
    scaled = study.scaling(_measured(blocks))
    faster = study.scaling(_measured([{n: factor * rate for n, rate in block.items()} for block in blocks]))
    assert faster["throughput_rps"].tolist() == pytest.approx((factor * scaled["throughput_rps"]).tolist())
    assert faster["speedup"].tolist() == pytest.approx(scaled["speedup"].tolist())


@settings(deadline=None)
@given(any_blocks)
def test_every_value_lies_within_its_interval(blocks: list[dict[int, float]]) -> None:
    scaled = study.scaling(_measured(blocks))
    assert scaled["workers"].tolist() == [1, 2, 4]
    for name in ("throughput_rps", "speedup", "efficiency"):
        slack = 1e-12 * scaled[name]
        assert (scaled[f"{name}_low"] <= scaled[name] + slack).all()
        assert (scaled[name] <= scaled[f"{name}_high"] + slack).all()
    assert scaled["efficiency"].tolist() == pytest.approx((scaled["speedup"] / scaled["workers"]).tolist())


def test_the_best_is_the_fewest_workers_within_3_percent_of_the_highest() -> None:
    scaling = study.scaling(_measured([{1: 10, 2: 19.5, 3: 20, 4: 20.1}]))
    assert study.best(scaling)["workers"] == 2
    scaling = study.scaling(_measured([{1: 10, 2: 19.4, 3: 20, 4: 20.1}]))
    assert study.best(scaling)["workers"] == 3


def test_the_answer_states_gain_and_efficiency_and_what_more_workers_do() -> None:
    text = study.answer(study.scaling(_measured([{1: 10, 2: 18, 4: 17}])), cpus=2)
    assert "1.80 times" in text
    assert "90 %" in text
    assert "4 answer 17.0/s" in text
    assert "More workers" not in study.answer(study.scaling(_measured([{1: 10, 2: 18}])), cpus=2)


def test_more_workers_that_answer_less_are_told_from_those_within_the_spread() -> None:
    worse = study.scaling(_measured([{1: 10, 2: 20, 4: 15}, {1: 11, 2: 21, 4: 16}]))
    assert "answer less" in study.answer(worse, cpus=2)
    alike = study.scaling(_measured([{1: 10, 2: 20, 4: 15}, {1: 11, 2: 21, 4: 22}]))
    assert "no clear difference" in study.answer(alike, cpus=2)


def test_two_numbers_of_workers_leave_open_what_more_cpus_bring() -> None:
    """1.80 and 1.60 times: contention alone leaves more of it than coherency alone, by Gunther's law."""
    expected = study.beyond(_measured([{1: 10, 2: 18, 4: 99}, {1: 20, 2: 32}]), cpus=2)
    assert expected["CPUs, and workers"].tolist() == [4, 8, 16]
    a, b = 2 / 1.8 - 1, (2 / 1.6 - 1) / 2
    assert float(expected["at most"].iloc[1]) == pytest.approx(8 / (1 + 7 * a), abs=0.005)
    assert float(expected["speed-up, at least"].iloc[1]) == pytest.approx(8 / (1 + 56 * b), abs=0.005)


def test_three_numbers_of_workers_fix_the_law() -> None:
    law = ScalingLaw(10, 0.05, 0.01)
    block = {n: float(law.throughput_rps(n)) for n in (1, 2, 3, 4)} | {8: 1.0}
    expected = study.beyond(_measured([block, block]), cpus=4)
    gain = float(law.throughput_rps(8) / 10)
    assert float(expected["at most"].iloc[0]) == pytest.approx(gain, abs=0.005)
    assert expected["at most"].tolist() == expected["speed-up, at least"].tolist()


def test_one_number_of_workers_says_nothing_of_more_cpus() -> None:
    assert "were not measured" in str(study.beyond(_measured([{1: 10, 2: 19}]), cpus=1).iloc[0, 0])


def test_the_table_has_each_value_with_its_interval() -> None:
    table = study.scaling_table(study.scaling(_measured(TWO_BLOCKS)))
    assert table["workers"].tolist() == [1, 2]
    assert table["highest throughput, requests/s"].tolist() == ["15.0 (10.0 to 20.0)", "28.0 (20.0 to 36.0)"]
    assert table["speed-up"].iloc[1] == "1.90 (1.80 to 2.00)"
    assert table["efficiency"].iloc[1] == "0.950 (0.900 to 1.00)"


@pytest.mark.parametrize(
    ("cpus", "workers"),
    [
        (1, [1, 2]),
        (2, [1, 2, 3, 4]),
        (4, [1, 2, 3, 4, 5, 6, 7, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16]),
    ],
)
def test_default_workers(cpus: int, workers: list[int]) -> None:
    assert study.default_workers(cpus) == workers


@given(st.integers(1, 512))
def test_default_workers_go_from_1_to_twice_the_cpus_in_few_steps(cpus: int) -> None:
    workers = study.default_workers(cpus)
    assert workers == sorted(set(workers))
    assert workers[0] == 1
    assert workers[-1] == 2 * cpus
    assert cpus in workers
    assert len(workers) <= 35
    assert all(later <= max(earlier + 1, 1.25 * earlier) for earlier, later in pairwise(workers))


def test_conditions_overload_each_number_of_workers_by_what_its_cpus_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study, "available_cpus", lambda: 2)
    found = study.conditions(study.Parameters(**PARAMETERS), loop_s=0.1)
    assert {one.workers: one.rate for one in found} == pytest.approx({1: 15, 2: 30, 4: 30})
    assert {(one.topology, one.dispatch, one.duration_s, one.iterations) for one in found} == {
        ("cluster", "shared", 2, 1000)
    }
    assert not any(one.pin for one in found)
    found = study.conditions(study.Parameters(**PARAMETERS | {"workers": [], "pin": True}), loop_s=0.1)
    assert [one.workers for one in found] == [1, 2, 3, 4]
    assert all(one.pin for one in found)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"workers": [2, 4]}, "1, the base"),
        ({"workers": [1, 2, 2]}, "each number once"),
        ({"workers": [0, 1]}, r"workers\[0\]"),
        ({"dispatch": "rond-robin"}, "dispatch"),
        ({"overload": 0}, "overload"),
        ({"pin": "perhaps"}, "pin"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        study.Parameters.from_notebook(PARAMETERS | change)


def test_what_is_stated_is_what_the_table_shows() -> None:
    measured = _measured(3 * TWO_BLOCKS)
    shown = study.scaling(measured).set_index("workers")
    rows = {(row.quantity, row.factors): row for row in study.estimates(measured)}
    assert len(rows) == 3, "a speed-up over itself is no estimate"
    gain = rows["speed-up over one worker", "dispatch=round-robin, workers=2"]
    assert (gain.value, gain.low, gain.high) == tuple(
        shown.loc[2, ["speedup", "speedup_low", "speedup_high"]]
    )
    assert gain.n == 6
    assert gain.smallest_told == pytest.approx(max(gain.value / gain.low, gain.high / gain.value) - 1)
    base = rows["highest throughput", "dispatch=round-robin, workers=1"]
    assert (base.value, base.unit) == (shown.loc[1, "throughput_rps"], "requests/s")
