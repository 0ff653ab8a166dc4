"""Arrangements: which trials are planned, their queues in theory, and what trials are compared with."""

from collections.abc import Iterable
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
import pytest
from helpers.dispatch_parameters import parameters
from helpers.trial_rows import trials

from lab.errors import UsageError
from lab.experiments import catalog
from lab.experiments.dispatch import bound
from lab.experiments.dispatch import trials as study
from lab.experiments.dispatch.trials import Queue, answers_by_connection, curve, least_overhead_s, queue_of
from lab.load.arrivals import Arrivals, Stage, due_times
from lab.models.queueing import mdc_wait_quantile
from lab.models.statistics import fewest_trials, samples_needed
from lab.servers.spec import DispatchName
from lab.study import plan
from lab.study.plan import Condition, make_plan
from lab.study.run import Run
from lab.study.stability import with_utilisation


def names(conditions: Iterable[Condition]) -> set[str]:
    return {study.name_of(condition.factors()) for condition in conditions}


def test_each_arrangement_meets_arrivals_of_both_kinds_and_those_in_kept_keep_connections_too() -> None:
    planned = study.conditions(parameters())
    random = [c for c in planned if c.arrivals == "poisson" and not c.keepalive]
    assert len(random) == 8 * 2
    constant = [c for c in planned if c.arrivals == "constant"]
    assert names(constant) == names(random) == {
        "one process", "shared", "reuseport", "round-robin", "least-busy", "pool of processes",
        "threads, numba", "threads, python",
    }  # fmt: skip
    kept = [c for c in planned if c.keepalive]
    assert names(kept) == {"round-robin (kept)", "pool of processes (kept)"}
    assert {(c.arrivals, c.load) for c in kept} == {("poisson", 0.8)}


def test_other_bounds_are_measured_where_arrangements_are_compared_and_overloaded() -> None:
    p = parameters(bounds=[1, 2, 1000])
    further = [c for c in study.conditions(p) if c.bound > 1]
    assert names(further) == {"least-busy, bound 2", "least-busy, bound 1000"}
    assert {(c.arrivals, c.load, c.keepalive) for c in further} == {("poisson", 0.8, False)}
    assert [(c.bound, c.load) for c in bound.conditions(p)] == [(1, 1.25), (2, 1.25), (1000, 1.25)]
    assert bound.conditions(parameters()) == []


def test_only_arrangements_to_choose_between_are_measured_in_every_block() -> None:
    measured: dict[int, set[Condition]] = {}

    class OnlyPlans:
        def measure(self, _: str, conditions: list[Condition], *, blocks: int, seed: int) -> pd.DataFrame:
            measured[blocks] = set(conditions)
            return pd.DataFrame({"seed": [seed]})

    assert len(study.measure(cast(Run, OnlyPlans()), parameters())) == 2
    assert names(measured[2]) == {
        "shared", "reuseport", "round-robin", "least-busy", "pool of processes",
        "round-robin (kept)", "pool of processes (kept)",
    }  # fmt: skip
    assert {(c.arrivals, c.load) for c in measured[2]} == {("poisson", 0.8)}
    assert measured[1] | measured[2] == set(study.conditions(parameters()))

    measured.clear()
    assert len(study.measure(cast(Run, OnlyPlans()), parameters(other_blocks=0))) == 1
    assert list(measured) == [2]


def test_what_is_compared_is_chosen_by_plan_whatever_came_of_it() -> None:
    rows: list[dict[str, Any]] = [
        {"dispatch": "shared", "load": 0.8, "valid": False, "success": 0.0},
        {"dispatch": "shared", "load": 0.5},
        {"dispatch": "shared", "load": 0.8, "arrivals": "constant"},
        {"topology": "single", "load": 0.8, "workers": 1},
        {"topology": "offload", "pool": "thread", "load": 0.8},
        {"topology": "offload", "load": 0.8, "keepalive": True},
    ]
    defaults = {"arrivals": "poisson", "workers": 2, "topology": "cluster", "pool": "process"}
    assert study.compared(trials(*rows, **defaults)).index.tolist() == [0, 5]


def test_every_trial_lasts_until_it_has_met_as_many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "available_cpus", lambda: 4)
    monkeypatch.setattr(plan, "available_cpus", lambda: 4)
    planned = study.conditions(parameters(workers=2))
    assert {round(c.planned(0.01).offered_rps * c.duration_s, 9) for c in planned} == {320}


def test_one_process_beside_many_cpus_is_not_attacked_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "available_cpus", lambda: 64)
    p = parameters(workers=64)
    assert max(c.duration_s for c in study.conditions(p)) == 6 * p.duration_s


