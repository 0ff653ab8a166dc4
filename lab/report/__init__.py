"""Executed notebooks in, one HTML page out: it opens without a network, and its code is folded."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from lab import files
from lab.errors import LabError
from lab.files import write_whole
from lab.report import evidence
from lab.study import manifest
from lab.study.run import run_in

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class _Page:
    """One notebook in the report: its file's name, first heading, cells as HTML, and how it failed."""

    name: str
    title: str
    body: str
    failure: str


def write_report(run_id: str, to_come: Sequence[str] | None = None) -> Path:
    """Write `reports/<run_id>/index.html` from the run's executed notebooks; return its path.

    The page says which notebooks are still to run: those in `to_come`, or else those planned for the run but
    never executed. Raises LabError if the run has no executed notebook yet, or if one of them cannot be read;
    UsageError if `run_id` cannot name a run.
    """
    folder = files.data() / files.named(run_id)
    if not folder.is_dir():
        raise LabError(f"there is no run {run_id!r}: `lab runs` lists them")
    executed = sorted((folder / "notebooks").glob("*.ipynb"))
    if not executed:
        raise LabError(
            f"run {run_id!r} has no executed notebooks to report: `{_executing(folder)}` makes them"
        )
    if to_come is None:
        to_come = _never_executed(folder, {path.stem for path in executed})
    page = files.reports() / run_id / "index.html"
    pages = [_with_evidence(folder, _page(path)) for path in executed]
    write_whole(page, _render(run_id, pages, to_come).encode())
    return page


def _with_evidence(folder: Path, page: _Page) -> _Page:
    if not (folder / manifest.NAME).exists():
        return page
    return replace(page, body=page.body + evidence.section(run_in(folder), page.name[3:]))


def _executing(folder: Path) -> str:
    """Return the command that executes the notebooks of a run, with what they measured it with."""
    known = (folder / manifest.NAME).exists()
    return evidence.made_by(manifest.read_manifest(folder) if known else None, folder.name)


def _never_executed(folder: Path, executed: set[str]) -> list[str]:
    if not (folder / manifest.NAME).exists():
        return []
    return [name for name in manifest.read_manifest(folder).notebooks if name not in executed]


def _render(run_id: str, pages: Sequence[_Page], to_come: Sequence[str]) -> str:
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=False)  # noqa: S701 - escaped below
    css = "".join(sheet.read_text() for sheet in sorted(_TEMPLATES.glob("*.css"))) + HtmlFormatter(
        style="friendly"
    ).get_style_defs(".highlight")
    template = environment.get_template("page.html.j2")
    return template.render(run_id=html.escape(run_id), pages=pages, to_come=to_come, css=css)


def _page(path: Path) -> _Page:
    try:
        return _converted(path.stem, path.read_text(encoding="utf-8"))
    except Exception as error:
        raise LabError(f"{path} is not a readable notebook ({error}): run its notebook again") from error


@lru_cache(maxsize=16)  # `lab study` writes the report after each notebook
def _converted(name: str, content: str) -> _Page:
    notebook = nbformat.reads(content, as_version=4)
    body, _ = _exporter().from_notebook_node(notebook)
    return _Page(name, _title(notebook, name), body, _failure(notebook))


@cache  # it compiles its templates but once
def _exporter() -> HTMLExporter:
    return HTMLExporter(
        template_name="lab", extra_template_basedirs=[str(_TEMPLATES)],
        exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True,
    )  # fmt: skip


def _title(notebook: nbformat.NotebookNode, default: str) -> str:
    headings = (re.match(r"# (.+)", cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    return next((html.escape(heading[1]) for heading in headings if heading), default)


def _failure(notebook: nbformat.NotebookNode) -> str:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    errors = (f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error")
    return next(errors, "")
