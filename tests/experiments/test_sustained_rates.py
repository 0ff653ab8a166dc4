"""Sustained rates as pages state them: known bounds, their ratio, and what is missing or doubtful."""

import math

import pytest
from helpers.trial_rows import found_rates

from lab.experiments import sustained
from lab.models.statistics import Interval


def test_the_answer_is_the_pair_and_how_many_times() -> None:
    text = sustained.answer(found_rates())
    assert text.startswith(
        "**Answer.** One process sustains **9.00/s to 9.50/s**; 2 workers sustain **17.0/s to 18.0/s** "
        "(p95 within 3 times the loop). That is **1.89 times as much** (1.79 to 2.00)."
    )
    assert "90 % to 95 % for one process, 85 % to 90 % for 2 workers" in text
    assert "changed its speed" not in text


def test_a_bound_that_is_missing_is_explained_and_compared_with_nothing() -> None:
    found = found_rates()
    found.loc[0, ["lower_rps", "lower_share", "lower_cpus"]] = math.nan
    found.loc[0, "reason"] = "even 1.00/s is too much: requests fail"
    text = sustained.answer(found)
    assert "For one process, no sustained rate was found: even 1.00/s is too much: requests fail" in text
    assert "times as much" not in text
    assert "nan" not in text
    row = sustained.table(found).iloc[0]
    assert (row["sustained rate"], row["doubts"]) == (
        "less than 9.50/s",
        "even 1.00/s is too much: requests fail",
    )


def test_bounds_that_are_not_confirmed_are_doubted_where_they_stand_and_not_compared() -> None:
    found = found_rates()
    found.loc[1, "reason"] = "others disturbed 5 trials of 17.5/s"
    text = sustained.answer(found)
    assert "2 workers sustain **17.0/s to 18.0/s** (others disturbed 5 trials of 17.5/s)" in text
    assert "times as much" not in text
    assert {"workers=2" in row.factors for row in sustained.estimates("rate-sweep", found)} == {False}


def test_without_an_upper_bound_it_is_at_least_the_lower() -> None:
    found = found_rates(upper_rps=math.nan, upper_share=math.nan, upper_cpus=math.nan, reason="it ended")
    assert "One process sustains **at least 9.00/s**" in sustained.answer(found)
    assert sustained.table(found)["of the own limit"].tolist() == ["at least 90 %", "at least 85 %"]


def test_no_rate_at_all_is_one_sentence() -> None:
    missing = {f"{bound}_{of}": math.nan for bound in ("lower", "upper") for of in ("rps", "share", "cpus")}
    text = sustained.answer(found_rates(**missing, reason="the bounds did not settle"))
    assert text.count("the bounds did not settle") == 2
    assert sustained.title(found_rates(**missing, reason="")) == "No sustained rate was found"
    assert "shares" not in text


def test_a_machine_that_changed_its_speed_is_said() -> None:
    assert "changed its speed during a search" in sustained.answer(found_rates(consistent=False))
    fast = found_rates()
    fast.loc[1, ["lower_cpus", "upper_cpus"]] = [2.9, 3.0]
    assert "more than its workers can: the machine changed its speed" in sustained.answer(fast)


def test_rates_and_shares_are_stated_as_bounds_of_a_search() -> None:
    rows = sustained.estimates("rate-sweep", found_rates())
    assert {row.interval for row in rows} == {Interval.SEARCH}
    shares = [end for row in rows if row.unit == "" for end in (row.low, row.high)]
    assert shares == pytest.approx([0.9, 0.95, 0.85, 0.9])
    assert len({(row.quantity, row.factors) for row in rows}) == 4


def test_a_search_without_a_lower_bound_is_stated_with_its_upper_alone() -> None:
    rows = sustained.estimates("rate-sweep", found_rates(lower_rps=math.nan))
    (row, _) = [row for row in rows if row.unit]
    assert math.isnan(row.low)
    assert row.value == row.high
