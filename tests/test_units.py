"""Numbers as people read and write them: by example, and the laws that both directions must keep."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import units
from lab.errors import UsageError
from lab.units import parse_duration, parse_rate

anything = st.floats(1e-5, 9.99e5) | st.floats(-9.99e5, -1e-5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (1, "1.00"),
        (0.9996, "1.00"),
        (9.996, "10.0"),
        (99.95, "100"),
        (123.4, "123"),
        (1234, "1,230"),
        (999_600, "1e+06"),
        (0.001234, "0.00123"),
        (-17.25, "-17.2"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_three_digits(value: float, text: str) -> None:
    assert units.digits(value) == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (8.314, "8.31 s"),
        (0.0872, "87.2 ms"),
        (0.00014, "140 µs"),
        (0.9999, "1.00 s"),
        (0.0009999, "1.00 ms"),
        (75, "75.0 s"),
        (0, "0.00 µs"),
        (-0.0012, "-1.20 ms"),
        (math.nan, "–"),
    ],
)
def test_seconds_take_the_unit_that_fits(value_s: float, text: str) -> None:
    assert units.seconds(value_s) == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [(0.2, "0 s"), (45, "45 s"), (59.6, "1 min 0 s"), (90, "1 min 30 s"), (7500, "2 h 5 min")],
)
def test_long_times_read_like_a_clock(value_s: float, text: str) -> None:
    assert units.clock(value_s) == text


@pytest.mark.parametrize(("rate_rps", "text"), [(11.44, "11.4/s"), (1500, "1,500/s"), (math.nan, "–")])
def test_rates(rate_rps: float, text: str) -> None:
    assert units.per_second(rate_rps) == text


@pytest.mark.parametrize("missing", [None, math.nan])
def test_bounds_say_which_of_them_is_missing(missing: float | None) -> None:
    assert units.bounds(9, 9.5, units.per_second) == "9.00/s to 9.50/s"
    assert units.bounds(9, missing, units.per_second) == "at least 9.00/s"
    assert units.bounds(missing, 0.95, units.percent) == "less than 95 %"
    assert units.bounds(missing, missing, units.percent) == "none found"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.736, "73.6 %"),
        (1, "100 %"),
        (0, "0 %"),
        (1.04, "104 %"),
        (0.9996, "99.9+ %"),
        (0.0004, "<0.1 %"),
        (0.00051, "0.1 %"),
        (-0.0001, "0 %"),
        (math.nan, "–"),
    ],
)
def test_shares(share: float, text: str) -> None:
    assert units.percent(share) == text


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_part_never_reads_as_all_or_as_nothing(share: float) -> None:
    assert units.percent(share) not in ("100 %", "0 %")


def test_counts_agree_with_their_nouns() -> None:
    counts = [units.counted(number, "worker") for number in (0, 1, 1.0, 1.5, 2, 1_234_567)]
    assert counts == ["0 workers", "1 worker", "1 worker", "1.5 workers", "2 workers", "1,234,567 workers"]


@given(anything)
def test_a_written_number_is_within_half_a_percent_and_has_three_digits(value: float) -> None:
    text = units.digits(value)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.005)
    significant = text.replace(",", "").replace(".", "").lstrip("-0")
    assert len(significant) == 3 or (abs(value) >= 999.5 and len(significant) <= 6)


@given(st.floats(1e-8, 1e5))
def test_a_written_time_is_the_time_and_below_a_thousand_of_its_unit(value_s: float) -> None:
    number, unit = units.seconds(value_s).split()
    size_s = {"s": 1, "ms": 1e-3, "µs": 1e-6}[unit]
    written = float(number.replace(",", ""))
    assert written * size_s == pytest.approx(value_s, rel=0.006)
    assert unit == "s" or written < 1000


UNITS_S = {"h": 3600, "m": 60, "min": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", 30),
        ("1m30s", 90),
        ("250ms", 0.25),
        ("2h", 7200),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("100us", 1e-4),
        ("1h1m1s1ms", 3661.001),
        ("30", 30),
        ("0.25", 0.25),
        (" 30s ", 30),
        ("30 s", 30),
        ("1m 30s", 90),
        ("1 min 30 s", 90),
        ("140 µs", 1.4e-4),
        ("1,230 s", 1230),
        (10, 10),
        (0.5, 0.5),
    ],
)
def test_durations_as_people_type_them(text: str | float, expected: float) -> None:
    assert parse_duration(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        ".",
        "30x",
        "30  s",
        "1m 30",
        "٣s",
        True,
        None,
        "-30s",
        "+5s",
        "30s!",
        "1e3s",
        "1..5s",
        "nan",
        "3,5s",
        "30S",
    ],
)
def test_malformed_durations_are_refused_with_an_example(text: Any) -> None:
    with pytest.raises(UsageError, match="write 30s, 1m30s or 250ms"):
        parse_duration(text)


@pytest.mark.parametrize("value", [0, -1, 0.0, math.nan, math.inf, -math.inf, "0", "0s", "0m0s", "9" * 400])
def test_a_duration_is_above_zero_and_finite(value: str | float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        parse_duration(value)


def test_a_duration_of_nothing_is_allowed_where_it_makes_sense() -> None:
    assert [parse_duration(value, zero=True) for value in (0, "0", "0s")] == [0, 0, 0]
    with pytest.raises(UsageError, match="at least 0"):
        parse_duration(-1, zero=True)


@given(st.lists(st.tuples(st.integers(0, 9999), st.sampled_from(list(UNITS_S))), min_size=1, max_size=5))
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    total = sum(number * UNITS_S[unit] for number, unit in parts)
    text = "".join(f"{number}{unit}" for number, unit in parts)
    if total > 0:
        assert parse_duration(text) == pytest.approx(total)
    else:
        with pytest.raises(UsageError):
            parse_duration(text)


@given(st.floats(1e-6, 1e6))
def test_a_number_is_seconds_as_it_stands_or_printed(value: float) -> None:
    assert parse_duration(value) == value
    assert parse_duration(f"{value:.9f}s") == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "expected_rps"),
    [
        ("50", 50),
        ("50/s", 50),
        ("50/1s", 50),
        ("30/m", 0.5),
        ("30/min", 0.5),
        ("7200/h", 2),
        ("1,500/s", 1500),
        ("11.4 / s", 11.4),
        ("1e3", 1000),
        (" .5/s ", 0.5),
        ("0/s", 0),
        (12, 12),
    ],
)
def test_rates_as_people_type_them(text: str | float, expected_rps: float) -> None:
    assert parse_rate(text) == pytest.approx(expected_rps)


@pytest.mark.parametrize(
    "text", ["", "/s", "50/", "50/2s", "50rps", "1,50/s", "-1", "-1/s", "nan", True, None]
)
def test_malformed_rates_are_refused_with_an_example(text: Any) -> None:
    with pytest.raises(UsageError, match="write 50/s or 30/m"):
        parse_rate(text)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "9" * 400])
def test_a_rate_is_finite_and_not_negative(value: str | float) -> None:
    with pytest.raises(UsageError, match="at least 0 and finite"):
        parse_rate(value)


@given(st.floats(1e-8, 9.99e5))
def test_what_we_write_we_read(value: float) -> None:
    assert parse_duration(units.seconds(value)) == pytest.approx(value, rel=0.006)
    assert parse_duration(units.clock(value), zero=True) == pytest.approx(value, abs=60)
    assert parse_rate(units.per_second(value)) == pytest.approx(value, rel=0.006)


@given(st.text(max_size=12))
def test_any_text_is_understood_or_refused_in_one_clear_line(text: str) -> None:
    for parse in (parse_duration, parse_rate):
        assert len(_outcome(parse, text).splitlines()) == 1


def _outcome(parse: Callable[[str], float], text: str) -> str:
    try:
        return str(parse(text))
    except UsageError as error:
        return str(error)


def test_a_number_knows_its_unit_and_reads_as_its_text() -> None:
    found = replace(units.in_seconds(0.1), low=units.in_seconds(0.09), high=units.in_seconds(1.2))
    assert str(found) == "100 ms (90.0 ms to 1.20 s)"
    assert found == "100 ms (90.0 ms to 1.20 s)"
    assert found.units == {"ms", "s"}
    assert units.in_requests(12) == "12.0/s"
    assert units.in_percent(0.9999) == "99.9+ %"
    assert units.in_seconds(math.nan).units == set()
    assert replace(units.plain(1.8), note="1 block") == "1.80 (1 block)"
    assert hash(units.plain(2)) == hash("2.00")


def test_bounds_of_one_unit_have_it_once() -> None:
    assert units.between(0.02, 0.03, units.in_seconds) == "20.0 to 30.0 ms"
    assert units.between(0.02, 3.0, units.in_seconds) == "20.0 ms to 3.00 s"
    assert units.between(9.0, math.nan, units.in_requests) == "at least 9.00/s"
    assert units.between(None, None, units.plain) == "none found"
