"""The notebooks as committed: stripped, thin, with parameters that papermill, models and profiles share."""

import ast
import importlib
import re
import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import nbformat
import papermill
import pytest
import yaml

from lab import files
from lab.errors import UsageError
from lab.experiments import catalog
from lab.servers.spec import DispatchName
from lab.study.archive import export_run, import_run
from lab.study.parameters import Parameters
from lab.study.runs import open_run

NAMES = catalog.notebooks()
PROFILES = sorted((files.notebooks() / "profiles").glob("*/*.yaml"))

every_notebook = pytest.mark.parametrize("name", NAMES)

PLAYGROUND = "playground"
"""A notebook that measures nothing to keep: no part of a study."""

every_notebook_and_the_playground = pytest.mark.parametrize("name", [*NAMES, PLAYGROUND])
every_profile = pytest.mark.parametrize("path", PROFILES, ids=lambda path: f"{path.parent.name}-{path.stem}")


def _path(name: str) -> Path:
    return files.notebooks() / f"{name}.ipynb"


@cache
def _notebook(name: str) -> Any:
    return nbformat.read(_path(name), as_version=4)


@cache
def _inspected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = papermill.inspect_notebook(str(_path(name)))
    return found


def _cells(name: str, kind: str = "") -> list[Any]:
    return [cell for cell in _notebook(name).cells if kind in ("", cell.cell_type)]


def _parameters_cell(name: str) -> str:
    (cell,) = [cell for cell in _cells(name) if "parameters" in cell.metadata.get("tags", ())]
    return str(cell.source)


def _defaults(name: str) -> dict[str, Any]:
    """Read the defaults as papermill's inspection gives them."""
    return {parameter: ast.literal_eval(about["default"]) for parameter, about in _inspected(name).items()}


def _model(name: str) -> type[Parameters]:
    """Find the model of a notebook's parameters: 04-worker-scaling's is in lab.experiments.worker_scaling."""
    place = "lab.playground" if name == PLAYGROUND else f"lab.experiments.{name[3:].replace('-', '_')}"
    module = importlib.import_module(place)
    model: type[Parameters] = module.Parameters
    return model


def _calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    for cell in _cells(name, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func), node


