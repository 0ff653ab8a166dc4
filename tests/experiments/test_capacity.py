"""Plans from made calibrations: service times, rates, the staircase, machines, cost, the impossible."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from helpers.html_page import unlinked

from lab import cpus
from lab.errors import LabError, UsageError
from lab.experiments.capacity import answer as words
from lab.experiments.capacity import case as study
from lab.experiments.capacity import figure, plan, prediction, score
from lab.experiments.capacity.case import Case, Parameters, Sustained
from lab.figures import title_of
from lab.models.capacity import highest_utilisation
from lab.models.simulation import waits
from lab.models.statistics import Estimate, Interval
from lab.study.estimates import key_of
from lab.study.run import Run
from lab.study.runs import open_run
from lab.units import digits

PARAMETERS: dict[str, Any] = {
    "run": "",
    "rate": 0,
    "slo_percentile": 99,
    "slo_loops": 3,
    "dispatch": "least-busy",
    "headroom": 0,
    "service_s": [],
    "price_per_core_hour": 0.04,
    "cpus_per_machine": 0,
    "workers": 2,
    "loads": [0.5],
    "duration_s": 1,
    "kernel": "python",
    "iterations": 1000,
    "timeout_s": 30,
    "blocks": 6,
    "seed": 1,
}


@pytest.fixture(autouse=True)
def _two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "host_cpus", lambda: 2)
    monkeypatch.setattr(cpus, "affinity_cpus", lambda: 2)
    monkeypatch.setattr(cpus, "quota_cpus", lambda *_: None)


def parameters(**changes: Any) -> Parameters:
    return Parameters.from_notebook(PARAMETERS | changes)


def calibration(
    *means_s: float, overhead_s: float = 0.0, beside_s: float = 0.0, spread: float = 0.01
) -> pd.DataFrame:
    """Make a block per mean, of a hundred requests that vary by this share of it.

    `beside_s` of the overhead occupies no worker.
    """
    around = 1 + spread * np.linspace(-1.7, 1.7, 100)
    blocks = [
        pd.DataFrame({"block": block, "service_s": mean_s * around, "overhead_s": overhead_s})
        for block, mean_s in enumerate(means_s, start=1)
    ]
    return pd.concat(blocks, ignore_index=True).assign(occupied_s=overhead_s - beside_s)


def case(
    *means_s: float, overhead_s: float = 0.0, beside_s: float = 0.0, spread: float = 0.01, **changes: Any
) -> Case:
    made = calibration(*(means_s or (0.1,)), overhead_s=overhead_s, beside_s=beside_s, spread=spread)
    return study.case(parameters(**changes), made)


def test_a_case_is_the_median_block_and_its_objective_is_in_its_loops() -> None:
    found = case(0.1, 0.12, 0.2, overhead_s=0.01)
    assert found.loop_s == pytest.approx(0.12)
    assert found.mean_s == pytest.approx(0.13)
    assert found.service_s.mean() == pytest.approx(0.13)
    assert found.slo_s == pytest.approx(0.36)
    assert found.slo == "p99 within 360 ms"
    assert found.speeds() == pytest.approx({"usual": 1, "slowest": 0.21 / 0.13, "fastest": 0.11 / 0.13})


def test_what_occupies_no_worker_is_part_of_latency_alone() -> None:
    found, without = case(0.1, overhead_s=0.03, beside_s=0.02), case(0.1, overhead_s=0.01)
    assert found.mean_s == pytest.approx(without.mean_s) == pytest.approx(0.11)
    assert found.highest_rps(2) < without.highest_rps(2)
    tight = case(0.1, overhead_s=0.03, beside_s=0.02, slo_loops=1.4)
    assert tight.highest_rps(2) > 0
    longer = case(0.1, overhead_s=0.06, beside_s=0.05, slo_loops=1.4)
    assert longer.why_impossible().endswith("0.09 s are allowed, as 50.0 ms of latency are beside the worker")
    none_left = case(0.1, overhead_s=0.06, beside_s=0.05, slo_loops=0.4)
    assert none_left.why_impossible() == "50.0 ms of latency are beside the worker"
    assert tight.highest_rps(2, slower=1.5) == 0, "at half the speed, that is slower too"


def test_where_overload_told_nothing_the_plan_says_so() -> None:
    for beside_s, says in ((0.0, "not told apart"), (0.001, "the network's and the client's")):
        assumed = plan.assumptions(case(0.1, overhead_s=0.002, beside_s=beside_s), validated=2, cpus=2)
        assert says in assumed.set_index("assumed")["note"]["latency beside a worker"]


def test_blocks_of_another_speed_do_not_count_as_service_times_that_vary() -> None:
    assert case(0.1, 0.2, spread=0.01).variation == pytest.approx(0.01, rel=0.05)


def test_service_times_that_are_given_are_a_calibration_of_one_block() -> None:
    p = parameters(service_s=[0.1, 0.1, 0.13])
    found = study.case(p, prediction.calibration(cast(Run, None), p))
    assert found.is_given
    assert found.mean_s == pytest.approx(0.11)
    assert found.service_s.tolist() == pytest.approx([0.1, 0.1, 0.13])
    assert len(set(found.speeds().values())) == 1


def test_a_calibration_that_nobody_answered_is_one_line() -> None:
    with pytest.raises(LabError, match="no request of the calibration was answered"):
        study.case(parameters(), calibration(0.1).assign(service_s=np.nan))


NOT_TOLD = Sustained(2, None, 0.9)


def sustained(low: float = 0.85, high: float = 0.9) -> Sustained:
    """Make what two workers sustained, of their own limit."""
    return Sustained(2, Estimate((low + high) / 2, low, high, 24, Interval.CROSSING), 0.88)


def test_the_rate_is_the_given_one_else_what_was_sustained_else_what_should_be() -> None:
    p, found = parameters(), sustained(0.85)
    assert study.rate_to_plan(parameters(rate=50), case(), found) == (50, "as given")
    rate_rps, whence = study.rate_to_plan(p, case(0.1), found)
    assert rate_rps == pytest.approx(17)
    assert whence == "what 2 workers sustained in this run"
    should, whence = study.rate_to_plan(p, case(), NOT_TOLD)
    assert whence == "what 2 workers should sustain"
    assert should == pytest.approx(case().highest_rps(2))


def test_what_was_not_told_says_nothing_of_the_plan() -> None:
    assert "do not tell" in plan.checked(case(), NOT_TOLD).to_string()


def simulated(loads: Sequence[float], requests: int, seed: int = 1) -> pd.DataFrame:
    """Play trials of two workers under random arrivals, each at a speed of its own; a row per trial."""
    random = np.random.default_rng(seed)
    rows = []
    for load in loads:
        utilisation, loop_s = load * random.uniform(0.9, 1.1), random.uniform(0.01, 0.02)
        due = np.sort(random.uniform(0, requests / (2 * utilisation), requests))
        took_s = loop_s * (waits(due, np.ones(requests), 2, "central", seed) + 1)
        rows.append(
            {
                "utilisation": utilisation, "service_mean_s": loop_s, "valid": True,
                "latency_p95_s": np.percentile(took_s, 95), "steady_p95": np.percentile(took_s, 95) / loop_s,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


ALLOWED = highest_utilisation(2, [1.0], slo_quantile=0.95, slo_s=3.0)
PREDICTED = pd.DataFrame({"workers": [2], "sustained": ALLOWED, "steady": ALLOWED, "by_formula": True})


def test_the_rate_that_two_workers_sustained_needs_two() -> None:
    found = score.sustained_in(simulated([0.5, 0.6, 0.7, 0.8] * 6, 800), PREDICTED, 95, 3.0)
    assert found.share is not None
    assert found.share.low < ALLOWED < found.share.high
    assert found.share.value == pytest.approx(ALLOWED, rel=0.05)
    p = parameters(slo_percentile=95)
    for seen_s in (0.005, 0.05):  # the machine may have been slower when it was calibrated
        mine = case(seen_s, slo_percentile=95)
        (row,) = plan.checked(mine, found).to_dict("records")
        assert (row["workers"], row["workers by this plan"], row["says as many"]) == (2, "2", "yes")
        answer = words.answer(mine, *study.rate_to_plan(p, mine, found), 2, 2, found, 2, 0.04)
        assert "**2 workers**: validated" in unlinked(answer)
        assert unlinked(answer).endswith(
            "Without headroom, the rate that 2 workers sustained here needs 2 by the same plan."
        )


TRIALS = pd.DataFrame({"trial_id": ["capacity.one", "capacity.two"], "arrivals": ["constant", "poisson"]})
"""Of the calibration, and of two workers."""


def test_numbers_of_the_plan_lead_to_estimates_with_the_trials_that_they_rest_on() -> None:
    run, found = open_run(), sustained()
    mine = case(0.1, 0.12, 0.2, headroom=0.2)
    asked = study.rate_to_plan(parameters(headroom=0.2), mine, found)
    assert words.estimates(run, TRIALS) == []
    words.keep(run, mine, *asked, found, 2, 0.04)
    rows = {row.key: row for row in words.estimates(run, TRIALS)}
    answer = words.answer(mine, *asked, 2, 2, found, 2, 0.04)
    linked = re.findall("#estimate-([0-9a-f]{10})", answer)
    assert linked[0] == key_of(score.OWN_LIMIT, workers=2, percentile=99, loops=3.0), "the rate's"
    workers, machines, cost, known = (rows.pop(key) for key in linked[1:])
    assert rows == {}
    assert (workers.value, workers.low, workers.high) == (3, 3, 6), "at the usual, fastest and slowest speed"
    assert f"**{workers.value:.0f} workers** ({workers.low:.0f} to {workers.high:.0f} at" in unlinked(answer)
    assert f"{machines.value:,.0f} machines of 2 CPUs, at {digits(cost.value)} per" in unlinked(answer)
    assert f"needs {known.value:.0f} by the same plan." in unlinked(answer)
    assert workers.sources == known.sources == ("capacity.one", "capacity.two", words.KEPT)
    assert machines.sources == cost.sources == ("capacity.one", words.KEPT)


def test_a_rate_that_so_many_should_sustain_is_stated_from_the_slowest_speed_to_the_fastest() -> None:
    run, mine = open_run(), case(0.1, 0.12, 0.2)
    rate_rps, whence = study.rate_to_plan(parameters(), mine, NOT_TOLD)
    words.keep(run, mine, rate_rps, whence, NOT_TOLD, 2, 0)
    rate, *_ = [row for row in words.estimates(run, TRIALS) if row.quantity == words.RATE]
    assert rate.value == rate_rps
    assert rate.low < rate_rps < rate.high
    assert rate.sources == ("capacity.one", words.KEPT), "nothing else tells"
    answer = words.answer(mine, rate_rps, whence, 2, 0, NOT_TOLD, 2, 0)
    assert re.findall("#estimate-([0-9a-f]{10})", answer)[0] == rate.key


def test_a_plan_of_given_service_times_keeps_no_estimate_and_leads_nowhere() -> None:
    run, p = open_run(), parameters(service_s=[0.1, 0.1, 0.13], rate=50)
    mine = study.case(p, prediction.calibration(run, p))
    words.keep(run, mine, 50, "as given", NOT_TOLD, 2, 0.04)
    assert words.estimates(run, TRIALS) == []
    assert "](#" not in words.answer(mine, 50, "as given", 2, 0, NOT_TOLD, 2, 0.04)


def test_a_sustained_rate_is_not_told_by_few_flagged_or_overloaded_trials_nor_by_one_side() -> None:
    trials = simulated([0.5, 0.6, 0.7, 0.8] * 3, 300)
    assert score.sustained_in(trials, PREDICTED, 95, 3.0).share is not None
    beyond = trials["utilisation"] > 0.6
    for doubted in (
        trials.head(7),
        trials.head(0),
        trials.assign(valid=False),
        trials.assign(utilisation=trials["utilisation"] + 1),
        trials[~beyond],
        trials[beyond].assign(latency_p95_s=1.0, steady_p95=50.0),
    ):
        found = score.sustained_in(doubted, PREDICTED, 95, 3.0)
        assert found.share is found.steady is None
        assert "too few trials, or none on one side" in score.sustained_table(found, "p95").to_string()


def test_the_staircase_says_where_the_next_worker_is_needed() -> None:
    mine = case(0.1)
    steps = plan.staircase(mine, 4)
    assert steps["workers"].tolist() == [1, 2, 3, 4]
    assert steps["usual"].is_monotonic_increasing
    assert (steps["usual"] < steps["workers"] / 0.1).all(), "below the ideal"
    for workers, rate_rps in zip(steps["workers"], steps["usual"], strict=True):
        assert mine.needed(0.999 * rate_rps).workers == workers
        assert mine.needed(1.001 * rate_rps).workers == workers + 1


def test_the_band_of_the_staircase_is_what_slow_and_fast_blocks_give() -> None:
    steps = plan.staircase(case(0.09, 0.1, 0.12), 3)
    assert (steps["slowest"] < steps["usual"]).all()
    assert (steps["usual"] < steps["fastest"]).all()


def test_long_staircases_leave_steps_out() -> None:
    assert len(plan.staircase(case(), 500)) <= plan.STEPS
    assert plan.up_to(case(), 10_000.0, 2) > 1000


def test_the_plan_says_what_is_validated_what_fits_and_what_is_beyond() -> None:
    table = plan.table(case(0.1), 10.0, validated=2, cpus=3)
    assert table["offered rate"].tolist() == ["5.00/s", "10.0/s", "20.0/s", "50.0/s", "100/s"]
    assert [plan.status(n, 2, 3) for n in (2, 3, 4)] == [
        "validated: predicted, then measured here",
        "predicted for the CPUs here",
        "extrapolated beyond the CPUs here",
    ]
    assert table["at the fastest to the slowest speed seen"].eq("").all()
    banded = plan.table(case(0.08, 0.1, 0.13), 100.0, validated=2, cpus=3)
    assert " to " in banded["at the fastest to the slowest speed seen"].iloc[-1]


def test_headroom_is_room_for_a_higher_rate() -> None:
    roomy, tight = case(headroom=0.5), case()
    assert roomy.needed(40.0).workers == tight.needed(60.0).workers


def test_what_is_assumed_stands_beside_the_plan() -> None:
    table = plan.assumptions(case(0.1, 0.12, overhead_s=0.001), validated=2, cpus=2)
    here = dict(zip(table["assumed"], table["here"], strict=True))
    assert here["queue"] == "one central queue"
    assert here["objective"] == "p99 within 330 ms"
    assert here["validated"] == "2 workers"
    assert "1.00 ms is not the loop" in here["a request occupies a worker for"]


def test_machines_and_cost_by_rate_and_without_a_price() -> None:
    table = plan.machine_table(case(0.1), 4, 0.04)
    assert table["offered rate"].tolist() == ["1,000/s", "10,000/s", "100,000/s", "1,000,000/s"]
    machines = [int(text.replace(",", "")) for text in table["machines"]]
    assert machines == sorted(machines)
    assert machines[-1] == pytest.approx(1000 * machines[0], rel=0.02)
    assert len(set(table["cost per million requests"])) <= 2, "the same for any rate, but for rounding up"
    free = plan.machine_table(case(0.1), 4, 0.0)
    assert not any("cost" in str(column) for column in free)
    assert free["machines"].tolist() == table["machines"].tolist()


def test_larger_machines_may_be_busier() -> None:
    table = plan.size_table(case(0.1), 0.04)
    costs = [float(str(cost)) for cost in table["cost per million requests"]]
    assert costs == sorted(costs, reverse=True)


def test_an_objective_below_the_service_time_is_one_sentence_and_no_figure() -> None:
    mine = case(0.1, slo_loops=0.5)
    found = NOT_TOLD
    rate_rps, whence = study.rate_to_plan(parameters(slo_loops=0.5), mine, found)
    answer = words.answer(mine, rate_rps, whence, 2, 0, found, 2, 0.04)
    assert answer.startswith("**Answer.** **No number of workers keeps p99 within 50.0 ms**: ")
    assert "\n" not in answer
    steps = plan.staircase(mine, plan.up_to(mine, rate_rps, 2))
    assert figure.staircase(steps, mine, rate_rps, found, validated=0, cpus=2) is None
    assert "No number of workers" in plan.table(mine, rate_rps, 0, 2).to_string()
    fleet = plan.machine_table(mine, 4, 0.04)
    assert set(fleet["machines"]) == {"no number"}
    assert "nan" not in fleet.to_string()


def test_workers_that_sustain_no_rate_are_one_sentence() -> None:
    found = NOT_TOLD
    answer = words.answer(case(0.1), 0.0, "what 2 workers should sustain", 2, 0, found, 2, 0.04)
    assert answer.endswith("sustain no rate under this objective: give a rate to plan for.")
    assert "give a rate" in plan.table(case(0.1), 0.0, 0, 2).to_string()


def test_a_billion_a_second_is_planned_and_drawn() -> None:
    mine = case(0.1, headroom=0.2)
    found = NOT_TOLD
    steps = plan.staircase(mine, plan.up_to(mine, 1e9, 2))
    drawn = figure.staircase(steps, mine, 1e9, found, validated=0, cpus=2)
    assert drawn is not None
    assert "120," in title_of(drawn)
    answer = unlinked(words.answer(mine, 1e9, "as given", 2, 0, found, 2, 0))
    assert "**120,012,002 workers**" in answer


def test_the_staircase_draws_measured_validated_and_extrapolated_differently() -> None:
    mine = case(0.09, 0.1, 0.12, headroom=0.2)
    found = sustained()
    draw = partial(figure.staircase, plan.staircase(mine, 5), mine, 20.0, found, cpus=2)
    drawn = draw(validated=2)
    assert drawn is not None
    (axes,) = drawn.axes
    assert axes.get_legend_handles_labels()[1] == [
        "workers needed here; 2 validated by trials",
        "workers needed, extrapolated",
        "measured here: the sustained rate lies in between",
        "at the fastest to the slowest speed seen here",
    ]
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    assert lines["workers needed here; 2 validated by trials"].get_linestyle() == "-"
    assert lines["workers needed, extrapolated"].get_linestyle() != "-"
    assert np.max(lines["workers needed here; 2 validated by trials"].get_ydata()) == 2
    assert np.max(lines["workers needed, extrapolated"].get_ydata()) == 5
    only_theory = draw(validated=0)
    assert only_theory is not None
    assert "workers needed here" in only_theory.axes[0].get_legend_handles_labels()[1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rate": -1}, "rate"),
        ({"rate": 1e300}, "rate must be at most"),
        ({"headroom": -0.1}, "headroom must be at least 0"),
        ({"service_s": [0.1, 0, 0]}, "service_s: 2 of 3 times are not above 0"),
        ({"price_per_core_hour": -1}, "price_per_core_hour must be at least 0"),
        ({"cpus_per_machine": 10**30}, "cpus_per_machine must be at most 1e"),
        ({"cpus_per_machine": -1}, "cpus_per_machine must be at least 0"),
        ({"loads": [1.0]}, r"loads\[0\] must be below 1"),
        ({"loads": []}, "loads must list at least 1"),
        ({"dispatch": "best"}, "dispatch must be"),
    ],
)
def test_impossible_parameters_are_one_line(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as error:
        parameters(**change)
    assert "\n" not in str(error.value)
