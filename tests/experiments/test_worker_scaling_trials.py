"""Worker scaling: what its reader may set, and the servers that follow."""

from itertools import pairwise
from typing import Any, cast

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.experiments import sustained
from lab.experiments.sustained import Objective
from lab.experiments.worker_scaling import scaling
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
        (6, 2, [1, 2, 4, 6, 8, 12]),
        (2, 1.25, [1, 2, 3, 4]),
        (8, 1.25, [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 16]),
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
