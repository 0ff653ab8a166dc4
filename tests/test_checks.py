"""What callers pass: taken, or refused in one line that says which value is wrong, and what it must be."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from lab.checks import Count, Duration, Positive, Rate, Whole, checked
from lab.errors import UsageError


@checked
def wait(
    rate: Rate,
    shares: tuple[Positive, ...] = (),
    lasts: Duration = 1.0,
    workers: Count = 1,
    seed: Whole = 0,
    how: Literal["open", "closed"] = "open",
) -> tuple[Any, ...]:
    """Take everything."""
    return rate, shares, lasts, workers, seed, how


def test_values_are_taken_as_people_write_them() -> None:
    written: Any = {
        "rate": "30/m",
        "shares": ("0.5", 1),
        "lasts": "250ms",
        "workers": "1e3",
        "seed": np.int64(7),
    }
    assert wait(**written) == (0.5, (0.5, 1.0), 0.25, 1000, 7, "open")
    assert wait.__doc__ == "Take everything."


@pytest.mark.parametrize(
    ("arguments", "options", "line"),
    [
        ((0,), {}, "rate must be above 0, got 0"),
        (("fast",), {}, "rate: malformed rate 'fast': write 50/s or 30/m"),
        ((1, (1, -2)), {}, "shares[1] must be above 0, got -2"),
        ((1, (float("nan"),)), {}, "shares[0] must be above 0, got nan"),
        ((1, (float("inf"),)), {}, "shares[0] must be finite, got inf"),
        ((1,), {"lasts": "soon"}, "lasts: malformed duration 'soon': write 30s, 1m30s or 250ms"),
        ((1,), {"workers": 0}, "workers must be at least 1, got 0"),
        ((1,), {"workers": 1.5}, "workers must be a whole number, got 1.5"),
        ((1,), {"workers": True}, "workers must be a number, got True"),
        ((1,), {"workers": "two"}, "workers must be a number, got 'two'"),
        ((1,), {"workers": None}, "workers must be a whole number, got None"),
        (
            (1,),
            {"seed": -1, "workers": 0},
            "workers must be at least 1, got 0; seed must be at least 0, got -1",
        ),
        ((1,), {"how": "shut"}, "how must be 'open' or 'closed', got 'shut'"),
        ((1,), {"wokers": 1}, "there is no wokers: did you mean workers?"),
        ((), {}, "rate is missing"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    arguments: tuple[Any, ...], options: dict[str, Any], line: str
) -> None:
    with pytest.raises(UsageError) as error:
        wait(*arguments, **options)
    assert str(error.value) == line


def test_a_dataclass_is_checked_when_it_is_made() -> None:
    @checked
    @dataclass(frozen=True)
    class Plan:
        rates: tuple[Positive, ...]
        blocks: Count = 2

    assert Plan(("3",), 1.0) == Plan((3.0,), 1)  # type: ignore[arg-type]
    with pytest.raises(
        UsageError, match=r"^rates\[1\] must be above 0, got -1; blocks must be at least 1, got 0$"
    ):
        Plan((1, -1), 0)


def test_a_value_of_any_length_is_shown_in_one_short_line() -> None:
    with pytest.raises(UsageError) as error:
        wait(1, lasts="many\n" * 1000)  # type: ignore[arg-type]
    assert len(str(error.value)) < 120
    assert "\n" not in str(error.value)
