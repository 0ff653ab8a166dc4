"""Worker scaling: what its reader may set; speed-ups and losses known by hand; laws that always hold."""

import math
from itertools import pairwise
from typing import Any, cast

import pandas as pd
import pytest
from helpers.busy_workers import SIX, BusyRun, measured, requests_of, scaled
from helpers.html_page import unlinked
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.experiments import sustained
from lab.experiments.searches import Objective
from lab.experiments.worker_scaling import answer, scaling
from lab.models.scaling import LOSSES, ScalingLaw
from lab.study.plan import Condition
from lab.study.run import Run

PARAMETERS: dict[str, Any] = {
    "run": "",
    "workers": [1, 2, 4],
    "growth": 2,
    "overload": 1.5,
    "duration_s": 2,
    "dispatch": "shared",
    "pin": False,
    "kernel": "python",
    "iterations": 1000,
    "timeout_s": 30,
    "blocks": 2,
    "seed": 1,
    "searched": [],
    "slo_percentile": 50,
    "search_beyond": True,
    "search_s": 1,
    "slo_loops": 3,
    "precision": 0.1,
}


def test_the_searched_servers_are_those_of_the_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "available_cpus", lambda: 2)
    asked: list[Any] = []

    def searched(
        run: object, experiment: str, servers: list[Condition], objective: Objective, *, seed: int
    ) -> pd.DataFrame:
        asked.append((servers, objective, seed))
        return pd.DataFrame()

    monkeypatch.setattr(sustained, "searched", searched)
    scaling.search(cast(Run, None), scaling.Parameters(**PARAMETERS))
    scaling.search(cast(Run, None), scaling.Parameters(**PARAMETERS | {"searched": [1, 2]}))
    ((servers, objective, seed), (others, _, _)) = asked
    assert [server.workers for server in servers] == [1, 2, 4]
    assert [server.workers for server in others] == [1, 2]
    assert {server.iterations for server in servers} == {1000}
    assert {(server.topology, server.dispatch) for server in servers[1:]} == {("cluster", "shared")}
    assert servers[0] == sustained.pair(2, "shared", duration_s=1.0, iterations=1000)[0], "that of 02 and 03"
    assert (objective, seed) == (Objective(percentile=50, loops=3, precision=0.1), 1)


@pytest.mark.parametrize(
    ("cpus", "growth", "workers"),
    [
        (1, 2, [1, 2]),
        (2, 2, [1, 2, 4]),
        (6, 2, [1, 2, 3, 6, 12]),
        (2, 1.25, [1, 2, 3, 4]),
        (8, 1.25, [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16]),
        (64, 1.6, [1, 2, 3, 4, 5, 7, 10, 16, 25, 40, 64, 80, 128]),
    ],
)
def test_default_workers(cpus: int, growth: float, workers: list[int]) -> None:
    assert scaling.default_workers(cpus, growth) == workers


@given(st.integers(1, 512), st.floats(1.01, 4))
def test_default_workers_go_from_1_to_twice_the_cpus_in_steps(cpus: int, growth: float) -> None:
    workers = scaling.default_workers(cpus, growth)
    assert workers == sorted(set(workers))
    assert workers[0] == 1
    assert workers[-1] == 2 * cpus
    assert cpus in workers
    assert all(later <= max(earlier + 1, growth * earlier) for earlier, later in pairwise(workers))


