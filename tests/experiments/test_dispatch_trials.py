"""Ways to spread requests: which trials are planned, what is read off them, and what is said."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from trial_rows import trials

from lab.errors import UsageError
from lab.experiments import claims
from lab.experiments import dispatch as study
from lab.experiments import dispatch_words as words

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
    "blocks": 1,
    "seed": 1,
}


def parameters(**changes: Any) -> study.Parameters:
    return study.Parameters.from_notebook(PARAMETERS | changes)


def loop_s(kernel: str, iterations: int) -> float:
    return iterations / {"python": 1e5, "numba": 1e6}[kernel]


def test_each_way_meets_each_utilisation_and_kept_connections_where_they_matter() -> None:
    planned = study.conditions(parameters(), loop_s)
    ways = [way.name for way in study.arrangements(parameters())]
    assert ways[0] == study.ONE_PROCESS
    assert len(ways) == 8
    new = [condition for condition in planned if not condition.keepalive]
    assert len(new) == 8 * 3
    kept = [condition for condition in planned if condition.keepalive]
    assert {str(condition.labels["server"]) for condition in kept} == {
        "shared", "reuseport", "round-robin", "pool of processes",
    }  # fmt: skip
    assert {(condition.arrivals, condition.labels["load"]) for condition in kept} == {("poisson", 0.8)}


def test_rates_follow_from_the_loop_of_each_kernel() -> None:
    for condition in study.conditions(parameters(), loop_s):
        own_s = loop_s(condition.kernel, condition.iterations)
        assert condition.rate * own_s == pytest.approx(condition.labels["load"])


def test_threads_run_both_kernels_once_each() -> None:
    ways = [way.name for way in study.arrangements(parameters(threads_kernel="python"))]
    assert ways.count("threads, python") == 1
    assert "threads, numba" not in ways


@pytest.mark.parametrize(
    ("name", "value"), [("poisson", []), ("poisson", [1.0]), ("constant", [0]), ("pools", ["fiber"])]
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"parameter {name}"):
        parameters(**{name: value})


COMMON: dict[str, Any] = {
    "arrivals": "poisson", "load": 0.8, "workers": 2, "topology": "cluster", "rate": 16.0, "keepalive": False,
    "workers_seen": 2, "worker_max_share": 0.5,
}  # fmt: skip


def measured(*rows: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make trials of four requests, all due at once; `latency_p99_s` is what a row says it was."""
    made = trials(
        *({"trial_id": f"t{n}", "server": row["dispatch"], "place": n, **row} for n, row in enumerate(rows)),
        **COMMON,
    )
    requests = pd.DataFrame(
        {"trial_id": name, "due_s": 0.0, "service_s": 0.1, "worker": float(n % 2)}
        for name in made["trial_id"]
        for n in range(4)
    )
    return made, requests


WAYS: list[dict[str, Any]] = [
    {"dispatch": "shared", "latency_p99_s": 0.6, "worker_max_share": 0.7},
    {"dispatch": "reuseport", "latency_p99_s": 0.8},
    {"dispatch": "round-robin", "latency_p99_s": 0.21},
    {"dispatch": "least-busy", "latency_p99_s": 0.2},
]


def test_excess_is_over_one_queue_that_meets_the_same_arrivals() -> None:
    made = study.beside_theory(*measured(*WAYS))
    # Four loops of .1 s on two workers: the ideal ends them after .1, .1, .2 and .2 s.
    assert made["p99_ideal_s"].tolist() == pytest.approx([0.2] * 4)
    assert made["excess"].tolist() == pytest.approx([3.0, 4.0, 1.05, 1.0])
    assert made["utilisation"].tolist() == pytest.approx([0.8] * 4)
    assert made["p99"].tolist() == pytest.approx([6.0, 8.0, 2.1, 2.0])
    assert study.excesses(made).index.tolist() == ["least-busy", "round-robin", "shared", "reuseport"]


def test_the_answer_names_all_that_are_as_good_as_the_best_and_the_simplest_of_them() -> None:
    text = words.answer(study.beside_theory(*measured(*WAYS)))
    assert "planned utilisation of 80 % (80 % to 80 % by the workers' own service times)" in text
    assert "with **least-busy and round-robin** (1.00 to 1.05 times it)" in text
    assert "farther with shared 3.00 times and reuseport 4.00 times" in text
    assert "**round-robin** has the fewest parts" in text


def test_one_process_alone_leaves_nothing_to_choose() -> None:
    alone = {
        "dispatch": "",
        "server": study.ONE_PROCESS,
        "topology": "single",
        "workers": 1,
        "latency_p99_s": 1.0,
    }
    assert "nothing to choose" in words.answer(study.beside_theory(*measured(alone)))


def test_kept_connections_are_compared_with_new_ones_of_the_same_way() -> None:
    kept = {"dispatch": "round-robin", "keepalive": True, "latency_p99_s": 0.42}
    text = words.answer(study.beside_theory(*measured(*WAYS, kept)))
    assert "make p99 longer with round-robin (2.00 times)" in text


@pytest.mark.parametrize(
    ("turns", "shared", "word"),
    [
        ({}, {"worker_max_share": 0.7, "latency_p99_s": 0.3}, "holds"),
        ({"worker_max_share": 0.9}, {"worker_max_share": 0.95}, "does not hold here"),
        ({}, {}, "does not hold here"),
    ],
)
def test_claim_4_is_judged_by_shares_and_waits(
    turns: dict[str, Any], shared: dict[str, Any], word: str
) -> None:
    rows = [
        {"dispatch": "round-robin", "latency_p99_s": 0.2, **turns},
        {"dispatch": "shared", "latency_p99_s": 0.2, **shared},
    ]
    assert words.verdict(study.beside_theory(*measured(*rows))).word == word


def test_a_claim_without_its_trials_is_not_measured() -> None:
    verdict = words.verdict(study.beside_theory(*measured(WAYS[3])))
    assert claims.table([verdict])["verdict"].tolist() == ["not measured"]


def test_shares_are_ranked_within_a_trial_and_failures_count_for_nobody() -> None:
    requests = pd.DataFrame(
        {"trial_id": "t", "server": "shared", "keepalive": False, "worker": [7.0, 7.0, 7.0, 8.0, np.nan]}
    )
    found = study.shares(requests).set_index("rank")["share"]
    assert found.to_dict() == {1: 0.75, 2: 0.25}


def test_what_was_not_measured_has_no_figure() -> None:
    made = study.beside_theory(*measured(*WAYS))
    assert words.latency_figure(made, "constant") is None
    assert words.latency_figure(made, "poisson") is not None
