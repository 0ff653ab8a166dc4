"""What a run states: one shape, one name for each number, and contradictions found.

Agreement of two runs: counted by hand, and of simulated runs as often as statistics says.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.models.statistics import Estimate, Interval, estimate, proportion
from lab.study.estimates import (
    COLUMNS,
    Agreement,
    Stated,
    agreement,
    anchored,
    contradictions,
    factors_in_words,
    key_of,
    linked,
    named,
    rows_of,
    stated,
    table_of,
    unlinked,
    written,
)

SIX = estimate([0.9, 1.0, 1.1, 1.2, 1.3, 1.5])


def test_an_estimate_is_a_row_with_its_name_and_interval() -> None:
    row = stated("dispatch", "mean latency over the best", SIX, compares=True, workers=2, dispatch="shared")
    assert row.factors == "dispatch=shared, workers=2"
    assert row.value == pytest.approx(1.15)
    assert (row.low, row.high, row.n) == (SIX.low, SIX.high, 6)
    assert row.interval is Interval.MEDIAN
    assert row.smallest_told == pytest.approx(SIX.high / 1.15 - 1)
    assert stated("dispatch", "latency", SIX, "s").smallest_told is None, "it compares nothing"


def test_an_estimate_names_its_sources_once_and_has_a_key_that_its_machine_does_not_change() -> None:
    row = stated("dispatch", "latency", SIX, sources=["d.b01.a", "d.b01.b", "d.b01.a"], workers=2)
    assert row.sources == ("d.b01.a", "d.b01.b")
    assert row.key == key_of("latency", workers=2)
    assert replace(row, factors="workers=2, loop=1000").key == row.key
    assert key_of("latency", workers=4) != row.key
    link = linked("1.15", "latency", workers=2)
    assert link == anchored("1.15", row.key) == f"[1.15](#estimate-{row.key})"
    assert unlinked(f"**{link} times** (1.10 to [1.20])") == "**1.15 times** (1.10 to [1.20])"
    assert anchored("1.15", "") == "1.15"
    assert table_of([row])["sources"].tolist() == [["d.b01.a", "d.b01.b"]]


def test_the_name_of_factors_does_not_depend_on_their_order() -> None:
    assert named(workers=2, load=0.5) == named(load=0.50, workers=2) == "load=0.5, workers=2"
    assert named() == ""


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        (named(topology="single", workers=1, loop=117649), "one process, loop of 117,649 iterations"),
        (named(topology="cluster", workers=2, dispatch="shared", load=0.6), "2 workers, shared, load 0.6"),
        (named(topology="single", duration="250 ms"), "one process, offered for 250 ms"),
        (named(workers=1, arrangement="least-busy, bound 2"), "1 worker, least-busy, bound 2"),
        (named(slo="p95 within 3 times the loop, steady", arrivals="poisson"),
         "random arrivals, p95 within 3 times the loop, steady"),
        (named(quota=0.5, connections="kept"), "kept connections, quota of 0.5 CPUs"),
        (named(quota="1 CPU", cheese="old", workers="many"), "many workers, quota of 1 CPU, cheese old"),
        ("", ""),
        ("no factors", ""),
    ],
)  # fmt: skip
def test_factors_are_written_as_people_do(factors: str, words: str) -> None:
    assert factors_in_words(factors) == words


def test_a_table_has_its_columns_whatever_is_in_it() -> None:
    assert list(table_of([]).columns) == list(COLUMNS)
    rows = [stated("a", "share", proportion(19, 20)), stated("a", "time", estimate([1.0, 2.0]), "s")]
    table = table_of(rows)
    assert table["interval"].tolist() == ["Clopper-Pearson", "range, too few for an interval"]
    assert table.dtypes.equals(table_of([]).astype(table.dtypes).dtypes)


def test_the_rows_of_a_table_are_the_estimates_that_it_was_made_of() -> None:
    rows = [stated("a", "share", proportion(19, 20), sources=["a.b01.x", "t"]), stated("a", "b", SIX, "s")]
    pd.testing.assert_frame_equal(table_of(rows_of(table_of(rows))), table_of(rows))
    assert [(row.interval, row.sources) for row in rows_of(table_of(rows))] == [
        (Interval.PROPORTION, ("a.b01.x", "t")),
        (Interval.MEDIAN, ()),
    ]
    assert rows_of(table_of([])) == []


def test_a_count_is_written_to_the_last_one() -> None:
    assert (written(30_012, "machines"), written(4, "workers")) == ("30,012", "4")
    assert (written(30_012, "requests/s"), written(4, "")) == ("30,000", "4.00")
    assert written(math.nan, "workers") == "–"


def test_what_has_no_value_is_not_stated() -> None:
    nothing = stated("a", "share", estimate([1.0]))
    assert table_of([nothing, stated("a", "b", SIX)])["quantity"].tolist() == ["share", "b"]
    without = pd.DataFrame([vars(nothing)]).assign(value=math.nan)
    assert table_of([type(nothing)(**without.iloc[0])]).empty


def test_one_quantity_with_two_values_is_a_contradiction() -> None:
    one = stated("scaling", "speed-up", estimate([1.8, 1.9]), workers=2)
    other = stated("summary", "speed-up", estimate([2.0, 2.1]), workers=2)
    elsewhere = stated("summary", "speed-up", estimate([2.0, 2.1]), workers=4)
    again = stated("summary", "speed-up", estimate([1.8, 1.9]), workers=2)
    assert contradictions(table_of([one, elsewhere, again])).empty
    found = contradictions(table_of([one, other, elsewhere]))
    assert found["experiment"].tolist() == ["scaling", "summary"]
    assert set(found["factors"]) == {"workers=2"}


def _row(value: float, low: float, high: float, interval: Interval = Interval.MEDIAN, **name: Any) -> Stated:
    name = {"experiment": "scaling", "quantity": "speed-up"} | name
    return stated(
        name.pop("experiment"), name.pop("quantity"), Estimate(value, low, high, 6, interval), **name
    )


def _agreement(one: list[Stated], other: list[Stated]) -> Agreement:
    return agreement(table_of(one), table_of(other))


def test_pairs_are_counted_by_experiment_and_in_all() -> None:
    found = _agreement(
        [
            _row(1.9, 1.8, 2.0, workers=2),
            _row(1.9, 1.8, 2.0, workers=4),
            _row(1.0, 0.9, 1.1, experiment="dispatch"),
            _row(5.0, 4.0, 6.0, quantity="only in one"),
        ],
        [
            _row(1.85, 1.7, 1.88, workers=2),
            _row(2.2, 2.1, 2.3, workers=4),
            _row(1.05, 1.0, 1.2, experiment="dispatch"),
        ],
    )
    expected = [("scaling", 2, 1, 1), ("dispatch", 1, 1, 2), ("all", 3, 2, 3)]
    counts = found.counts[["experiment", "both", "overlap", "held"]]
    assert list(counts.itertuples(index=False, name=None)) == expected
    assert found.apart["factors"].tolist() == ["workers=4"]
    assert found.misses() == [
        "66.7% of the intervals overlap, fewer than 95%",
        "50.0% of the intervals hold the other's value, fewer than 80%",
    ]


def test_ranges_say_nothing_and_bounds_of_a_search_are_counted_by_themselves() -> None:
    one = [
        _row(1.0, 1.0, 1.1, Interval.RANGE, quantity="of three"),
        _row(0.97, 0.97, 1.0, Interval.SEARCH, quantity="sustained", server="one"),
        _row(0.97, 0.97, 1.0, Interval.SEARCH, quantity="sustained", server="two"),
        _row(0.97, 0.97, math.nan, Interval.SEARCH, quantity="sustained", server="three"),
    ]
    other = [
        _row(2.0, 2.0, 2.1, quantity="of three"),
        _row(0.99, 0.99, 1.02, Interval.SEARCH, quantity="sustained", server="one"),
        _row(0.85, 0.85, 0.9, Interval.SEARCH, quantity="sustained", server="two"),
        _row(3.0, 3.0, 3.1, Interval.SEARCH, quantity="sustained", server="three"),
    ]
    found = _agreement(one, other)
    assert found.counts.iloc[-1].to_dict() == {
        "experiment": "all", "both": 0, "overlap": 0, "held": 0, "searches": 3, "disjoint": 1,
        "absolute": 0, "changed": 0, "ranges": 1,
    }  # fmt: skip
    assert found.apart["factors"].tolist() == ["server=two"]
    assert "no interval in common" in found.misses()[0]
    enough = [_row(1.0, 0.9, 1.1, experiment="dispatch")]
    assert _agreement(one + enough, other + enough).misses() == ["1 of 3 bounds of a search are disjoint"]


def test_what_has_the_speed_of_the_machine_in_it_is_counted_but_not_held_against_a_run() -> None:
    alike = [_row(1.0, 0.9, 1.1)]
    one = [
        _row(70.0, 69.0, 71.0, quantity="throughput", unit="requests/s"),
        _row(0.5, 0.4, 0.6, quantity="until served", unit="s"),
        _row(65.0, 64.0, 66.0, Interval.SEARCH, quantity="sustained", unit="requests/s"),
    ]
    other = [
        _row(35.0, 34.0, 36.0, quantity="throughput", unit="requests/s"),
        _row(0.5, 0.4, 0.6, quantity="until served", unit="s"),
        _row(32.0, 31.0, 33.0, Interval.SEARCH, quantity="sustained", unit="requests/s"),
    ]
    found = _agreement(alike + one, alike + other)
    total = found.counts.iloc[-1]
    assert (total["both"], total["searches"], total["absolute"], total["changed"]) == (1, 0, 3, 2)
    assert found.apart["quantity"].tolist() == ["throughput", "sustained"]
    assert not found.misses()


def test_runs_that_state_nothing_in_common_do_not_agree() -> None:
    nothing = _agreement([], [_row(1.0, 0.9, 1.1)])
    assert nothing.pairs.empty
    assert nothing.misses()


def test_a_number_in_another_unit_is_another_number() -> None:
    (row,) = [_row(1.0, 0.9, 1.1)]
    assert _agreement([row], [replace(row, unit="s")]).counts["both"].tolist() == [0]


rows = st.lists(
    st.tuples(st.floats(0.1, 10), st.floats(0, 1), st.floats(0, 1), st.sampled_from(Interval)), max_size=8
)


def _any(drawn: list[tuple[float, float, float, Interval]]) -> list[Stated]:
    return [
        _row(value, value - below, value + above, interval, workers=number)
        for number, (value, below, above, interval) in enumerate(drawn, 1)
    ]


@settings(max_examples=15)
@given(rows, rows)
def test_agreement_is_mutual_and_a_run_agrees_with_itself(one: Any, other: Any) -> None:
    forth, back = _agreement(_any(one), _any(other)), _agreement(_any(other), _any(one))
    pd.testing.assert_frame_equal(forth.counts, back.counts)
    *experiments, total = forth.counts.to_dict("records")
    for column in ("both", "overlap", "held", "searches", "disjoint", "absolute", "changed", "ranges"):
        assert sum(row[column] for row in experiments) == total[column]
    assert total["overlap"] <= total["both"]
    assert total["held"] <= 2 * total["overlap"], "a value that is held lies in both"
    itself = _agreement(_any(one), _any(one))
    assert itself.apart.empty
    assert itself.counts.iloc[-1]["held"] == 2 * itself.counts.iloc[-1]["both"]


@pytest.mark.parametrize(("blocks", "shift", "agree"), [(7, 1.0, True), (7, 1.3, False), (12, 1.0, True)])
def test_runs_agree_if_only_chance_is_between_them(blocks: int, shift: float, agree: bool) -> None:
    """Three hundred numbers of each run: honest intervals pass both bars, a machine 30 % slower neither."""
    random = np.random.default_rng(8)

    def measured(middle: float) -> list[Stated]:
        return [
            stated("scaling", "ratio", estimate(middle * random.lognormal(0, 0.1, blocks)), number=number)
            for number in range(300)
        ]

    assert (not _agreement(measured(1.0), measured(shift)).misses()) is agree
