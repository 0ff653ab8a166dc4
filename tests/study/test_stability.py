"""Whether the machine was the same during a trial: by the CPU time of its loops, or else by calibrations."""

import math
import random
from typing import Any

import pandas as pd
import pytest
from helpers.trial_rows import trials
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab.flags import Flag
from lab.study.stability import MOST_OFF, judged, of_two_sizes, usual, with_utilisation

FAST, SLOW = 0.105, 0.170
"""CPU seconds of a million steps on a machine of two speeds."""


def cpu(*costs_s: float, **common: Any) -> pd.DataFrame:
    """Make a block per CPU time of its median loop; wall times say nothing, as others took the CPU."""
    rows = [
        {"block": block, "service_cpu_p50_s": cost, "service_p50_s": cost * (1 + block % 3)}
        for block, cost in enumerate(costs_s, start=1)
    ]
    return trials(*rows, **common)


def marked(rows: pd.DataFrame, of_run: pd.DataFrame | None = None) -> list[bool]:
    found = judged(rows, rows if of_run is None else of_run)
    assert list(found["valid"]) == [not flags for flags in found["flags"]]
    return [any(flag.code == "loop_ratio" for flag in flags) for flags in found["flags"]]


def test_a_condition_that_was_slow_twice_does_not_make_its_fast_block_the_odd_one() -> None:
    """Ten conditions of three blocks: in each of nine, at most one block is slow; the tenth is slow twice."""
    usual_ones = [cpu(FAST, FAST, SLOW if n % 2 else FAST, rate=10.0 + n) for n in range(9)]
    twice = cpu(SLOW, SLOW, FAST, rate=99.0)
    run = pd.concat([*usual_ones, twice], ignore_index=True)
    assert marked(twice, run) == [True, True, False]
    assert marked(run, run) == [cost == SLOW for cost in run["service_cpu_p50_s"]]


def test_the_fast_ones_are_the_odd_ones_where_the_machine_was_mostly_slow() -> None:
    run = pd.concat([cpu(SLOW, SLOW, FAST, rate=10.0 + n) for n in range(9)], ignore_index=True)
    found = judged(run, run)
    assert marked(run) == [cost == FAST for cost in run["service_cpu_p50_s"]]
    (flag,) = found["flags"][2]
    assert (flag.value, flag.limit) == (pytest.approx(FAST / SLOW), pytest.approx(1 / 1.15))


def test_the_run_is_the_yardstick_though_an_experiment_met_the_machine_at_one_speed_only() -> None:
    run = pd.concat([cpu(*[FAST] * 20), cpu(*[SLOW] * 5, rate=99.0)], ignore_index=True)
    assert marked(cpu(*[SLOW] * 5, rate=99.0), run) == [True] * 5


def test_each_loop_has_its_own_yardstick() -> None:
    run = pd.concat(
        [cpu(*[FAST] * 6), cpu(*[7 * FAST] * 6, iterations=7), cpu(*[FAST / 9] * 6, kernel="numba")]
    )
    assert not any(marked(run.reset_index(drop=True)))


def test_a_loop_that_waited_for_a_cpu_is_no_disturbance() -> None:
    assert not any(marked(cpu(*[FAST] * 9)))


def test_what_a_condition_costs_in_each_of_six_blocks_is_its_own() -> None:
    """One worker has the boost clock to itself: it is faster each time. Of fewer blocks, nobody can tell."""
    crowded = cpu(*[SLOW] * 20, workers=8, topology="cluster")
    for blocks, marks in ((6, [False] * 6), (5, [True] * 5)):
        alone = cpu(*[FAST] * blocks)
        assert marked(alone, pd.concat([crowded, alone])) == marks
    alone = cpu(*[FAST] * 6, SLOW)
    assert marked(alone, pd.concat([crowded, alone])) == [True] * 6 + [False], "not each time"
    disturbed = cpu(*[FAST] * 9, FAST / 1.5)
    assert marked(disturbed, pd.concat([crowded, disturbed])) == [False] * 9 + [True]


def test_a_sleeping_loop_has_no_cost_to_compare() -> None:
    rows = cpu(*[1e-5 * 2**n for n in range(8)], kernel="sleep").assign(service_p50_s=0.1)
    assert not any(marked(rows))


