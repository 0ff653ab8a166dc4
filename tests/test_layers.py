"""What imports what: dependencies run one way, without circles, and what starts often starts light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


HEAVY = {"matplotlib", "numba", "pandas", "pyarrow", "scipy"}

GROUND = {"cards", "channel", "checks", "cpus", "errors", "files", "flags", "forks", "keeper"}
GROUND |= {"machine", "processes", "programs", "progress", "quota", "streams", "units"}
BELOW = {"hotloop", "web", "servers", "load", "models"}
MAY_IMPORT = {
    **dict.fromkeys(GROUND, GROUND),
    "hotloop": GROUND,
    "models": {"checks", "errors"},
    "load": GROUND,
    "web": GROUND | {"hotloop"},
    "servers": GROUND | {"hotloop", "web"},
    "study": GROUND | BELOW,
    "figures": GROUND,
    "notebook": GROUND | {"figures"},
    "experiments": GROUND | BELOW | {"study", "figures"},
    "report": GROUND | {"models", "study", "figures", "experiments"},
    "playground": GROUND | BELOW | {"study", "figures", "experiments", "notebook"},
    "cli": GROUND | BELOW | {"study", "figures", "experiments", "report"},
    "__main__": {"cli"},
    "": {"servers", "load", "errors", "notebook", "study"},
}
"""For each part of the package, the others that it may know; the last is the package itself."""


def _modules(root: Path) -> dict[str, Path]:
    files = {file.relative_to(root.parent).with_suffix(""): file for file in root.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): file for name, file in files.items()}


def _imports(modules: dict[str, Path]) -> dict[str, set[str]]:
    """For each module, the modules of the package that it imports, anywhere in its text."""
    return {name: set(_named(file, modules)) for name, file in modules.items()}


def _named(file: Path, modules: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import: name the module in full"
            submodules = (f"{node.module}.{alias.name}" for alias in node.names)
            found = (name if name in modules else str(node.module) for name in submodules)
            yield from (name for name in found if name in modules)


def _wrong_way(imports: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} imports {other}"
        for name, others in imports.items()
        for other in others
        if _part(other) not in {_part(name), *MAY_IMPORT[_part(name)]}
    ]


def _part(name: str) -> str:
    """`lab.study.plan` is of the part `study`; `lab` itself of none."""
    return name.partition(".")[2].partition(".")[0]


def test_dependencies_run_one_way() -> None:
    imports = _imports(_modules(ROOT / "lab"))
    assert {_part(name) for name in imports} == set(MAY_IMPORT), "every part is bound"
    assert _wrong_way(imports) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    imports = _imports(_modules(ROOT / "lab"))
    assert set(TopologicalSorter(imports).static_order()) >= set(imports), "or it raises CycleError"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from lab.servers import spec", ["lab.load.one imports lab.servers.spec"]),
        ("from lab.servers.spec import Spec", ["lab.load.one imports lab.servers.spec"]),
        ("def f():\n    import lab.servers.spec", ["lab.load.one imports lab.servers.spec"]),
        ("from lab import serve", ["lab.load.one imports lab"]),
        ("import numpy\nfrom lab.load import one", []),
    ],
)
def test_an_import_the_wrong_way_is_found(tmp_path: Path, text: str, found: list[str]) -> None:
    for name, content in {"__init__": "", "servers/spec": "", "load/one": text}.items():
        file = tmp_path / "lab" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert _wrong_way(_imports(_modules(tmp_path / "lab"))) == found


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("lab", HEAVY | {"aiohttp", "pydantic"}),
        ("lab.cli", HEAVY | {"aiohttp", "pydantic"}),
        ("lab.servers.supervisor", HEAVY | {"pydantic"}),
        ("lab.servers.worker", HEAVY | {"pydantic"}),
        ("lab.load.generator", HEAVY | {"pydantic"}),
        ("lab.load.live", HEAVY | {"pydantic"}),
    ],
)
def test_importing_is_light(module: str, without: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert without.intersection(done.stdout.split()) == set()
