"""One executed notebook as an article: its answer first, its code folded, and what it ran with."""

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.translators import PythonTranslator
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from lab.errors import LabError
from lab.report.markup import Heading, tidied

TEMPLATES = Path(__file__).parent / "templates"

_TITLE = re.compile(r"# (.+)\n*")
_VERDICTS = "verdicts"
"""The tag of cells that show the verdicts on all claims, as a page does, too."""
_SAVED = re.compile(r'figures / "([a-z0-9-]+)"')
"""How a notebook names the files of a figure."""


@dataclass(frozen=True)
class Setting:
    """A parameter of a notebook: its name and value as code, what it means, and whether it was changed."""

    name: str
    value: str
    meaning: str
    changed: bool


@dataclass(frozen=True)
class Article:
    """A notebook in the report.

    `answer`, `body` and `setup` are HTML; the rest is text. `headings` are those of the body, `figures` the
    names of the files that it saves, `failure` is what stopped it.
    """

    name: str
    title: str
    answer: str
    body: str
    setup: str
    headings: tuple[Heading, ...]
    settings: tuple[Setting, ...]
    figures: tuple[str, ...]
    failure: str

    @property
    def number(self) -> str:
        """What stands before the dash in its name, if that is a number: 04 of 04-worker-scaling."""
        number = self.name.partition("-")[0]
        return number if number.isdigit() else ""

    @property
    def experiment(self) -> str:
        """The name of what it measures, under which the run keeps its trials."""
        return self.name.removeprefix(f"{self.number}-")


def read(path: Path, *, below_verdicts: bool = False) -> Article:
    """Read an executed notebook, without what it repeats if it stands below the page's verdicts.

    Raises LabError if it is not one.
    """
    try:
        return _article(path.stem, path.read_text(encoding="utf-8"), below_verdicts)
    except Exception as error:
        raise LabError(f"{path} is not a readable notebook ({error}): run its notebook again") from error


@lru_cache(maxsize=16)  # `lab study` writes the report after each notebook
def _article(name: str, content: str, below_verdicts: bool) -> Article:
    cells = nbformat.reads(content, as_version=4).cells
    cells = [cell for cell in cells if not (below_verdicts and _VERDICTS in cell.metadata.get("tags", ()))]
    title, cells = _titled(cells, name)
    before, setup, answer, after = _parted(cells)
    body, headings = tidied(_html([*before, *_merged(after)]), name)
    return Article(
        name=name,
        title=title,
        answer=tidied(_html(answer), f"{name}-answer")[0],
        body=body,
        setup=tidied(_code([cell.source for cell in setup if cell.cell_type == "code"]), name)[0],
        headings=tuple(headings),
        settings=tuple(_settings(setup)),
        figures=tuple(dict.fromkeys(_SAVED.findall("\n".join(cell.source for cell in after)))),
        failure=_failure(cells),
    )


def _titled(cells: Sequence[NotebookNode], name: str) -> tuple[str, list[NotebookNode]]:
    """Return the first heading, or else the name, and the cells without it."""
    for at, cell in enumerate(cells):
        if cell.cell_type == "markdown" and (found := _TITLE.match(cell.source)):
            rest = new_markdown_cell(cell.source[found.end() :])
            return found[1], [*cells[:at], *([rest] if rest.source else []), *cells[at + 1 :]]
    return name, list(cells)


def _parted(cells: list[NotebookNode]) -> tuple[list[NotebookNode], ...]:
    """Part cells into what opens the notebook, what sets it up, its answer, and the rest.

    Code sets up until the first cell that shows something; that is the answer if it is in Markdown.
    """
    code = [at for at, cell in enumerate(cells) if cell.cell_type == "code"]
    first = next((at for at in code if cells[at].outputs), len(cells))
    begins = min([*code, first])
    setup, answer, rest = cells[begins:first], [], cells[first:]
    if rest and any("text/markdown" in output.get("data", ()) for output in rest[0].outputs):
        answer, rest = [new_code_cell("", outputs=rest[0].outputs)], rest[1:]
        setup = [*setup, cells[first]]
    return cells[:begins], setup, answer, rest


def _merged(cells: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Join code that shows nothing to the code after it, or else before it, so that one fold holds both."""
    merged: list[NotebookNode] = []
    for cell in cells:
        if cell.cell_type == "code" and merged and _shows_nothing(merged[-1]):
            merged[-1] = _joined(merged[-1], cell)
        else:
            merged.append(cell)
    for at in range(len(merged) - 1, 0, -1):
        if _shows_nothing(merged[at]) and merged[at - 1].cell_type == "code":
            merged[at - 1 : at + 1] = [_joined(*merged[at - 1 : at + 1])]
    return merged


def _shows_nothing(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and not cell.outputs


def _joined(one: NotebookNode, other: NotebookNode) -> NotebookNode:
    return new_code_cell(f"{one.source}\n\n{other.source}", outputs=[*one.outputs, *other.outputs])


def _html(cells: list[NotebookNode]) -> str:
    body, _ = _exporter().from_notebook_node(new_notebook(cells=cells))
    return str(body)


@cache  # it compiles its templates but once
def _exporter() -> HTMLExporter:
    return HTMLExporter(
        template_name="lab", extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True,
    )  # fmt: skip


def _code(sources: Sequence[str]) -> str:
    return str(highlight("\n\n".join(sources), PythonLexer(), HtmlFormatter())) if sources else ""


def _settings(setup: Iterable[NotebookNode]) -> list[Setting]:
    """List the notebook's parameters with the values that it ran with; its run is named elsewhere."""
    cells = {tag: cell for cell in setup for tag in cell.metadata.get("tags", ())}
    given = _given(cells["injected-parameters"].source) if "injected-parameters" in cells else {}
    offered = PythonTranslator.inspect(cells["parameters"]) if "parameters" in cells else []
    return [
        Setting(one.name, value := given.get(one.name, one.default), one.help, value != one.default)
        for one in offered
        if one.name != "run"
    ]


def _given(source: str) -> dict[str, str]:
    """Return the values that papermill set, as written; its own reader drops a line with a second `=`."""
    return {
        target.id: ast.get_source_segment(source, node.value) or ""
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _failure(cells: Iterable[NotebookNode]) -> str:
    outputs = (output for cell in cells for output in cell.get("outputs", ()))
    errors = (f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error")
    return next(errors, "")