def test_a_faster_loop_in_another_language_is_not_odd() -> None:
    """Node's costs a quarter of Python's in each of its blocks, but the last met a slower machine."""
    ours, node = cpu(*[FAST] * 9), cpu(*[FAST / 4] * 5, FAST / 2, peer="node-cluster")
    run = pd.concat([ours, node], ignore_index=True)
    assert marked(node, run) == [False] * 5 + [True]
    assert not any(marked(ours, run))


@pytest.mark.parametrize("costs_s", [[], [0.1] * 5, [0.1] * 5 + [0.2] * 5, [math.nan] * 9])
def test_nothing_is_usual_of_too_few_trials_or_of_two_groups_of_one_size(costs_s: list[float]) -> None:
    assert math.isnan(usual(pd.Series(costs_s, dtype=float)))


COSTS = st.lists(st.floats(0.05, 0.5), min_size=6, max_size=40)


@given(COSTS, st.floats(0.01, 100), st.randoms())
@example([0.375, 0.375, 0.3125, 0.484375, 0.484375, 0.36328125], 1.0, random)
def test_the_usual_scales_with_the_machine_and_knows_no_order_nor_side(
    costs_s: list[float], factor: float, shuffling: Any
) -> None:
    costs = pd.Series(costs_s)
    shuffled = pd.Series(shuffling.sample(costs_s, len(costs_s)))
    assert usual(shuffled) == pytest.approx(usual(costs), nan_ok=True)
    scaled, inverse = usual(costs * factor) / factor, 1 / usual(1 / costs)
    assert scaled == pytest.approx(usual(costs), nan_ok=True)
    assert math.isnan(inverse) == math.isnan(usual(costs))


@given(st.integers(6, 30), st.integers(0, 29), st.floats(1.4, 5), st.booleans())
def test_the_larger_group_is_the_usual_one_on_either_side(
    many: int, few: int, apart: float, slower: bool
) -> None:
    few = min(few, many - 1)
    odd = 0.1 * apart if slower else 0.1 / apart
    assert usual(pd.Series([odd] * few + [0.1] * many)) == pytest.approx(0.1)


@settings(max_examples=25)
@example(1.14)
@example(1.16)
@example(1 / 1.14)
@example(1 / 1.16)
@given(st.floats(0.3, 3))
def test_the_bar_is_the_same_on_both_sides(ratio: float) -> None:
    (*_, last) = marked(cpu(*[0.1] * 9, 0.1 * ratio))
    assert last == (max(ratio, 1 / ratio) > 1 + MOST_OFF) or math.isclose(max(ratio, 1 / ratio), 1 + MOST_OFF)


def blocks(*service_s: float, **common: object) -> pd.DataFrame:
    """Make trials of a run that kept no CPU times."""
    rows = [{"block": block, "service_p50_s": cost} for block, cost in enumerate(service_s, start=1)]
    return trials(*rows, **({"service_cpu_p50_s": math.nan} | common))


def flags(rows: pd.DataFrame) -> list[tuple[Flag, ...]]:
    found = judged(rows, rows)
    assert list(found["valid"]) == [not flags for flags in found["flags"]]
    return list(found["flags"])


def test_without_cpu_times_a_condition_is_compared_with_itself() -> None:
    found = judged(rows := blocks(0.100, 0.102, 0.163, 0.080, 0.101), rows)
    assert list(found["valid"]) == [True, True, False, False, True]
    (slower,), (faster,) = found["flags"][2:4]
    assert [flag.limit for flag in (slower, faster)] == pytest.approx([1.15, 1 / 1.15])
    assert found["loop_ratio"].tolist() == pytest.approx(
        [0.100 / 0.101, 0.102 / 0.101, 0.163 / 0.101, 0.080 / 0.101, 1]
    )
    crowded, labelled = blocks(0.2, 0.2, 0.2, workers=4, topology="cluster"), blocks(0.3, 0.3, 0.3)
    alone = blocks(0.1, 0.1, 0.1)
    apart = pd.concat([alone, crowded, labelled.assign(place=["a"] * 3)], ignore_index=True)
    assert not any(flags(apart))


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
    assert list(judged(rates, rates)["valid"]) == [True, True, False]


