"""The notebooks as a reader has them in JupyterLab: the start page and 02, run from a fresh kernel."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.jupyterlab import JupyterLab, jupyterlab
from playwright.sync_api import Browser

from lab import files
from lab.experiments import catalog

pytestmark = pytest.mark.timeout(300)

START, ARTICLE = "start", "02-single-vs-cluster"

_HIDDEN = """
jupyterapp.shell.currentWidget.content.widgets
    .filter((cell) => cell.model.type === "code").map((cell) => cell.inputHidden)
"""
_ALIGNED = """
[...new Set([...document.querySelectorAll('table.lab td')]
    .map((cell) => `${cell.className || "text"} ${getComputedStyle(cell).textAlign}`))].sort()
"""
_LINKS = "[...document.querySelectorAll('.jp-OutputArea-output a')].map((link) => link.textContent)"


class Seen(NamedTuple):
    """What a reader saw of a notebook: its cells' outputs, its errors, and which cells hide their source."""

    outputs: list[list[dict[str, Any]]]
    errors: list[str]
    hidden: list[bool]
    links: list[str]
    aligned: list[str]

    @property
    def text(self) -> str:
        """All that was put out."""
        return json.dumps(self.outputs, ensure_ascii=False)


def _opened(lab: JupyterLab, browser: Browser, name: str) -> Seen:
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    notebook = lab.open(page, f"{name}.ipynb")
    notebook.run_all()
    looks = [page.evaluate(look) for look in (_HIDDEN, _LINKS, _ALIGNED)]
    seen = Seen(notebook.outputs(), notebook.errors(), *looks)
    page.close()
    return seen


def _made_quick(notebooks: Path, name: str) -> None:
    """Write what profile smoke sets into the parameters cell, as a reader would who has little time."""
    path = notebooks / f"{name}.ipynb"
    notebook = json.loads(path.read_text())
    values = catalog.defaults(name) | catalog.profile_parameters("smoke", name)
    (cell,) = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    cell["source"] = [f"{key} = {value!r}\n" for key, value in values.items()]
    path.write_text(json.dumps(notebook))


def test_run_all_works_from_a_fresh_kernel_and_nothing_is_left(browser: Browser, tmp_path: Path) -> None:
    root = files.checkout()
    assert root is not None
    shutil.copytree(root / "data" / "reference", tmp_path / "data" / "reference")
    with jupyterlab(tmp_path) as lab:
        _made_quick(lab.notebooks, ARTICLE)
        start, article = (_opened(lab, browser, name) for name in (START, ARTICLE))
        assert lab.others() == [], "what the notebooks started has ended"

    for seen, name in ((start, START), (article, ARTICLE)):
        assert seen.errors == []
        cells = [cell for cell in catalog.cells(name) if cell["cell_type"] == "code"]
        assert seen.hidden == ["setup" in cell["metadata"].get("tags", ()) for cell in cells]
        assert any(seen.hidden)

    assert set(catalog.notebooks()) <= set(start.links), "it links to every notebook"
    assert "Next:" in start.text
    assert "<figure>" in article.text
    assert "**Answer.**" in article.text
    assert article.aligned == ["number right", "text left"]
    (measured,) = {path.name for path in (tmp_path / "data").iterdir()} - {"reference"}
    assert len(list((tmp_path / "data" / measured / "trials").iterdir())) == 2