@every_notebook_and_the_playground
def test_it_is_valid_stripped_and_for_any_python(name: str) -> None:
    notebook = _notebook(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in _cells(name, "code"):
        assert cell.outputs == []
        assert cell.execution_count is None


@every_notebook_and_the_playground
def test_cells_are_short(name: str) -> None:
    lengths = [len(cell.source.splitlines()) for cell in _cells(name, "code")]
    assert 2 <= statistics.median(lengths) <= 4
    assert min(lengths) >= 1
    assert max(lengths) <= 20


@every_notebook_and_the_playground
def test_prose_leads_through_the_code(name: str) -> None:
    cells = _cells(name)
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert cells[0].source.splitlines()[0].endswith("?"), "a notebook is one question"
    assert len(_cells(name, "code")) <= 2 * len(_cells(name, "markdown"))
    in_a_row = [len(list(run)) for kind, run in groupby(cell.cell_type for cell in cells) if kind == "code"]
    assert max(in_a_row) <= 4


@every_notebook
def test_every_figure_and_table_has_a_caption(name: str) -> None:
    shown = [call for function, call in _calls(name) if function in ("lab.show", "lab.table")]
    assert shown
    for call in shown:
        captions = [keyword.value for keyword in call.keywords if keyword.arg == "caption"]
        assert len(captions) == 1, f"no caption: {ast.unparse(call)}"
        assert ast.unparse(captions[0]).strip("f'\""), f"empty caption: {ast.unparse(call)}"


@pytest.mark.parametrize("name", [name for name in NAMES if name != catalog.SUMMARY])
def test_a_measuring_notebook_exports_its_figure_and_answers(name: str) -> None:
    saved = [
        ast.unparse(word.value) for _, call in _calls(name) for word in call.keywords if word.arg == "save_as"
    ]
    assert saved
    assert all(place.startswith("run.figures / ") for place in saved)
    assert len(set(saved)) == len(saved), "one figure would replace the other"
    called = [function for function, _ in _calls(name)]
    assert called.count("lab.answer") == called.count("tell") == 1


@every_notebook_and_the_playground
def test_parameters_are_annotated_literals(name: str) -> None:
    for statement in ast.parse(_parameters_cell(name)).body:
        assert isinstance(statement, ast.AnnAssign), ast.unparse(statement)
        assert statement.value is not None, ast.unparse(statement)
        ast.literal_eval(statement.value)


@every_notebook_and_the_playground
def test_papermill_lists_every_parameter_with_a_help_and_the_model_knows_the_same(name: str) -> None:
    written = {
        ast.unparse(line.target)
        for line in ast.parse(_parameters_cell(name)).body
        if isinstance(line, ast.AnnAssign)
    }
    listed = _inspected(name)
    assert set(listed) == written == set(_model(name).model_fields)
    assert all(about["inferred_type_name"] and about["help"] for about in listed.values())


@every_notebook_and_the_playground
def test_the_defaults_are_valid(name: str) -> None:
    given = _model(name).from_notebook(_defaults(name)).model_fields_set
    assert given == set(_defaults(name))
    assert ("run" in given) == (name != PLAYGROUND)


def test_the_playground_is_no_part_of_a_study() -> None:
    assert PLAYGROUND not in NAMES
    with pytest.raises(UsageError, match="there is no notebook"):
        catalog.select([PLAYGROUND])


@every_notebook_and_the_playground
def test_parameters_are_checked_before_anything_is_measured(name: str) -> None:
    cells = [cell.source for cell in _cells(name, "code")]
    assert "Parameters.from_notebook(globals())" in cells[1]


@every_notebook
def test_a_run_of_another_machine_is_refused_with_the_parameters_unless_it_is_only_read(name: str) -> None:
    theirs = import_run(export_run(open_run("ours").run_id, files.home() / "run.zip"), "theirs")
    given = _defaults(name) | {"run": theirs}
    why = r"^parameter run: nothing can be added to run theirs: it was .*; begin a new run: set it in .*$"
    with pytest.raises(UsageError, match=why) if catalog.measures(name) else nullcontext():
        _model(name).from_notebook(given)


@every_profile
def test_a_profile_sets_what_its_notebook_has_to_valid_values(path: Path) -> None:
    assert path.stem in NAMES
    settings = yaml.safe_load(path.read_text())
    assert set(settings) <= set(_model(path.stem).model_fields) - {"run"}
    assert set(settings) <= _model(path.stem).from_notebook(_defaults(path.stem) | settings).model_fields_set


def test_every_profile_sets_every_notebook_that_it_measures() -> None:
    assert catalog.profiles() == ["full", "quick", "smoke"]
    for profile in catalog.profiles():
        measuring = set(catalog.select([], profile)) - {catalog.SUMMARY}
        assert {path.stem for path in PROFILES if path.parent.name == profile} == measuring


@pytest.mark.parametrize("name", NAMES)
def test_quick_is_what_the_notebooks_do_by_themselves(name: str) -> None:
    settings = catalog.profile_parameters("quick", name)
    defaults = _defaults(name)
    assert settings == {parameter: defaults[parameter] for parameter in settings}


_SETS_UP = re.compile(
    r"lab\.answer|lab\.open_run|common\.settled|(\w+\.)?Parameters\.from_notebook"
    r"|study\.(open_for_reading|opened|plan|trials_of)"
)
"""Calls whose result only prepares what the notebook is about."""


def _sets_up(source: str) -> bool:
    """Say whether a cell only imports, validates, or opens what is to be measured or read."""
    return all(
        isinstance(line, ast.Import | ast.ImportFrom)
        or (isinstance(line, ast.Assign) and isinstance(line.value, ast.Attribute))
        or (
            isinstance(line, ast.Assign)
            and isinstance(line.value, ast.Call)
            and _SETS_UP.fullmatch(ast.unparse(line.value.func))
        )
        for line in ast.parse(source).body
    )


@every_notebook
def test_cells_that_set_up_stay_out_of_sight_and_no_others(name: str) -> None:
    _, *cells = _cells(name, "code")
    hidden = [cell.source for cell in cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert hidden == [cell.source for cell in cells if "setup" in cell.metadata.get("tags", ())]
    assert hidden == [cell.source for cell in cells if _sets_up(cell.source)]
    assert len(hidden) >= 1


@every_notebook
def test_the_help_of_a_choice_names_what_to_choose_from(name: str) -> None:
    choices = {"dispatch": get_args(DispatchName), "kernel": ("python", "numpy", "numba")}
    for parameter in choices.keys() & _inspected(name).keys():
        assert all(choice in _inspected(name)[parameter]["help"] for choice in choices[parameter])


EXTRA = sorted(path.stem for path in files.notebooks().glob("*.ipynb") if path.stem not in NAMES)


@pytest.mark.parametrize("name", EXTRA)
def test_a_notebook_beside_the_study_keeps_the_rules_too(name: str) -> None:
    test_it_is_valid_stripped_and_for_any_python(name)
    cells = _cells(name)
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert cells[0].source.splitlines()[0].endswith("?"), "a notebook is one question"
    assert max(len(cell.source.splitlines()) for cell in _cells(name, "code")) <= 20
    assert "start" in EXTRA
