"""The rate sweep: brackets known by hand, and rates that mean the same on any machine."""

import math
from typing import Any

import pandas as pd
import pytest
from helpers.trial_rows import trials
from hypothesis import given, settings
from hypothesis import strategies as st

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
    "slo_loops": 3,
    "blocks": 2,
    "seed": 1,
}
CLUSTER: dict[str, Any] = {"topology": "cluster", "workers": 2}


def _sweep(p99_s: dict[float, float], **common: Any) -> pd.DataFrame:
    return trials(
        *(
            {"rate": rate, "throughput_rps": min(rate, 11.0), "latency_p99_s": latency_s}
            for rate, latency_s in p99_s.items()
        ),
        **common,
    )


def test_the_bracket_is_the_last_rate_that_met_and_the_first_that_missed() -> None:
    both = pd.concat([_sweep({5: 0.1, 10: 0.2, 12: 4.0}), _sweep({10: 0.1, 20: 0.1, 24: 0.2}, **CLUSTER)])
    single, cluster = study.brackets(both, slo_s=0.3).to_dict("records")
    assert (single["server"], single["workers"]) == ("one process", 1)
    assert (single["met_rps"], single["missed_rps"], single["highest_rps"]) == (10, 12, 11)
    assert (cluster["server"], cluster["workers"]) == ("2 workers, round-robin", 2)
    assert cluster["met_rps"] == 24
    assert math.isnan(cluster["missed_rps"]), "every rate met the SLO"


def test_a_lucky_rate_beyond_a_miss_does_not_move_the_bracket() -> None:
    (found,) = study.brackets(_sweep({5: 0.1, 8: 0.9, 10: 0.1}), slo_s=0.3).to_dict("records")
    assert (found["met_rps"], found["missed_rps"]) == (5, 8)


def test_the_slo_itself_still_meets_it() -> None:
    assert study.brackets(_sweep({5: 0.3}), slo_s=0.3)["met_rps"].tolist() == [5]


def test_without_a_rate_within_the_slo_the_bracket_begins_at_0() -> None:
    (found,) = study.brackets(_sweep({5: 0.9, 10: 2.0}), slo_s=0.3).to_dict("records")
    assert (found["met_rps"], found["missed_rps"]) == (0, 5)


def test_lost_requests_miss_the_slo_however_fast_the_others_were() -> None:
    sweep = _sweep({5: 0.1, 10: 0.1})
    assert study.brackets(sweep.assign(success=[1, 0.999]), slo_s=0.3)["met_rps"].tolist() == [10]
    assert study.brackets(sweep.assign(success=[1, 0.998]), slo_s=0.3)["met_rps"].tolist() == [5]


def test_a_trial_without_a_single_answer_misses_the_slo() -> None:
    sweep = _sweep({5: 0.1, 10: math.nan})
    assert study.brackets(sweep, slo_s=0.3)["met_rps"].tolist() == [5]


def test_the_median_over_blocks_decides() -> None:
    blocks = [_sweep({5: 0.1, 10: p99}, block=number) for number, p99 in enumerate([0.1, 0.2, 9.0], start=1)]
    assert study.brackets(pd.concat(blocks), slo_s=0.3)["met_rps"].tolist() == [10]


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(1, 100).map(float), st.floats(0.01, 10), min_size=1),
    st.floats(0.01, 10),
    st.floats(1, 10),
)
def test_a_looser_slo_never_lowers_what_met_it(
    p99_s: dict[float, float], slo_s: float, factor: float
) -> None:
    strict, loose = (study.brackets(_sweep(p99_s), slo)["met_rps"].iloc[0] for slo in (slo_s, factor * slo_s))
    assert 0 <= strict <= loose <= max(p99_s)


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


def test_blocks_of_one_load_are_one_step_whatever_rates_their_calibrations_gave() -> None:
    """The machine was slower in the second block: half the rate was the same load."""
    blocks = [
        {"block": block, "load": load, "rate": load * speed, "latency_p99_s": p99_s}
        for block, speed in ((1, 20.0), (2, 10.0), (3, 10.0))
        for load, p99_s in ((0.5, 0.1), (0.9, 0.2), (1.2, 4.0))
    ]
    (found,) = study.brackets(trials(*blocks), slo_s=0.3).to_dict("records")
    assert (found["met_rps"], found["missed_rps"]) == (9.0, 12.0)
    assert study.loop_s(trials(*blocks)) == pytest.approx(0.1)


def test_the_loop_time_of_a_sweep_of_given_rates_is_the_calibrated_one() -> None:
    assert study.loop_s(trials({"loop_s": 0.1}, {"loop_s": 0.3}, {"loop_s": 0.2})) == pytest.approx(0.2)


def test_the_table_has_a_word_for_no_rate_and_for_none_missed() -> None:
    both = pd.concat([_sweep({5: 0.9}), _sweep({10: 0.1, 20: 0.1, 24: 2.0}, **CLUSTER)])
    brackets = study.brackets(both, slo_s=0.3)
    table = study.bracket_table(brackets)
    assert table["met up to"].tolist() == ["no rate", "20.0/s"]
    assert table["first missed at"].tolist() == ["5.00/s", "24.0/s"]
    assert study.bracket_table(study.brackets(_sweep({5: 0.1}), 0.3))["first missed at"].tolist() == ["–"]
    assert "2 workers, round-robin **up to 20.0/s**" in study.answer(brackets, slo_s=0.3)


def test_nothing_measured_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match="no trial"):
        study.brackets(trials({}).head(0), slo_s=0.3)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"loads": [0.5, 0]}, r"loads\[1\]"),
        ({"arrivals": "posson"}, "arrivals"),
        ({"workers": "all"}, "workers"),
        ({"slo_loops": -1}, "slo_loops"),
        ({"loads": []}, "loads"),
    ],
)
def test_impossible_parameters_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        study.Parameters.from_notebook(PARAMETERS | change)


def test_what_is_stated_are_the_points_of_the_figure() -> None:
    measured = trials(
        *(
            {"block": block, "rate": rate, "load": load, "latency_p99_s": p99_s}
            for block, p99_s in enumerate([0.1, 0.2, 0.4], start=1)
            for rate, load in ((5.0, 0.5), (12.0, 1.2))
        )
    )
    rows = {(row.quantity, row.factors): row for row in study.estimates(measured)}
    assert len(rows) == 8, "four numbers at two loads"
    p99 = rows["latency in the sweep, p99", "load=1.2, topology=single"]
    assert (p99.value, p99.low, p99.high, p99.n, p99.unit) == (0.2, 0.1, 0.4, 3, "s")
    assert not p99.interval.covers, "three blocks are too few"
    by_rate = study.estimates(measured.assign(load=float("nan")))
    assert {row.factors for row in by_rate} == {"rate=5, topology=single", "rate=12, topology=single"}