def test_quick_has_blocks_enough_for_an_interval_and_requests_for_a_p90(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study, "available_cpus", lambda: 2)
    monkeypatch.setattr(plan, "available_cpus", lambda: 2)
    quick = parameters(**catalog.profile_parameters("quick", "05-dispatch"), workers="cpus")
    assert quick.blocks >= fewest_trials()
    planned = study.conditions(quick)
    for block in make_plan(study.EXPERIMENT, planned, blocks=quick.blocks, seed=quick.seed):
        for trial in block.trials:
            asked = trial.condition.planned(0.013)
            stages = [Stage(asked.offered_rps, asked.offered_rps, asked.duration_s)]
            assert len(due_times(stages, asked.arrivals, trial.seed)) >= samples_needed(0.9)


def test_threads_run_both_kernels_once_each() -> None:
    planned = study.conditions(parameters(threads_kernel="python", poisson=[0.5], constant=[]))
    assert [c.kernel for c in planned if c.pool == "thread"] == ["python"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("poisson", []),
        ("poisson", [1.0]),
        ("constant", [0]),
        ("pools", ["fiber"]),
        ("kept", ["least-busy"]),
        ("dispatches", []),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"parameter {name}"):
        parameters(**{name: value})


DISPATCHES = get_args(DispatchName)
POOL = {"topology": "offload", "pool": "process", "kernel": "python"}


def at(queue: Queue, utilisation: float, arrivals: Arrivals = "poisson") -> "pd.Series[float]":
    found = curve(queue, 2, arrivals, 0.95)
    return found[np.isclose(found["utilisation"], utilisation)].iloc[0]


def test_poisson_curves_are_the_exact_ones() -> None:
    for queue, sharing in ((Queue.CENTRAL, 2), (Queue.TURNS, 2), (Queue.HASHED, 1), (Queue.ONE, 1)):
        for name, quantile in (("p50", 0.5), ("tail", 0.95)):
            assert at(queue, 0.8)[name] == pytest.approx(1 + mdc_wait_quantile(quantile, sharing, 0.8))


def test_taking_all_that_waits_lies_between_one_queue_and_many() -> None:
    for utilisation in (0.5, 0.8):
        central, batches, hashed = (
            at(queue, utilisation)["tail"] for queue in (Queue.CENTRAL, Queue.BATCHES, Queue.HASHED)
        )
        assert central < batches < hashed


def test_at_a_constant_rate_only_a_hash_lets_anyone_wait() -> None:
    for queue in (Queue.BATCHES, Queue.TURNS, Queue.CENTRAL):
        assert curve(queue, 2, "constant", 0.95)["tail"].tolist() == pytest.approx([1.0] * 19)
    assert at(Queue.HASHED, 0.8, "constant")["tail"] > 1.5


def test_a_queue_follows_from_the_factors_of_an_arrangement() -> None:
    found = {dispatch: queue_of({"topology": "cluster", "dispatch": dispatch}) for dispatch in DISPATCHES}
    assert found == {
        "shared": Queue.BATCHES,
        "reuseport": Queue.HASHED,
        "round-robin": Queue.TURNS,
        "least-busy": Queue.CENTRAL,
    }
    assert queue_of({"topology": "single"}) is Queue.ONE
    assert queue_of(POOL) is Queue.CENTRAL


def test_threads_that_hold_the_gil_have_no_curve() -> None:
    threads = POOL | {"pool": "thread"}
    assert queue_of(threads) is Queue.GIL
    assert queue_of(threads | {"kernel": "numba"}) is Queue.CENTRAL
    assert curve(Queue.GIL, 2, "poisson", 0.95).empty


def beside_theory(*rows: dict[str, Any], due_s: tuple[float, ...] = (0.0,) * 4) -> pd.DataFrame:
    """Make trials of requests that take .1 s each, by workers 7 and 8 in turn, and put them beside theory."""
    common: dict[str, Any] = {"arrivals": "poisson", "load": 0.8, "workers": 2, "topology": "cluster"}
    made = trials(
        *({"trial_id": f"t{n}", "place": n, "sent": 300, **row} for n, row in enumerate(rows)),
        **common
        | {
            "rate": 16.0,
            "planned": 160,
            "pool": "process",
            "keepalive": False,
            "service_s": 0.1,
            "extra": 0.0,
        },
    )
    requests = pd.DataFrame(
        {
            "trial_id": row["trial_id"],
            "due_s": due,
            "sent_s": due,
            "service_s": row["service_s"],
            "end_s": due + 0.1 + row["extra"],
            "worker": 7.0 + number % 2,
        }
        for _, row in made.iterrows()
        for number, due in enumerate(due_s)
    )
    return study.beside_theory(with_utilisation(made.drop(columns=["service_s", "extra"]), cpus=8), requests)


def test_latency_is_put_over_one_queue_that_meets_the_same_arrivals() -> None:
    made = beside_theory(
        {"dispatch": "least-busy", "latency_mean_s": 0.15, "latency_p99_s": 0.2},
        {"dispatch": "shared", "latency_mean_s": 0.3, "latency_p99_s": 0.6},
    )
    # Four loops of .1 s on two workers: the ideal ends them after .1, .1, .2 and .2 s. Batches: one worker
    # takes all four.
    assert made["ideal_s"].tolist() == pytest.approx([0.15] * 2)
    assert made["over_ideal"].tolist() == pytest.approx([1.0, 2.0])
    assert made["theory_s"].tolist() == pytest.approx([0.15, 0.25])
    assert made["theory_tail_s"].tolist() == pytest.approx([0.2, 0.397])
    assert made["utilisation"].tolist() == pytest.approx([0.8] * 2)


