"""What callers may pass, checked by pydantic: types for numbers, and each complaint in one line."""

import difflib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from reprlib import repr
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from annotated_types import Ge, Gt, Le

from lab.errors import UsageError
from lab.units import parse_duration, parse_rate

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, ValidationError
    from pydantic_core import CoreSchema, ErrorDetails

Checked = TypeVar("Checked", bound=Callable[..., Any])


@dataclass(frozen=True)
class Before:
    """What pydantic's BeforeValidator does; a process that checks nothing need not import pydantic for it."""

    read: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        """Have values read before they are checked."""
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.read, handler(source))


def number(value: Any) -> Any:
    """Read text as papermill passes it, such as '1e3'; True is not a number here."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError("must be a number") from None
    return value


def _finite(value: Any) -> Any:
    value = number(value)
    if value == math.inf:
        raise ValueError("must be finite")
    return value


Positive = Annotated[float, Before(_finite), Gt(0)]
"""A rate, a duration in seconds, or a share: finite and above 0."""

Count = Annotated[int, Before(number), Ge(1)]
"""A number of workers, blocks or repetitions: whole, at least 1."""

Whole = Annotated[int, Before(number), Ge(0)]
"""Iterations, or a seed: whole, at least 0."""

Rate = Annotated[float, Before(parse_rate), Gt(0)]
"""Requests per second, as a number or a text such as 30/m: above 0."""

Duration = Annotated[float, Before(parse_duration)]
"""Seconds, as a number or a text such as 250ms: above 0."""


A_DAY_S = 86_400

Seconds = Annotated[Positive, Le(A_DAY_S)]
"""How long something lasts or is waited for: over a day would be a slip, and more than timers take."""


def checked(made: Checked) -> Checked:
    """Check the arguments of a function, or of a dataclass, against the annotations.

    Arguments that do not fit raise a one-line UsageError.
    """
    if isinstance(made, type):
        made.__init__ = checked(made.__init__)  # type: ignore[misc]
        return made
    names = list(inspect.signature(made).parameters)

    @cache
    def checking() -> Callable[..., Any]:
        from pydantic import validate_call

        return validate_call(made)

    @wraps(made)
    def check(*args: Any, **kwargs: Any) -> Any:
        from pydantic import ValidationError

        try:
            return checking()(*args, **kwargs)
        except ValidationError as error:
            raise UsageError("; ".join(complaints(error, names))) from None

    return cast(Checked, check)


def complaints(error: "ValidationError", names: list[str] | None = None) -> list[str]:
    """Say of each wrong value where it is, what it must be, and what it was.

    `names` are those of parameters, which pydantic knows by position.
    """
    return [complaint(problem, names) for problem in error.errors(include_url=False)]


_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
_WRONG = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "too_short": "must list at least {min_length}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be True or False"),
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "value_error": "{error}",
}


def complaint(problem: "ErrorDetails", names: list[str] | None = None) -> str:
    """Return one of pydantic's complaints, such as: generators must be at least 1, got 0."""
    kind, place = problem["type"], _place(problem["loc"], names or [])
    if kind in _MISSING:
        return f"{place} is missing"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown(place, names or [])
    said = problem["msg"].replace("Input should be", "must be")
    wrong = _WRONG.get(kind, "{said}").format(said=said, **problem.get("ctx", {}))
    if not wrong.startswith("must "):
        return f"{place}: {wrong}" if place else wrong
    return f"{place} {wrong}, got {repr(problem['input'])}".strip()


def _unknown(name: str, names: list[str]) -> str:
    """Say that there is no such name, and which one was probably meant, or which ones exist."""
    known = [known for known in names if known != "self"]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f": did you mean {nearest[0]}?" if nearest else f": there are {', '.join(known)}" if known else ""
    return f"there is no {name}{hint}"


def _place(location: tuple[int | str, ...], names: list[str]) -> str:
    """Write where a value is: rates[1]."""
    first, *rest = location or ("",)
    name = names[first] if isinstance(first, int) and first < len(names) else str(first)
    return name + "".join(f"[{index}]" for index in rest if isinstance(index, int))
