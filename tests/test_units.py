"""Numbers for readers: by example, and the laws that three digits and a unit must keep."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import units

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


@pytest.mark.parametrize(("rate_rps", "text"), [(11.44, "11.4/s"), (1500, "1,500/s"), (math.nan, "–")])
def test_rates(rate_rps: float, text: str) -> None:
    assert units.per_second(rate_rps) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.736, "73.6 %"), (1, "100 %"), (0, "0 %"), (1.04, "104 %"), (math.nan, "–")]
)
def test_shares(share: float, text: str) -> None:
    assert units.percent(share) == text


@given(st.floats(0, 1, exclude_max=True))
def test_what_is_less_than_all_never_reads_100_percent(share: float) -> None:
    assert units.percent(share) != "100 %"


def test_counts_agree_with_their_nouns() -> None:
    counts = [units.counted(number, "worker") for number in (0, 1, 1.0, 1.5, 2, 1_234_567)]
    assert counts == ["0 workers", "1 worker", "1 worker", "1.5 workers", "2 workers", "1234567 workers"]


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
