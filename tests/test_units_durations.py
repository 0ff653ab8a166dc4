"""Durations as people type them, and the slips that are refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.units import parse_duration

UNITS_S = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6}


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
        (10, 10),
        (0.5, 0.5),
    ],
)
def test_what_people_type(text: str | float, expected: float) -> None:
    assert parse_duration(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        ".",
        "30x",
        "30 s",
        "1m 30s",
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
def test_malformed_durations_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="write 30s, 1m30s or 250ms"):
        parse_duration(text)


@pytest.mark.parametrize("value", [0, -1, 0.0, math.nan, math.inf, -math.inf, "0", "0s", "0m0s"])
def test_a_duration_is_above_zero_and_finite(value: str | float) -> None:
    with pytest.raises(UsageError, match="above zero"):
        parse_duration(value)


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


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_one_clear_line(text: str) -> None:
    assert len(_outcome(text).splitlines()) == 1


def _outcome(text: str) -> str:
    try:
        return str(parse_duration(text))
    except UsageError as error:
        return str(error)
