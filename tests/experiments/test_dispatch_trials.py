"""Arrangements: which trials are planned, and what makes measured ones comparable."""

from collections.abc import Iterable
from typing import Any, cast

import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab.cli import study as batch
from lab.errors import UsageError
from lab.experiments.dispatch import trials as study
from lab.load.arrivals import Stage, due_times
from lab.models.statistics import fewest_trials, samples_needed
from lab.study.plan import Condition, make_plan
from lab.study.run import Run

PARAMETERS: dict[str, Any] = {
    "run": "",
    "dispatches": ["shared", "reuseport", "round-robin", "least-busy"],
    "pools": ["process", "thread"],
    "poisson": [0.5, 0.8],
    "constant": [0.9],
    "workers": 1,
    "duration_s": 2,
    "kernel": "python",
    "iterations": 1000,
    "threads_kernel": "numba",
    "threads_iterations": 5000,
    "timeout_s": 30,
    "blocks": 2,
    "other_blocks": 1,
    "seed": 1,
}


def parameters(**changes: Any) -> study.Parameters:
    return study.Parameters.from_notebook(PARAMETERS | changes)


def loop_s(kernel: str, iterations: int) -> float:
    return iterations / {"python": 1e5, "numba": 1e6}[kernel]


def names(conditions: Iterable[Condition]) -> set[str]:
    return {study.name_of(condition.factors()) for condition in conditions}


def test_each_arrangement_meets_arrivals_of_both_kinds_and_those_that_may_keep_connections_do() -> None:
    planned = study.conditions(parameters(), loop_s)
    random = [c for c in planned if c.arrivals == "poisson" and not c.keepalive]
    assert len(random) == 8 * 2
    constant = [c for c in planned if c.arrivals == "constant"]
    assert names(constant) == names(random) == {
        "one process", "shared", "reuseport", "round-robin", "least-busy", "pool of processes",
        "threads, numba", "threads, python",
    }  # fmt: skip
    kept = [c for c in planned if c.keepalive]
    assert names(kept) == {"shared", "reuseport", "round-robin", "pool of processes"}
    assert {(c.arrivals, c.labels["load"]) for c in kept} == {("poisson", 0.8)}


def test_only_arrangements_to_choose_between_are_measured_in_every_block() -> None:
    measured: dict[int, set[Condition]] = {}

    class OnlyPlans:
        loop_s = staticmethod(loop_s)

        def measure(self, _: str, conditions: list[Condition], *, blocks: int, seed: int) -> pd.DataFrame:
            measured[blocks] = set(conditions)
            return pd.DataFrame({"seed": [seed]})

    assert len(study.measure(cast(Run, OnlyPlans()), parameters())) == 2
    processes = {"shared", "reuseport", "round-robin", "least-busy", "pool of processes"}
    assert names(measured[2]) == processes
    assert {(c.arrivals, c.labels["load"], c.keepalive) for c in measured[2]} == {("poisson", 0.8, False)}
    assert measured[1] | measured[2] == set(study.conditions(parameters(), loop_s))


def test_every_trial_lasts_until_it_has_met_as_many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "available_cpus", lambda: 4)
    planned = study.conditions(parameters(workers=3), loop_s)
    assert {round(c.rate * c.duration_s, 9) for c in planned} == {540}


def test_quick_can_spare_a_block_and_has_requests_enough_for_a_p90(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "available_cpus", lambda: 2)
    quick = parameters(**batch.profile_parameters("quick", "05-dispatch"), workers="cpus")
    assert quick.blocks > fewest_trials()
    planned = study.conditions(quick, lambda *_: 0.013)
    for block in make_plan(study.EXPERIMENT, planned, blocks=quick.blocks, seed=quick.seed):
        for trial in block.trials:
            asked = trial.condition
            stages = [Stage(asked.rate, asked.rate, asked.duration_s)]
            assert len(due_times(stages, asked.arrivals, trial.seed)) >= samples_needed(0.9)


def test_rates_follow_from_the_loop_of_each_kernel() -> None:
    for condition in study.conditions(parameters(), loop_s):
        own_s = loop_s(condition.kernel, condition.iterations)
        assert condition.rate * own_s == pytest.approx(condition.labels["load"])


def test_threads_run_both_kernels_once_each() -> None:
    found = list(map(study.name_of, study.arrangements(parameters(threads_kernel="python"))))
    assert found.count("threads, python") == 1
    assert "threads, numba" not in found


@pytest.mark.parametrize(
    ("name", "value"), [("poisson", []), ("poisson", [1.0]), ("constant", [0]), ("pools", ["fiber"])]
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"parameter {name}"):
        parameters(**{name: value})


