"""The report: one page that needs no network, says what failed, and folds its code away."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from helpers.html_page import Page
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lab.errors import LabError, UsageError
from lab.report import write_report
from lab.study.manifest import new_manifest, write_manifest

RUN = "a-run"
IMAGE = '<img src="data:image/png;base64,AAAA" alt="A line that rises.">'
FIGURE = f"<figure>{IMAGE}<figcaption>Up</figcaption></figure>"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def executed(home: Path) -> Path:
    folder = home / "data" / RUN / "notebooks"
    folder.mkdir(parents=True)
    return folder


def _write(path: Path, *cells: Any) -> None:
    nbformat.write(new_notebook(cells=list(cells)), path)


def _code(source: str, *outputs: Any) -> Any:
    return new_code_cell(source, outputs=list(outputs), execution_count=1)


def _html(markup: str) -> Any:
    return new_output(
        "display_data", {"text/html": markup, "text/plain": "<IPython.core.display.HTML object>"}
    )


def _error(name: str, value: str) -> Any:
    return new_output("error", ename=name, evalue=value, traceback=[f"{name}: {value}"])


def _report() -> Page:
    path = write_report(RUN)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def page(executed: Path) -> Page:
    """A report of a summary, of a notebook that measured, and of one that failed half way."""
    _write(
        executed / "02-other.ipynb",
        new_markdown_cell("# Second?"),
        _code("1 / 0", _error("LabError", "no <disk>")),
    )
    _write(
        executed / "01-one.ipynb",
        new_markdown_cell("# First & foremost?"),
        _code("show(secret)", _html(FIGURE)),
    )
    _write(
        executed / "00-summary.ipynb", new_markdown_cell("# How far?"), _code("say()", _html("<b>Twice.</b>"))
    )
    return _report()


def test_it_is_written_where_reports_are(page: Page, home: Path) -> None:
    assert [path.name for path in (home / "reports" / RUN).iterdir()] == ["index.html"]


def test_it_needs_nothing_from_elsewhere(page: Page) -> None:
    assert page.fetched() == []
    assert page.find("link") == page.find("iframe") == page.find("object") == []
    assert page.find("script") == []
    assert "http://" not in page.markup
    assert "https://" not in page.markup


def test_the_summary_comes_first_and_every_notebook_is_linked(page: Page) -> None:
    names = ["00-summary", "01-one", "02-other"]
    assert [attributes["id"] for attributes in page.find("article")] == names
    assert [attributes["href"] for attributes in page.find("a")] == [f"#{name}" for name in names]
    assert page.text("nav").index("How far?") < page.text("nav").index("First & foremost?")


def test_it_says_of_which_run_it_is_and_in_which_language(page: Page) -> None:
    assert RUN in page.text("title")
    assert page.find("html") == [{"lang": "en"}]


def test_every_figure_keeps_its_alt_text_and_caption(page: Page) -> None:
    assert [image["alt"] for image in page.find("img")] == ["A line that rises."]
    assert page.text("figcaption") == "Up"


def test_results_are_open_and_code_is_folded_away(page: Page) -> None:
    assert "show ( secret )" in page.text("details")  # in spans, for its colours
    assert "Twice." in page.text("00-summary")
    assert "Twice." not in page.text("details")
    assert all("open" not in attributes for attributes in page.find("details"))


def test_a_failed_notebook_is_named_with_its_reason(page: Page) -> None:
    failures = [attributes for attributes in page.find("p") if attributes.get("role") == "alert"]
    assert len(failures) == 1
    assert "This notebook failed. LabError: no <disk>" in page.text("02-other")
    assert "This notebook failed" not in page.text("01-one")
    assert page.text("strong").startswith("failed")


def test_what_a_title_says_is_text_and_never_markup(executed: Path) -> None:
    _write(executed / "01-one.ipynb", new_markdown_cell("# <script>alert(1)</script> & more"))
    page = _report()
    assert "<script>alert(1)</script> & more" in page.text("nav")
    assert all("src" not in attributes for attributes in page.find("script"))


def test_a_notebook_without_a_heading_goes_by_its_file(executed: Path) -> None:
    _write(executed / "01-one.ipynb", _code("1"))
    assert "01-one" in _report().text("nav")


def test_a_report_is_replaced_by_the_next(executed: Path) -> None:
    _write(executed / "01-one.ipynb", new_markdown_cell("# Old"))
    _report()
    _write(executed / "01-one.ipynb", new_markdown_cell("# New"))
    page = _report()
    assert "New" in page.text("nav")
    assert "Old" not in page.text("nav")


@pytest.mark.parametrize("content", ["", "not json", '{"cells": [', '{"nbformat": 99}', "[]"])
def test_an_unreadable_notebook_is_one_line(executed: Path, content: str) -> None:
    (executed / "01-one.ipynb").write_text(content)
    with pytest.raises(LabError, match=r"01-one\.ipynb is not a readable notebook") as caught:
        write_report(RUN)
    assert "\n" not in str(caught.value)


def test_a_run_without_notebooks_says_how_to_make_them(executed: Path, home: Path) -> None:
    with pytest.raises(LabError, match=f"run '{RUN}' has no executed notebooks"):
        write_report(RUN)
    with pytest.raises(LabError, match="there is no run 'no-such-run': `lab runs` lists them"):
        write_report("no-such-run")
    assert not (home / "reports").exists()


def test_an_imported_run_says_which_notebooks_measured_it_and_how(executed: Path) -> None:
    about = new_manifest(
        RUN,
        profile="smoke",
        notebooks=("02-single-vs-cluster",),
        parameters={"02-single-vs-cluster": {"rate": 5}},
    )
    write_manifest(executed.parent, about)
    with pytest.raises(LabError) as caught:
        write_report(RUN)
    command = (
        "lab study --run a-run --profile smoke --only 02-single-vs-cluster -p 02-single-vs-cluster.rate=5"
    )
    assert f"`{command}` makes them" in str(caught.value)


def test_it_says_what_is_still_to_come(executed: Path) -> None:
    _write(executed / "01-one.ipynb", new_markdown_cell("# One?"))
    assert _report().find("p")[0].get("role") != "status", "nothing says that there is more to come"
    begun = ["01-one", "02-other", "00-summary"]
    write_manifest(executed.parent, new_manifest(RUN, profile="smoke", notebooks=tuple(begun), parameters={}))
    assert "This run is not complete. Still to come: 02-other, 00-summary." in _report().text("main")
    told = Page(write_report(RUN, to_come=["00-summary"]).read_text())
    assert "Still to come: 00-summary." in told.text("main")
    for name in begun:
        _write(executed / f"{name}.ipynb", new_markdown_cell("# One?"))
    assert "not complete" not in _report().text()


@pytest.mark.parametrize("run_id", ["..", ".", "a/b", "", "/etc"])
def test_a_report_is_written_of_runs_alone(run_id: str) -> None:
    with pytest.raises(UsageError, match="a run's name consists of"):
        write_report(run_id)