def test_the_own_utilisation_is_rate_times_own_service_time_per_worker() -> None:
    rows = trials(
        {"rate": 5.0, "service_mean_s": 0.1},
        {"rate": 30.0, "service_mean_s": 0.1, "workers": 2},
        {"service_mean_s": float("nan")},
    )
    found = with_utilisation(rows, cpus=2)["utilisation"].tolist()
    assert found[:2] == pytest.approx([0.5, 1.5])
    assert math.isnan(found[2]), "nothing was answered"


def test_random_arrivals_count_as_many_as_fell_due() -> None:
    """Chance may send 92 of 100, which load a server less; constant ones are as many as were planned."""
    rows = trials(
        {"arrivals": "poisson"}, {"arrivals": "constant"}, rate=10.0, duration_s=10.0, planned=92,
        service_mean_s=0.05,
    )  # fmt: skip
    assert with_utilisation(rows, cpus=2)["utilisation"].tolist() == pytest.approx([0.46, 0.5])


def test_where_workers_outnumber_cpus_the_own_utilisation_counts_cpu_time() -> None:
    """Loops of 0.1 s of a CPU take 0.2 s if four workers share two: at 20/s, both are busy all the time."""
    full = {"rate": 20.0, "workers": 4, "service_mean_s": 0.2, "service_cpu_mean_s": 0.1}
    rows = trials(
        full,
        full | {"rate": 5.0, "workers": 1, "quota_cpus": 0.5},
        full | {"kernel": "sleep", "service_cpu_mean_s": 1e-5},
        full | {"service_cpu_mean_s": float("nan")},
    )
    assert with_utilisation(rows, cpus=2)["utilisation"].tolist() == pytest.approx([1.0, 1.0, 1.0, 1.0])
    for cpus in (4, 8):
        assert with_utilisation(rows, cpus=cpus)["utilisation"].iloc[0] == pytest.approx(1.0)
    idle = trials(full | {"service_mean_s": 0.1, "rate": 10.0})
    assert with_utilisation(idle, cpus=2)["utilisation"].tolist() == pytest.approx([0.5]), "a CPU of two"


def timed(*rows: tuple[str, int, float, float]) -> pd.DataFrame:
    """Make calibrations of a kernel and iterations, each at so many seconds, with so many ns an iteration."""
    return pd.DataFrame(
        {
            "block": 1,
            "kernel": kernel,
            "iterations": iterations,
            "at": pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(at_s, "s"),
            "loop_s": 1e-9 * step_ns * iterations,
        }
        for kernel, iterations, at_s, step_ns in rows
    )


def test_sizes_that_contradict_each_other_within_a_minute_are_named() -> None:
    """As measured: 7^7 was timed while the machine was fast, and 7^6 30 s later, when it was slow."""
    found = of_two_sizes(
        timed(("python", 7**7, 0, 105), ("python", 7**6, 30, 168), ("python", 7**6, 59, 106))
    )
    (row,) = found.to_dict("records")
    assert (row["kernel"], row["shorter"], row["longer"]) == ("python", 7**6, 7**7)
    assert (row["pairs"], row["contradictions"]) == (2, 1)
    assert row["most_apart"] == pytest.approx(1.6)
    assert row["longer_step_s"] == pytest.approx(105e-9)


def test_only_sizes_of_one_loop_at_one_moment_are_compared() -> None:
    apart = timed(("python", 7**7, 0, 105), ("python", 7**6, 61, 168))
    other = timed(("python", 7**7, 0, 105), ("numba", 7**6, 1, 21), ("python", 7**7, 2, 170))
    for calibrations in (apart, other, apart.head(0)):
        assert of_two_sizes(calibrations).empty


@settings(max_examples=25)
@given(st.floats(10, 1000), st.floats(0.2, 5), st.floats(-60, 60))
def test_sizes_contradict_alike_in_either_direction(step_ns: float, ratio: float, later_s: float) -> None:
    (one,), (other,) = (
        of_two_sizes(timed(("python", 1000, 0, a), ("python", 9000, later_s, b))).to_dict("records")
        for a, b in ((step_ns, step_ns * ratio), (step_ns * ratio, step_ns))
    )
    assert one["contradictions"] == other["contradictions"]
    assert one["most_apart"] * other["most_apart"] == pytest.approx(1)