def beside_theory(*rows: dict[str, Any], due_s: tuple[float, ...] = (0.0,) * 4) -> pd.DataFrame:
    """Make trials of requests that take .1 s each, and put them beside theory."""
    common: dict[str, Any] = {"arrivals": "poisson", "load": 0.8, "workers": 2, "topology": "cluster"}
    made = trials(
        *({"trial_id": f"t{n}", "place": n, "sent": 300, **row} for n, row in enumerate(rows)),
        **common | {"rate": 16.0, "pool": "process", "keepalive": False, "overhead_s": 0.0},
    )
    requests = [
        {"trial_id": row["trial_id"], "due_s": due, "service_s": 0.1, "end_s": due + 0.1 + row["overhead_s"]}
        for _, row in made.iterrows()
        for due in due_s
    ]
    return study.beside_theory(made, pd.DataFrame(requests))


def test_excess_is_over_one_queue_that_meets_the_same_arrivals() -> None:
    made = beside_theory(
        {"dispatch": "least-busy", "latency_mean_s": 0.15, "latency_p99_s": 0.2},
        {"dispatch": "shared", "latency_mean_s": 0.3, "latency_p99_s": 0.6},
    )
    # Four loops of .1 s on two workers: the ideal ends them after .1, .1, .2 and .2 s.
    assert made["mean_ideal_s"].tolist() == pytest.approx([0.15] * 2)
    assert made["excess"].tolist() == pytest.approx([1.0, 2.0])
    assert made["utilisation"].tolist() == pytest.approx([0.8] * 2)
    assert made["tail"].tolist() == pytest.approx([2.0, 6.0])


def test_a_trial_stands_at_the_utilisation_that_it_had_not_the_planned_one() -> None:
    made = beside_theory(
        {"dispatch": "shared", "service_mean_s": 0.125},
        {"topology": "offload", "pool": "thread", "service_mean_s": 0.7},
    )
    # Threads that take turns at the GIL have one worker's time, and their loop costs what it costs alone.
    assert made["utilisation"].tolist() == pytest.approx([1.0, 1.6])
    assert study.steady(made).empty


def test_utilisation_theory_ideal_and_unit_hold_the_least_overhead_of_the_arrangement() -> None:
    shared = {"dispatch": "shared", "latency_mean_s": 0.18, "latency_p99_s": 0.24}
    made = beside_theory(
        {**shared, "overhead_s": 0.02},
        {**shared, "overhead_s": 7.0},  # its queue never ended
        {**shared, "overhead_s": 0.01, "keepalive": True},
        {**shared, "dispatch": "least-busy", "overhead_s": 0.05},
        {**shared, "topology": "offload", "pool": "thread", "overhead_s": 7.0},
    )
    assert made["cost_s"].tolist() == pytest.approx([0.12, 0.12, 0.11, 0.15, 0.1])
    assert made["utilisation"].tolist() == pytest.approx([0.96, 0.96, 0.88, 1.2, 1.6])
    assert made["mean_ideal_s"].tolist()[:2] == pytest.approx([0.18] * 2)
    assert made["mean_theory_s"].tolist()[0] == pytest.approx(0.30)
    assert made["excess"].tolist()[0] == pytest.approx(1.0)
    assert made["tail"].tolist()[0] == pytest.approx(2.0)


def test_kept_connections_take_no_more_than_new_ones() -> None:
    made = beside_theory(
        {"dispatch": "shared", "overhead_s": 0.02},
        {"dispatch": "shared", "overhead_s": 7.0, "keepalive": True},
    )
    assert made["cost_s"].tolist() == pytest.approx([0.12] * 2)


def test_a_trial_without_an_answer_takes_the_calibrated_loop() -> None:
    made = beside_theory({"dispatch": "shared", "service_mean_s": float("nan"), "loop_s": 0.1})
    assert made["utilisation"].tolist() == pytest.approx([0.8])


@pytest.mark.parametrize(
    ("fewest", "share"), [(299, 0.99), (298, 0.95), (59, 0.95), (58, 0.9), (29, 0.9), (28, 0.5)]
)
def test_the_tail_is_the_rarest_that_the_smallest_trial_supports(fewest: int, share: float) -> None:
    made = beside_theory(
        {"dispatch": "shared", "latency_p99_s": 0.9, "latency_p95_s": 0.5, "latency_p90_s": 0.3},
        {"dispatch": "reuseport", "sent": fewest},
    )
    assert made["tail_share"].tolist() == [share, share]
    expected_s = {0.99: 0.9, 0.95: 0.5, 0.9: 0.3, 0.5: 0.1}[share]
    assert made["tail_s"].tolist() == pytest.approx([expected_s, 0.1])


def test_arrangements_are_told_apart_by_their_factors_in_the_order_of_the_plan() -> None:
    threads = {"topology": "offload", "pool": "thread"}
    rows = [
        {"place": 3, **threads, "kernel": "numba"}, {"place": 4, **threads},
        {"place": 1, "dispatch": "shared"}, {"place": 2, "dispatch": "reuseport"},
        {"place": 1, "dispatch": "shared"},
    ]  # fmt: skip
    found = study.by_arrangement(trials(*rows, topology="cluster", pool="process"))
    assert [(name, len(mine)) for name, mine in found] == [
        ("shared", 2), ("reuseport", 1), ("threads, numba", 1), ("threads, python", 1),
    ]  # fmt: skip
