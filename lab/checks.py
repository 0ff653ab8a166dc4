"""What callers may pass, checked by pydantic: types for numbers, and its complaints as one line each."""

import difflib
import inspect
from collections.abc import Callable
from functools import wraps
from reprlib import repr
from typing import Annotated, Any, TypeVar, cast

from pydantic import BeforeValidator, Field, ValidationError, validate_call
from pydantic_core import ErrorDetails

from lab.errors import UsageError
from lab.units import parse_duration, parse_rate

Checked = TypeVar("Checked", bound=Callable[..., Any])


def _number(value: Any) -> Any:
    """Read text as papermill passes it, such as '1e3'; True is no number here."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError("must be a number") from None
    return value


Positive = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]
"""A rate, a duration in seconds, or a share: finite and above 0."""

Count = Annotated[int, BeforeValidator(_number), Field(ge=1)]
"""A number of workers, blocks or repetitions: whole, 1 or more."""

Whole = Annotated[int, BeforeValidator(_number), Field(ge=0)]
"""Iterations, or a seed: whole, 0 or more."""

Rate = Annotated[float, BeforeValidator(parse_rate), Field(gt=0)]
"""Requests per second, as a number or a text such as 30/m: above 0."""

Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds, as a number or a text such as 250ms: above 0."""


def checked(made: Checked) -> Checked:
    """Check what a function is called with, or a dataclass made of, against the annotations.

    What does not fit raises a UsageError of one line.
    """
    if isinstance(made, type):
        made.__init__ = checked(made.__init__)  # type: ignore[misc]
        return made
    call, names = validate_call(made), list(inspect.signature(made).parameters)

    @wraps(made)
    def check(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except ValidationError as error:
            raise UsageError("; ".join(complaints(error, names))) from None

    return cast(Checked, check)


def complaints(error: ValidationError, names: list[str] | None = None) -> list[str]:
    """Say of each value that is wrong where it stands, what it must be, and what it is.

    `names` are those of parameters, which pydantic knows by their position.
    """
    return [complaint(problem, names) for problem in error.errors(include_url=False)]


_ABOUT_NAMES = {
    **dict.fromkeys(("missing", "missing_argument", "missing_keyword_only_argument"), "{} is missing"),
}
_WRONG = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "finite_number": "must be finite",
    "too_short": "must list at least {min_length}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be True or False"),
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "value_error": "{error}",
}


def complaint(problem: ErrorDetails, names: list[str] | None = None) -> str:
    """Return one of pydantic's complaints, such as: generators must be at least 1, got 0."""
    kind, place = problem["type"], _place(problem["loc"], names or [])
    if kind in _ABOUT_NAMES:
        return _ABOUT_NAMES[kind].format(place)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown(place, names or [])
    said = problem["msg"].replace("Input should be", "must be")
    wrong = _WRONG.get(kind, "{said}").format(said=said, **problem.get("ctx", {}))
    if not wrong.startswith("must "):
        return f"{place}: {wrong}" if place else wrong
    return f"{place} {wrong}, got {repr(problem['input'])}".strip()


def _unknown(name: str, names: list[str]) -> str:
    """Say that there is no such name, and which one was probably meant, or which there are."""
    known = [known for known in names if known != "self"]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f": did you mean {nearest[0]}?" if nearest else f": there are {', '.join(known)}" if known else ""
    return f"there is no {name}{hint}"


def _place(location: tuple[int | str, ...], names: list[str]) -> str:
    """Write where a value stands: rates[1]."""
    first, *rest = location or ("",)
    name = names[first] if isinstance(first, int) and first < len(names) else str(first)
    return name + "".join(f"[{index}]" for index in rest if isinstance(index, int))
