"""What a run states: one shape, one name for each number, and contradictions found."""

import math

import pandas as pd
import pytest

from lab.models.statistics import Interval, estimate, proportion
from lab.study.estimates import COLUMNS, contradictions, named, stated, table_of

SIX = estimate([0.9, 1.0, 1.1, 1.2, 1.3, 1.5])


def test_an_estimate_is_a_row_with_its_name_and_interval() -> None:
    row = stated("dispatch", "mean latency over the best", SIX, compares=True, workers=2, dispatch="shared")
    assert row.factors == "dispatch=shared, workers=2"
    assert row.value == pytest.approx(1.15)
    assert (row.low, row.high, row.n) == (0.9, 1.5, 6)
    assert row.interval is Interval.MEDIAN
    assert row.smallest_told == pytest.approx(1.5 / 1.15 - 1)
    assert stated("dispatch", "latency", SIX, "s").smallest_told is None, "it compares nothing"


def test_the_name_of_factors_does_not_depend_on_their_order() -> None:
    assert named(workers=2, load=0.5) == named(load=0.50, workers=2) == "load=0.5, workers=2"
    assert named() == ""


def test_a_table_has_its_columns_whatever_is_in_it() -> None:
    assert list(table_of([]).columns) == list(COLUMNS)
    rows = [stated("a", "share", proportion(19, 20)), stated("a", "time", estimate([1.0, 2.0]), "s")]
    table = table_of(rows)
    assert table["interval"].tolist() == ["Clopper-Pearson", "range, too few for an interval"]
    assert table.dtypes.equals(table_of([]).astype(table.dtypes).dtypes)


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
