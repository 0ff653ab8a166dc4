"""The pages as they are read: links lead somewhere, what is quoted exists, what is listed is complete."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.pages import CHANGELOG, CONTRIBUTING, DOCS, PAGES, README, ROOT, Page

from lab import cli
from lab.flags import KINDS
from lab.load.log import OUTCOMES
from lab.models.sizing import Limit
from lab.servers.spec import DISPATCHES

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def test_the_readme_lists_every_command_and_every_notebook() -> None:
    assert {f"lab {name}" for name in cli.COMMANDS} - set(README.spans()) == {"lab study"} - set(
        README.spans()
    )
    listed = {name.strip("`") for name, _ in README.rows("notebook")}
    there = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert there <= listed
    assert {name for name in listed - there if name[0].isdigit()} == set()


@every_page
def test_every_link_leads_somewhere_and_every_picture_is_described(page: Page) -> None:
    for is_picture, text, to in page.links():
        if to.startswith("https://"):
            continue
        path, _, anchor = to.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), to
        assert not anchor or anchor in Page(target).anchors(), to
        assert not is_picture or len(text) > 20, f"{to} has no alt text"


@every_page
def test_every_path_that_is_named_exists_and_holds_what_is_said(page: Page) -> None:
    paths = re.compile(r"(?:lab|tests|notebooks|data|figures|benchmarks|docs)/[\w./-]+")
    for span in page.spans():
        if paths.fullmatch(span) and not re.search(r"[A-Z]{3}|14-|greeting", span):
            assert (ROOT / span).exists(), span
    for name, path in re.findall(r"`(\w+)` \(`([\w./]+\.py)`\)", page.prose.replace("\n", " ")):
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text()), f"{path} has no {name}"


@every_page
def test_every_option_that_is_named_exists(page: Page) -> None:
    context = cli.command.make_context("lab", ["runs"])
    commands = [cli.command.get_command(context, name) for name in cli.COMMANDS]
    known = {option for one in commands if one for param in one.params for option in param.opts}
    known |= {"--debug", "--help-notebook"}  # the last of papermill
    named = {word for span in page.spans() for word in re.findall(r"(?<!\S)--[a-z][\w-]*", span)}
    assert named - known == set()


@every_page
def test_lines_are_short(page: Page) -> None:
    lines = [line for line in page.prose.splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in lines if len(line) > 120] == []


@cache
def _templates() -> list[list[str]]:
    """Return the texts in the code that people may see, each as its fixed pieces."""
    found = [[text] for text in re.split(r'"|\$\(\w+\)', (ROOT / "Makefile").read_text())]
    for path in (ROOT / "lab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    [str(part.value) if isinstance(part, ast.Constant) else "" for part in node.values]
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                found.append([node.value])
    return [pieces for pieces in found if len("".join(pieces)) >= 8]


def _said_by_code(message: str) -> float:
    """Return the share of a message that is fixed text of the code: the rest are values, or ... for some."""
    covered: set[int] = set()
    for pieces in _templates():
        places: list[int] = []
        for piece in filter(None, pieces):
            at = message.find(piece, places[-1] + 1 if places else 0)
            if at < 0:
                break
            places += range(at, at + len(piece))
        else:
            covered.update(places)
    return len(covered) / len(message.replace("...", ""))


MESSAGES = [cell.strip("`").strip() for page in DOCS for cell, *_ in page.rows("you see")]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_of_the_code(message: str) -> None:
    assert _said_by_code(message) > 0.55


@pytest.mark.parametrize(
    "words",
    [
        ["report", "x"],
        ["size", "--", "gunicorn -w 2"],
        ["study", "-p", "02.raet=1"],
        ["serve", "--workers", "1000000"],
        ["import", "run.zip"],
    ],
)
def test_what_the_lab_says_is_quoted(
    words: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    (home / "run.zip").write_text("hello")
    with pytest.raises(SystemExit):
        cli.main(words)
    said = capsys.readouterr().err.removeprefix("lab: ").strip()
    quoted = "|".join(re.escape(re.sub(r"\d+", "#", one)).replace(r"\.\.\.", ".+") for one in MESSAGES)
    assert re.fullmatch(quoted, re.sub(r"\d+", "#", said))


def test_a_message_that_nobody_says_is_found() -> None:
    assert len(MESSAGES) > 20
    assert _said_by_code("the frobnicator is out of cheese: add some") < 0.55


def _named(page: str, head: str) -> set[str]:
    (found,) = (one for one in DOCS if one.path.stem == page)
    return {name for cells in found.rows(head) for name in re.findall(r"`([^`]+)`", cells[0])}


def test_what_the_pages_list_is_what_the_code_has() -> None:
    assert _named("your-own-server", "`limited_by`") == set(Limit)
    assert _named("how-it-works", "dispatch") == set(DISPATCHES)
    assert _named("statistics", "flag") == set(KINDS) - {"earlier_version"}
    (how,) = (page for page in DOCS if page.path.stem == "how-it-works")
    assert set(OUTCOMES) <= set(how.spans())


def test_every_word_of_the_glossary_is_used() -> None:
    (glossary,) = (page for page in DOCS if page.path.stem == "glossary")
    words = [word.partition(" (")[0] for word, _ in glossary.rows("word")]
    assert words == sorted(words)
    pages = [page.text for page in PAGES if page is not glossary]
    notebooks = [path.read_text() for path in (ROOT / "notebooks").glob("*.ipynb")]
    code = [path.read_text() for path in (ROOT / "lab").rglob("*.py")]
    everything = " ".join(" ".join([*pages, *notebooks, *code]).lower().split())
    assert [word for word in words if word not in everything] == []


def test_citation_and_changelog_know_the_version() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["title"].lower().replace(" ", "-") == project["name"]
    assert (str(citation["version"]), citation["abstract"]) == (project["version"], project["description"])
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    versions = re.findall(r"^## \[(.+?)\](.*)$", CHANGELOG.text, re.MULTILINE)
    assert versions[0] == ("Unreleased", "")
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", date) for _, date in versions[1:])
    assert project["version"] in dict(versions)
    kinds = set(re.findall(r"^### (.+)$", CHANGELOG.text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_picture_says_what_it_shows_in_light_and_dark_and_asks_no_host() -> None:
    picture = (ROOT / "docs" / "how-it-works.svg").read_text()
    assert "<title" in picture
    assert "<desc" in picture
    assert "prefers-color-scheme: dark" in picture
    assert re.findall(r"(?:href|src|url)\W+https?:", picture) == []


def test_a_newcomer_reads_one_page_of_each() -> None:
    assert len(CONTRIBUTING.text.split()) < 700
    assert all(len(page.text.split()) < 1000 for page in DOCS)