def test_conditions_overload_each_number_of_workers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "available_cpus", lambda: 2)
    found = scaling.conditions(scaling.Parameters(**PARAMETERS))
    assert {one.workers: one.load for one in found} == {1: 1.5, 2: 1.5, 4: 1.5}
    assert {(one.topology, one.dispatch, one.duration_s, one.iterations) for one in found} == {
        ("cluster", "shared", 2, 1000)
    }
    assert not any(one.pin for one in found)
    found = scaling.conditions(scaling.Parameters(**PARAMETERS | {"workers": [], "pin": True}))
    assert [one.workers for one in found] == [1, 2, 4]
    assert all(one.pin for one in found)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"workers": [2, 4]}, "1, the base"),
        ({"workers": [1, 2, 2]}, "each number once"),
        ({"workers": [0, 1]}, r"workers\[0\]"),
        ({"dispatch": "rond-robin"}, "dispatch"),
        ({"overload": 0}, "overload"),
        ({"growth": 1}, "growth must be above 1"),
        ({"slo_percentile": 97}, "percentile"),
        ({"precision": 2}, "precision"),
        ({"pin": "perhaps"}, "pin"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        scaling.Parameters.from_notebook(PARAMETERS | change)


rates_rps = st.floats(0.01, 1e4)
any_blocks = st.lists(
    st.fixed_dictionaries({1: rates_rps, 2: rates_rps, 4: rates_rps}), min_size=1, max_size=7
)


def test_two_blocks_by_hand() -> None:
    one, two = scaling.points(measured({2: 20.0, 1: 10.0}, {1: 20.0, 2: 36.0}))
    assert (one.workers, one.throughput_rps.value, one.speedup.value) == pytest.approx((1, 15, 1))
    assert two.workers == 2
    rates = two.throughput_rps
    assert (rates.low, rates.value, rates.high) == pytest.approx((20, 28, 36))
    assert (two.speedup.low, two.speedup.value, two.speedup.high) == pytest.approx((1.8, 1.9, 2.0))
    assert two.efficiency.value == pytest.approx(0.95)


def test_speedup_is_over_the_same_block_so_a_slow_one_cancels() -> None:
    two = scaling.points(measured({1: 10, 2: 19}, {1: 1, 2: 1.9}, {1: 100, 2: 190}))[1]
    assert (two.speedup.low, two.speedup.high) == pytest.approx((1.9, 1.9))


def test_a_block_whose_base_answered_nothing_is_left_out() -> None:
    points = scaling.points(measured({1: 0, 2: 50}, {1: 10, 2: 18}))
    assert [point.speedup.value for point in points] == pytest.approx([1, 1.8])
    assert points[1].speedup.trials == 1
    assert scaling.points(measured({1: 0, 2: 50})) == []


@pytest.mark.parametrize(("workers", "left"), [(2, [1, 4]), (1, [])])
def test_a_trial_that_was_not_overloaded_tells_no_highest_throughput(workers: int, left: list[int]) -> None:
    """It is judged by its own utilisation: the rate was planned for loops that then took less time."""
    rows = scaled({1: 10, 2: 18, 4: 17})
    utilisation = rows["utilisation"].mask(rows["workers"] == workers, 1.09)
    changed = scaling.accounted(cast(Run, BusyRun()), rows.assign(utilisation=utilisation))
    assert [point.workers for point in scaling.points(changed)] == left
    assert "was not overloaded" in str(scaling.table(changed).iloc[int(workers == 2)].to_dict())


@settings(deadline=None, max_examples=25)
@given(any_blocks, st.floats(0.1, 10))
def test_a_faster_machine_changes_throughput_and_no_ratio(
    blocks: list[dict[int, float]], factor: float
) -> None:
    slow = measured(*blocks)
    fast = measured(*({n: factor * rate for n, rate in block.items()} for block in blocks))
    pairs = list(zip(scaling.points(slow), scaling.points(fast), strict=True))
    assert [point.workers for point, _ in pairs] == [1, 2, 4]
    for before, after in pairs:
        assert after.throughput_rps.value == pytest.approx(factor * before.throughput_rps.value)
        assert after.speedup.value == pytest.approx(before.speedup.value)
    ratios = scaling.stacks(slow)[list(LOSSES)], scaling.stacks(fast)[list(LOSSES)]
    assert ratios[0].to_numpy() == pytest.approx(ratios[1].to_numpy())


@settings(deadline=None, max_examples=25)
@given(any_blocks)
def test_stacks_multiply_and_add_up_to_the_speedup_of_the_curve(blocks: list[dict[int, float]]) -> None:
    rows = measured(*blocks)
    stacks = scaling.stacks(rows)
    assert len(stacks) == 2 * len(blocks)
    for point in scaling.points(rows)[1:]:
        mine = stacks[stacks["workers"] == point.workers]
        bar = scaling.middle(mine)
        assert bar["speedup"] == pytest.approx(point.speedup.value), "one quantity has one estimate"
        left = 1 - sum(bar[f"lost_{name}"] for name in LOSSES)
        assert point.workers * left == pytest.approx(point.speedup.value)
        product = point.workers * mine[list(LOSSES)].prod(axis=1)
        assert product.tolist() == pytest.approx(mine["speedup"].tolist())


def test_the_middle_of_an_even_number_of_stacks_is_the_mean_of_two() -> None:
    lost = {f"lost_{name}": 0.1 for name in LOSSES}
    stacks = pd.DataFrame([{"workers": 2, "speedup": speedup} | lost for speedup in (1.0, 9.0, 4.0, 2.0)])
    assert scaling.middle(stacks)["speedup"] == 3
    assert scaling.middle(stacks.head(3))["speedup"] == 4


def test_what_more_workers_than_cpus_lose_is_waiting_for_a_cpu() -> None:
    stacks = scaling.stacks(measured(*SIX))
    four = scaling.largest_loss(stacks, 4)
    assert four is not None
    assert (four.name, four.is_told) == ("on_cpu", True)
    assert four.share.value == pytest.approx(0.466, abs=0.001)
    assert scaling.largest_loss(stacks, 3) is None


def test_a_loss_that_is_not_the_largest_in_all_blocks_does_not_stand_out() -> None:
    blocks = [{1: 10.0, 2: rate} for rate in (19, 21, 19, 21, 19, 21)]
    found = scaling.largest_loss(scaling.stacks(measured(*blocks)), 2)
    assert found is not None
    assert not found.is_told


def test_a_loss_within_what_runs_differ_by_is_not_told() -> None:
    """The factor itself, of 0.99, has 1 in its interval."""
    for each, is_told in ((19.8, False), (18.0, True)):
        blocks = [{1: 10.0, 2: each + off} for off in (-0.02, -0.01, -0.005, 0.005, 0.01, 0.02)]
        found = scaling.largest_loss(scaling.stacks(measured(*blocks)), 2)
        assert found is not None
        assert found.is_told == is_told


def test_too_few_blocks_do_not_tell_the_largest_loss() -> None:
    found = scaling.largest_loss(scaling.stacks(measured(*SIX[:5])), 4)
    assert found is not None
    assert not found.is_told


def test_without_the_cpu_time_of_loops_there_is_no_stack_but_a_curve() -> None:
    rows = measured(*SIX).assign(loop_cpu_s=math.nan)
    assert scaling.stacks(rows).empty
    assert "Cannot be told" in str(scaling.stack_table(scaling.stacks(rows)).iloc[0, 0])
    assert scaling.largest_loss(scaling.stacks(rows), 4) is None
    assert "1.80 times" in unlinked(answer.answer(rows, cpus=2))


def test_two_numbers_of_workers_leave_open_what_more_cpus_bring() -> None:
    """1.80 and 1.60 times: contention alone leaves more of it than coherency alone, by Gunther's law."""
    expected = scaling.beyond(measured(*[{1: 10.0, 2: 18.0, 4: 99.0}, {1: 20.0, 2: 32.0}] * 3), cpus=2)
    assert expected["CPUs, and workers"].tolist() == [4, 8, 16]
    a, b = 2 / 1.8 - 1, (2 / 1.6 - 1) / 2
    assert float(expected["at most"].map(str).iloc[1]) == pytest.approx(8 / (1 + 7 * a), abs=0.005)
    assert float(expected["speed-up, at least"].map(str).iloc[1]) == pytest.approx(
        8 / (1 + 56 * b), abs=0.005
    )


def test_no_law_leaves_more_than_a_worker_s_worth_for_each_worker() -> None:
    blocks = [{1: 10.0, 2: 19.9 + off} for off in (-0.05, -0.02, -0.01, 0.01, 0.05, 0.1)]
    expected = scaling.beyond(measured(*blocks), cpus=2)
    assert expected["at most"].tolist() == ["4.00", "8.00", "16.0"]


def test_three_numbers_of_workers_fix_the_law() -> None:
    law = ScalingLaw(10, 0.05, 0.01)
    block = {n: float(law.throughput_rps(n)) for n in (1, 2, 3, 4)} | {8: 1.0}
    expected = scaling.beyond(measured(*[block] * 6), cpus=4)
    gain = float(law.throughput_rps(8) / 10)
    assert float(expected["at most"].map(str).iloc[0]) == pytest.approx(gain, abs=0.005)
    assert expected["at most"].tolist() == expected["speed-up, at least"].tolist()


@pytest.mark.parametrize(("blocks", "cpus"), [(6, 1), (5, 2)])
def test_one_number_of_workers_or_few_blocks_say_nothing_of_more_cpus(blocks: int, cpus: int) -> None:
    found = scaling.beyond(measured(*[{1: 10.0, 2: 19.0}] * blocks), cpus)
    assert "Cannot be told" in str(found.iloc[0, 0])


def test_the_tables_have_each_value_with_its_interval_and_its_blocks() -> None:
    table = scaling.table(measured({2: 20.0, 1: 10.0}, {1: 20.0, 2: 36.0}))
    assert table["workers"].tolist() == [1, 2]
    assert table["highest throughput, requests/s"].tolist() == [
        "15.0 (range of 2 blocks: 10.0 to 20.0)",
        "28.0 (range of 2 blocks: 20.0 to 36.0)",
    ]
    assert table["speed-up"].iloc[1] == "1.90 (range of 2 blocks: 1.80 to 2.00)"
    assert table["efficiency"].iloc[1] == "0.950 (range of 2 blocks: 0.900 to 1.00)"
    assert table["blocks"].tolist() == ["2 of 2", "2 of 2"]
    factors = scaling.stack_table(scaling.stacks(measured(*SIX))).set_index("workers")
    assert factors.loc[4, "on a CPU (waiting)"] == "0.500 (0.500 to 0.500)"


def test_cpus_at_work_do_not_depend_on_the_speed_of_the_machine() -> None:
    rows = measured(*SIX, *({n: 2 * rate_rps for n, rate_rps in block.items()} for block in SIX))
    found = scaling.cpus_at_work(rows)
    assert {n: (one.low, one.high) for n, one in found.items()} == {
        1: pytest.approx((0.9, 0.9)), 2: pytest.approx((1.8, 1.8)), 4: pytest.approx((1.8, 1.8)),
    }  # fmt: skip
    assert not scaling.cpus_at_work(rows.assign(loop_cpu_s=math.nan))


def test_a_trial_whose_worker_was_replaced_tells_no_highest_throughput_and_stops_nothing() -> None:
    rows = scaled({1: 10.0, 2: 18.0})
    requests = requests_of(rows)
    of_two = requests["trial_id"] == rows["trial_id"].iloc[1]
    requests.loc[of_two & (requests["end_s"] > 1), "worker"] += 7

    class Replaced(BusyRun):
        def requests(self, trials: pd.DataFrame) -> pd.DataFrame:
            return requests

    accounted = scaling.accounted(cast(Run, Replaced()), rows)
    assert accounted["highest_rps"].isna().tolist() == [False, True]
