"""What a notebook's reader may change: one model per notebook checks it before anything is measured."""

import ast
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from lab import files
from lab.cards import Card, Shown, listed
from lab.checks import Before, Count, complaint
from lab.errors import UsageError
from lab.servers.spec import MOST_WORKERS_PER_CPU, most_workers
from lab.study import manifest as manifests

_INJECTED = "# Parameters"
"""The start of the cell that papermill puts after a notebook's own parameters."""


def _sequence(value: Any) -> Any:
    """Read '[1, 2]', which is how `papermill -p` passes a list; a single value is a list of one."""
    if isinstance(value, str) and value.strip().startswith("["):
        return _from_json(value)
    return value if isinstance(value, list | tuple) else [value]


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise ValueError("must be a list such as [1, 2]") from None


_ADVICE = ": set it in the parameters cell or with {option} {name}"


def startable(count: int) -> int:
    """Return a number of workers that a server may have here. Raises ValueError for more."""
    if count > most_workers():
        raise ValueError(f"must be at most {most_workers()} here, {MOST_WORKERS_PER_CPU} per CPU")
    return count


WorkerCount = Annotated[Count, AfterValidator(startable)]
"""A number of workers that a server starts with."""


def _measured_here(run_id: str) -> str:
    """Return the name of a run. Raises UsageError for one of another machine, before its figures change."""
    folder = files.data() / files.named(run_id or manifests.NEW)
    is_known = (folder / manifests.NAME).exists()
    if difference := is_known and manifests.other_machine(manifests.read_manifest(folder)):
        raise UsageError(f"nothing can be added to run {run_id}: {difference}; begin a new run")
    return run_id


RunToAddTo = Annotated[str, AfterValidator(_measured_here)]
"""The run of a notebook that measures: "" for today's, `new` for another, or one of this machine by name."""

Item = TypeVar("Item")
ListOf = Annotated[tuple[Item, ...], Before(_sequence)]
"""Values, each checked: `ListOf[Positive]`. Add `Field(min_length=1)` to require at least one."""


def _distinct(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(values)) < len(values):
        raise ValueError("must list each number once")
    return values


DistinctOf = Annotated[tuple[Item, ...], Before(_sequence), AfterValidator(_distinct)]
"""Numbers that all differ."""


class Parameters(Shown, BaseModel):
    """The base of a notebook's parameters: a field for each variable that its parameters cell sets."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def _card(self) -> Card:
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return Card("Parameters", {name: _written(value) for name, value in values.items()})

    @classmethod
    def from_notebook(cls, variables: Mapping[str, Any]) -> Self:
        """Take the parameters from a notebook's `globals()`.

        Raises UsageError, in one line that says where to fix it, if one is missing, malformed or out of
        range, or if papermill gave one that the notebook does not have (papermill itself only warns).
        """
        given = _injected_names(variables.get("In", ()))
        return cls._checked({name: variables[name] for name in cls.model_fields if name in variables}, given)

    @classmethod
    def from_batch(cls, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Self:
        """Check what a batch gives to a notebook with these defaults. Raises UsageError, in one line."""
        return cls._checked({**defaults, **given}, given, advice="")

    @classmethod
    def _checked(cls, values: Mapping[str, Any], given: Iterable[str], advice: str = _ADVICE) -> Self:
        for name in given:
            if name not in cls.model_fields:
                raise UsageError(_unknown(name, cls.model_fields))
        try:
            return cls(**values)
        except ValidationError as error:
            raise UsageError("; ".join(_complaint(each, advice) for each in error.errors())) from None


def _written(value: Any) -> str:
    """Write a value as its reader would: a list by its values, nothing as a dash."""
    return listed(value) if isinstance(value, list | tuple) else str(value) or listed(())


def _injected_names(cells: Iterable[str]) -> list[str]:
    """Name what the last cell injected by papermill sets; `cells` are the sources that the kernel ran."""
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


def _complaint(problem: ErrorDetails, advice: str) -> str:
    """Say which parameter is wrong, what it must be, what it was, and what to do."""
    said = complaint(problem)
    option = "-r" if problem["type"] == "string_type" else "-p"  # papermill reads -p run 007 as 7
    return f"parameter {said}{advice.format(option=option, name=problem['loc'][0])}"
