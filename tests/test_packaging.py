"""What is installed: pyproject.toml, environment.yml and requirements.lock say the same."""

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lab import files

ROOT = Path(__file__).parent.parent
NOT_ON_CONDA_FORGE = {"ciw", "mlrsearch"}
CONDA_NAMES = {"matplotlib": "matplotlib-base"}


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _wanted() -> dict[str, SpecifierSet]:
    """Every direct requirement of pyproject.toml: for use, for development, for comparison."""
    project = _project()
    texts = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    found = [Requirement(text) for text in texts]
    return {canonicalize_name(one.name): one.specifier for one in found}


def _conda() -> dict[str, Any]:
    environment: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text())
    return environment


def _conda_packages() -> dict[str, SpecifierSet]:
    found = [Requirement(line) for line in _conda()["dependencies"] if isinstance(line, str)]
    return {one.name: one.specifier for one in found}


def _locked() -> list[Requirement]:
    return [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines()]


def test_conda_has_the_same_packages_with_the_same_bounds() -> None:
    packages = _conda_packages()
    assert packages.pop("python") == SpecifierSet(_project()["requires-python"])
    assert packages.pop("pip") == SpecifierSet()
    wanted = {name: bounds for name, bounds in _wanted().items() if name not in NOT_ON_CONDA_FORGE}
    assert packages == {CONDA_NAMES.get(name, name): bounds for name, bounds in wanted.items()}


def test_conda_takes_all_from_conda_forge_and_the_project_from_here() -> None:
    environment = _conda()
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert [line for line in environment["dependencies"] if not isinstance(line, str)] == [{"pip": ["-e ."]}]


def test_every_requirement_is_locked_within_its_bounds() -> None:
    locked = _locked()
    for name, bounds in _wanted().items():
        pins = [_pin(one) for one in locked if canonicalize_name(one.name) == name]
        assert pins, f"{name} is not in requirements.lock: run make lock"
        for pin in pins:
            assert pin in bounds, f"{name} {pin} in requirements.lock is not {bounds}: run make lock"


def test_every_package_that_is_imported_is_required() -> None:
    distributions = packages_distributions()
    trees = [ast.parse(path.read_text()) for path in (ROOT / "lab").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = (
        {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"lab", "pydantic_core"}
    )  # pydantic pins its core
    required = {canonicalize_name(Requirement(text).name) for text in _project()["dependencies"]}
    missing = [top for top in tops if not required & set(map(canonicalize_name, distributions[top]))]
    assert missing == []


def test_the_lock_pins_everything_and_names_no_place() -> None:
    locked = _locked()
    assert all(_pin(one) and one.url is None for one in locked)
    assert "://" not in (ROOT / "requirements.lock").read_text()


def _pin(locked: Requirement) -> str:
    (only,) = locked.specifier
    assert only.operator == "==", f"{locked} is not pinned"
    return only.version


def test_the_command_has_the_version_of_the_project() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "--version"], capture_output=True, text=True, check=True
    )
    assert re.search(rf"\b{re.escape(_project()['version'])}\b", done.stdout)


def test_a_wheel_has_the_notebooks_and_works_where_the_caller_stands(tmp_path: Path) -> None:
    build = (
        "import sys; from hatchling.builders.wheel import WheelBuilder;"
        "print(*WheelBuilder(sys.argv[1]).build(directory=sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", build, str(ROOT), str(tmp_path / "wheels")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    with zipfile.ZipFile(done.stdout.strip()) as wheel:
        wheel.extractall(tmp_path / "installed")
    notebooks = tmp_path / "installed" / "lab" / "notebooks"
    assert {path.name for path in notebooks.glob("*.ipynb")} == {
        path.name for path in (ROOT / "notebooks").glob("*.ipynb")
    }
    assert (notebooks / "profiles" / "smoke" / "02-single-vs-cluster.yaml").exists()
    sources = Path("lab", "servers", "peers", "sources")
    assert {path.name for path in (ROOT / sources).iterdir() if path.is_file()} == {
        path.name for path in (tmp_path / "installed" / sources).iterdir()
    }
    code = "from lab import files; print(files.notebooks(), files.data(), files.checkout())"
    environment = {name: value for name, value in os.environ.items() if name != files.HOME}
    here = tmp_path / "here"
    here.mkdir()
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment | {"PYTHONPATH": str(tmp_path / "installed")},
        cwd=here, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.split() == [str(notebooks), str(here / "data"), "None"]


@pytest.mark.parametrize(("user", "options"), [("0", ["--allow-root"]), ("1000", [])])
def test_of_root_alone_make_lab_says_that_it_is_meant(
    user: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whoever = tmp_path / "id"
    whoever.write_text(f"#!/bin/sh\necho {user}\n")
    whoever.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    command = [shutil.which("make") or "make", "-n", "lab"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    start = done.stdout.split("jupyter lab", 1)[1]
    assert [word for word in start.split() if "root" in word] == options