def test_all_ideals_hold_the_same_overhead_so_that_what_an_arrangement_costs_counts() -> None:
    made = beside_theory(
        {"dispatch": "shared", "extra": 0.01, "latency_mean_s": 0.16},
        {"dispatch": "round-robin", "extra": 0.05, "latency_mean_s": 0.32},
        {"dispatch": "round-robin", "extra": 0.001, "keepalive": True},
    )
    assert made["extra_s"].tolist() == pytest.approx([0.01, 0.05, 0.001])
    assert made["overhead_s"].tolist() == pytest.approx([0.01] * 3)
    assert made["ideal_s"].tolist() == pytest.approx([0.165] * 3)
    assert made["over_ideal"].tolist()[1] == pytest.approx(0.32 / 0.165)


def test_a_trial_stands_at_the_utilisation_that_it_had_not_the_planned_one() -> None:
    made = beside_theory(
        {"dispatch": "shared", "service_mean_s": 0.125},
        {"topology": "offload", "pool": "thread", "service_mean_s": 0.7, "service_cpu_mean_s": 0.1},
    )
    # Threads that take turns at the GIL have one worker's time, and their loop costs what it costs alone.
    assert made["utilisation"].tolist() == pytest.approx([1.0, 1.6])
    assert np.isnan(made["theory_s"].tolist()[1])
    assert np.isnan(made["extra_s"].tolist()[1])
    assert made["ideal_s"].tolist()[1] == pytest.approx(0.15)


def test_requests_without_an_answer_take_the_mean_and_trials_without_one_the_calibrated_loop() -> None:
    nothing = {"dispatch": "shared", "service_s": np.nan, "service_mean_s": np.nan}
    assert beside_theory(nothing)["ideal_s"].tolist() == pytest.approx([0.15])
    assert beside_theory(nothing)["own_s"].tolist() == pytest.approx([0.1])


def test_the_least_on_top_is_that_of_requests_that_found_an_idle_worker() -> None:
    due_s = np.array([0.0, 0.1, 0.2, 2.0, 2.1, 2.2, 4.0, 6.0])
    waited_s = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.4, np.nan])
    answered = pd.DataFrame({"due_s": due_s, "end_s": due_s + 1.1 + waited_s})
    assert least_overhead_s(answered, np.ones(8), 1) == pytest.approx(0.1)
    assert np.isnan(least_overhead_s(answered.assign(end_s=np.nan), np.ones(8), 1))


def test_queueing_is_no_overhead_however_long_all_have_waited() -> None:
    """One worker is kept from its CPU and falls behind: only the first request finds it idle."""
    due_s = np.linspace(0, 5, 40)
    answered = pd.DataFrame({"due_s": due_s, "end_s": due_s + 1.1 + np.arange(40) * 0.9})
    assert least_overhead_s(answered, np.ones(40), 1) == pytest.approx(0.1)


def test_coins_deal_out_connections_and_what_was_kept_stays_together() -> None:
    once = {"dispatch": "round-robin", "worker_max_share": 0.5}
    apart = (0.0, 1.0, 2.0, 3.0)  # one kept connection serves all four
    new, kept, pool = (
        beside_theory(row, due_s=apart).iloc[0]
        for row in (once, once | {"keepalive": True}, once | {"keepalive": True, "topology": "offload"})
    )
    assert [row["connections"] for row in (new, kept, pool)] == [4, 1, 4]
    assert new["busiest"] == 1
    # Four coins: the busiest of two has 2 in 6 of 16 cases, 3 in 8, 4 in 2.
    shares, counts = np.unique(new["coins"], return_counts=True)
    assert shares.tolist() == [1, 1.5, 2]
    assert counts / counts.sum() == pytest.approx([6 / 16, 8 / 16, 2 / 16], abs=0.04)
    assert set(kept["coins"]) == {2}
    assert (pool["coins"] == new["coins"]).all()


def test_the_connection_used_last_is_used_again() -> None:
    requests = pd.DataFrame(
        [(0.0, 2.0, 7.0), (1.0, 3.0, 8.0), (4.0, 5.0, 8.0), (4.5, 6.0, 7.0), (9.0, 10.0, np.nan)],
        columns=["sent_s", "end_s", "worker"],
    )
    assert answers_by_connection(requests, kept=True) == [2, 2]
    assert answers_by_connection(requests[::-1], kept=True) == [2, 2]
    assert answers_by_connection(requests.iloc[[0, 1, 2]], kept=True) == [1, 2]
    assert answers_by_connection(requests, kept=False) == [1] * 4


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
