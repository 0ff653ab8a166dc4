"""The rate sweep: rates that mean the same on any machine, and what is stated of them."""

from typing import Any

import pytest
from helpers.trial_rows import found_rates, trials

from lab.errors import UsageError
from lab.experiments import rate_sweep as study

PARAMETERS: dict[str, Any] = {
    "run": "",
    "loads": [0.5, 1.2],
    "rates": [],
    "duration_s": 2,
    "workers": 2,
    "dispatch": "shared",
    "arrivals": "poisson",
    "kernel": "python",
    "iterations": 1000,
    "timeout_s": 30,
    "slo_percentile": 95,
    "slo_loops": 3,
    "precision": 0.05,
    "search_s": 1,
    "blocks": 2,
    "seed": 1,
}
CLUSTER: dict[str, Any] = {"topology": "cluster", "workers": 2}


def test_each_server_meets_every_load() -> None:
    found = study.conditions(study.Parameters(**PARAMETERS))
    loads = [("single", 1, 0.5), ("single", 1, 1.2), ("cluster", 2, 0.5), ("cluster", 2, 1.2)]
    assert [(one.topology, one.workers, one.load) for one in found] == loads
    assert {one.arrivals for one in found} == {"poisson"}
    assert {one.dispatch for one in found if one.topology == "cluster"} == {"shared"}


def test_given_rates_replace_the_loads_for_both_servers() -> None:
    found = study.conditions(study.Parameters(**PARAMETERS | {"rates": [7]}))
    assert [(one.topology, one.rate, one.load) for one in found] == [
        ("single", 7, None),
        ("cluster", 7, None),
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"loads": [0.5, 0]}, r"loads\[1\]"),
        ({"arrivals": "posson"}, "arrivals"),
        ({"workers": "all"}, "workers"),
        ({"slo_loops": -1}, "slo_loops"),
        ({"slo_percentile": 98}, "slo_percentile must be 50, 90, 95 or 99"),
        ({"precision": 0}, "precision"),
        ({"loads": []}, "loads"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        study.Parameters.from_notebook(PARAMETERS | change)


def test_what_is_stated_are_the_points_of_the_figure() -> None:
    """The machine was slower in the third block: half the rate was the same load, and the same share."""
    measured = trials(
        *(
            {"block": block, "rate": load * speed, "load": load, "latency_p95_s": p95_s, "loop_s": 1 / speed}
            | {"throughput_rps": min(load, 1.0) * speed, "service_mean_s": 1 / speed}
            for block, speed, p95_s in ((1, 10.0, 0.1), (2, 10.0, 0.2), (3, 5.0, 0.8))
            for load in (0.5, 1.2)
        )
    )
    rows = {(row.quantity, row.factors): row for row in study.estimates(measured)}
    assert len(rows) == 10, "five numbers at two loads"
    assert {row.unit for row in rows.values()} == {""}, "no machine's speed is in any of them"
    tail = rows["latency in the sweep, p95 in loops", "load=1.2, topology=single"]
    assert (tail.value, tail.low, tail.high, tail.n) == (2, 1, 4, 3)
    assert not tail.interval.covers, "three blocks are too few"
    share = rows["throughput in the sweep, of the own limit", "load=1.2, topology=single"]
    assert (share.low, share.high) == pytest.approx((1, 1))
    own = rows["own utilisation in the sweep", "load=0.5, topology=single"]
    assert (own.low, own.high) == (0.5, 0.5)
    by_rate = study.estimates(measured.assign(load=float("nan")))
    assert "rate=12, topology=single" in {row.factors for row in by_rate}


def test_chance_that_sends_more_does_not_change_what_a_server_answered_of_its_own_limit() -> None:
    """Of random arrivals, 110 fell due, not 100; it answered 9.5/s, of the 10/s that its loops allow."""
    row = {"rate": 10.0, "planned": 110, "duration_s": 10.0, "arrivals": "poisson", "load": 1.0}
    measured = trials(row | {"throughput_rps": 9.5, "service_mean_s": 0.1, "utilisation": 1.1})
    found = {row.quantity: row.value for row in study.estimates(measured)}
    assert found["throughput in the sweep, of the own limit"] == pytest.approx(0.95)


def test_the_tail_is_at_the_percentile_of_the_search() -> None:
    measured = trials({"load": 0.5, "latency_p99_s": 0.7})
    rows = {row.quantity: row for row in study.estimates(measured, found_rates(slo_percentile=99))}
    assert rows["latency in the sweep, p99 in loops"].value == pytest.approx(7)


def test_no_interval_holds_more_than_all_requests() -> None:
    shares = (0.9, 0.95, 0.98, 0.985, 0.99, 0.999)
    measured = trials(
        *({"block": block, "load": 0.5, "success": share} for block, share in enumerate(shares))
    )
    (found,) = (
        row for row in study.estimates(measured) if row.quantity == "share answered well in the sweep"
    )
    assert found.interval.covers
    assert found.low < 0.9
    assert found.high == 1
