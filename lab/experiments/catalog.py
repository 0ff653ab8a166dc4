"""The notebooks as they are planned: their order, their profiles and parameters, and how long each takes."""

import ast
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from lab import files
from lab.errors import LabError, UsageError

SUMMARY = "00-summary"
"""The notebook to read first; it runs last, because it only reads what the others measured."""


def notebooks() -> list[str]:
    """Name the notebooks in running order."""
    names = sorted(path.stem for path in files.notebooks().glob("[0-9][0-9]-*.ipynb"))
    return [name for name in names if name != SUMMARY] + [SUMMARY]


def select(wanted: Sequence[str], profile: str = "") -> list[str]:
    """Return the notebooks meant by names such as 02-single-vs-cluster, or 02.

    None means all; of a profile, those that it has a file for, and the summary. Raises UsageError for a name
    that no notebook has.
    """
    known = notebooks()
    chosen = {name for want in wanted for name in matching(want, known)}
    if wanted or not profile:
        return [name for name in known if not wanted or name in chosen]
    return [name for name in known if name == SUMMARY or _file_of(profile, name).exists()]


def matching(want: str, known: list[str]) -> list[str]:
    """Return the one notebook of `known` that a name means. Raises UsageError if there is none."""
    names = [name for name in known if want.removesuffix(".ipynb") in (name, name[:2], name[3:])]
    if not names:
        raise UsageError(f"there is no notebook {want!r}: choose one of {', '.join(sorted(known))}")
    return names


USUAL = "quick"
"""The profile of who names none."""


def profiles() -> list[str]:
    """Name the profiles."""
    return sorted(path.name for path in (files.notebooks() / "profiles").iterdir() if path.is_dir())


def _file_of(profile: str, notebook: str) -> Path:
    return files.notebooks() / "profiles" / profile / f"{notebook}.yaml"


def profile_parameters(profile: str, notebook: str) -> dict[str, Any]:
    """Return what a profile sets for a notebook; anything else keeps the notebook's default."""
    if not (path := _file_of(profile, notebook)).exists():
        return {}
    try:
        parameters = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError:
        parameters = None
    if not isinstance(parameters, dict):
        raise LabError(f"{path} must hold one parameter per line, such as `rate: 20.0`")
    return parameters


def checked_parameters(
    profile: str, names: Sequence[str], changes: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return what to set for each notebook: what the profile says, then the changes.

    Raises UsageError, before anything is measured, for a value that the notebook would refuse.
    """
    found = {}
    for name in names:
        found[name] = profile_parameters(profile, name) | dict(changes.get(name, {}))
        module = import_module(f"lab.experiments.{name[3:].replace('-', '_')}")
        try:
            module.Parameters.from_batch(defaults(name), found[name])
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
    return found


def within(
    budget_s: float, profile: str, names: Sequence[str], changed: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], str]:
    """Return what to set for each notebook so that all fit the budget, what of it the profile does not say,
    and in words what was cut.

    Raises UsageError, in one line, if a change is refused or if nothing fits.
    """
    from lab.experiments import forecast  # takes a second to import, in which a wrong name is told

    whole = checked_parameters(profile, names, changed)
    least = checked_parameters(USUAL, names, changed) if profile == "full" else whole
    settings, cut = forecast.fitted(whole, least, lasts_s, budget_s)
    beyond: dict[str, dict[str, Any]] = {}
    for name, values in settings.items():
        usual = defaults(name) | profile_parameters(profile, name)
        other = {key: value for key, value in (defaults(name) | values).items() if usual[key] != value}
        own = dict(changed.get(name, {})) | other
        beyond |= {name: own} if own else {}
    return settings, beyond, cut


def lasts_s(notebook: str, parameters: Mapping[str, Any]) -> float:
    """Return the seconds that a notebook will take with these changes of its defaults."""
    from lab.experiments import forecast

    return forecast.of(notebook, defaults(notebook) | dict(parameters))


def measures(notebook: str) -> bool:
    """Say whether a notebook measures anything, or only reads runs."""
    from lab.experiments import forecast

    return forecast.measures(notebook)


def cells(notebook: str) -> list[dict[str, Any]]:
    """Return the cells of a notebook, as its file has them."""
    found: list[dict[str, Any]] = json.loads((files.notebooks() / f"{notebook}.ipynb").read_bytes())["cells"]
    return found


def defaults(notebook: str) -> dict[str, Any]:
    """Read the values that a notebook's parameters cell sets."""
    (cell,) = [cell for cell in cells(notebook) if "parameters" in cell["metadata"].get("tags", ())]
    lines = ast.parse("".join(cell["source"])).body
    return {
        line.target.id: ast.literal_eval(line.value)
        for line in lines
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value
    }
