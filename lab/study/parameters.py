"""What a notebook lets its reader change: one model per notebook checks it before anything is measured."""

import ast
import difflib
import json
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lab.errors import UsageError
from lab.hotloop import KERNELS
from lab.servers.spec import DISPATCHES, POOLS

_INJECTED = "# Parameters"
"""How the cell starts that papermill puts behind a notebook's own parameters."""


def _number(value: Any) -> Any:
    """Read text as papermill passes it, such as '1e3'; True is no number here."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError("should be a number") from None
    return value


def _sequence(value: Any) -> Any:
    """Read '[1, 2]', which is how `papermill -p` passes a list; a single value is a list of one."""
    if isinstance(value, str) and value.strip().startswith("["):
        return _from_json(value)
    return value if isinstance(value, list | tuple) else [value]


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise ValueError("should be a list such as [1, 2]") from None


def one_of(*choices: str) -> AfterValidator:
    """Allow these words and no others."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"should be one of {', '.join(choices)}")
        return value

    return AfterValidator(check)


Positive = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]
"""A rate, a duration in seconds, or a share: finite and above 0."""

Count = Annotated[int, BeforeValidator(_number), Field(ge=1)]
"""A number of workers, blocks or repetitions: whole, 1 or more."""

Whole = Annotated[int, BeforeValidator(_number), Field(ge=0)]
"""Iterations, or a seed: whole, 0 or more."""

KernelName = Annotated[str, one_of(*KERNELS)]
DispatchName = Annotated[str, one_of(*DISPATCHES)]
PoolName = Annotated[str, one_of(*POOLS)]

Item = TypeVar("Item")
ListOf = Annotated[tuple[Item, ...], BeforeValidator(_sequence)]
"""One or more values, each checked: `ListOf[Positive]`. Add `Field(min_length=1)` where none is wrong."""


class Parameters(BaseModel):
    """The base of a notebook's parameters: a field for each variable that its parameters cell sets."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    @classmethod
    def from_notebook(cls, variables: Mapping[str, Any]) -> Self:
        """Take the parameters from a notebook's `globals()`.

        Raises UsageError, in one line, if one is missing, malformed or out of range, or if papermill was
        given one that the notebook does not have (about which papermill only warns).
        """
        known = cls.model_fields
        for name in _injected_names(variables.get("In", ())):
            if name not in known:
                raise UsageError(_unknown(name, known))
        try:
            return cls(**{name: variables[name] for name in known if name in variables})
        except ValidationError as error:
            raise UsageError("; ".join(_complaints(error))) from None


def _injected_names(cells: Iterable[str]) -> list[str]:
    """Name what the last cell injected by papermill sets; `cells` are the sources that the kernel has run."""
    injected = [source for source in cells if source.startswith(_INJECTED)]
    if not injected:
        return []
    statements = ast.parse(injected[-1]).body
    targets = [target for line in statements if isinstance(line, ast.Assign) for target in line.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _unknown(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"this notebook has {', '.join(known)}"
    return f"unknown parameter {name!r}: {hint}"


def _complaints(error: ValidationError) -> Iterable[str]:
    """Say for each wrong parameter its name, its value, what is wrong, and what to do."""
    for problem in error.errors():
        if not problem["loc"]:  # about several parameters at once
            yield problem["msg"].removeprefix("Value error, ")
            continue
        name, *rest = problem["loc"]
        place = str(name) + "".join(f"[{index}]" for index in rest)
        if problem["type"] == "missing":
            yield f"parameter {name!r} is missing: set it in the notebook's parameters cell"
            continue
        wrong = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        mend = f"mend it in the parameters cell or with -p {name}"
        yield f"parameter {place} = {_short(problem['input'])} {wrong}: {mend}"


def _short(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())
