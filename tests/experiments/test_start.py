"""The start page: what to run, how long it takes, what was measured here, and what to do next."""

import re
from pathlib import Path

import pytest
from helpers.html_page import Page
from helpers.study_fakes import condition, fake_attack

from lab import files
from lab.experiments import catalog, start
from lab.study.manifest import Manifest, write_manifest
from lab.study.run import Run
from lab.study.runs import open_run
from lab.units import clock


@pytest.fixture(autouse=True)
def _no_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_GLANCE_S", 0.0)


def markup(piece: start.Piece) -> str:
    return piece._repr_html_()


def text(piece: start.Piece) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", markup(piece)).split())


def changed(run: Run, **values: object) -> Manifest:
    about = run.manifest.model_copy(update=values)
    write_manifest(run.path, about)
    return about


def measured(run: Run, *notebooks: str) -> Run:
    for name in notebooks:
        run.measure(name[3:], [condition(20)], blocks=1, seed=1, execute=fake_attack)
    return run


def test_every_notebook_is_listed_with_its_question_and_how_long_it_takes() -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", markup(start.notebooks()))[1:]
    listed = catalog.notebooks()
    assert [re.findall(r'href="([^"]+)"', row) for row in rows[: len(listed)]] == [
        [f"{name}.ipynb"] for name in listed
    ]
    for name, row in zip(listed, rows, strict=False):
        question = "".join(catalog.cells(name)[0]["source"]).splitlines()[0].removeprefix("# ")
        assert question.replace("'", "&#x27;") in row
        assert f">{clock(catalog.lasts_s(name, {}))}<" in row
        assert ("reads runs" in row) == (name[:2] in ("00", "11"))
    quick_s = sum(
        catalog.lasts_s(name, catalog.profile_parameters("quick", name))
        for name in catalog.select([], "quick")
    )
    assert f"about {clock(quick_s)}" in text(start.notebooks())


def test_before_anything_was_measured_it_says_where_to_begin() -> None:
    assert "Nothing has been measured on this machine yet." in text(start.runs())
    assert "Next: open 01-hot-loop and run all its cells" in text(start.here())
    assert "not yet" in text(start.notebooks())


def test_the_line_of_the_machine_names_it_and_says_whether_it_is_quiet() -> None:
    line = text(start.here())
    assert line.startswith(str(open_run("mine").manifest.machine))
    assert "of its CPU time now; " in line
    assert "lab doctor says in a minute up to which rate" in line


def test_what_is_next_depends_on_what_there_is() -> None:
    by_hand = open_run()
    by_hand.table("hot-loop-x", lambda: by_hand.calibrations())
    measured(by_hand, "02-single-vs-cluster")
    assert "Next: 03-rate-sweep , as 2 of 9 notebooks are measured in the newest run" in text(start.here())
    study = measured(open_run("study", profile="quick"), "04-worker-scaling")
    assert "Next: run study is not finished" in text(start.here())
    study.seal()
    assert "lab report study writes the report on 1 trial, " in text(start.here())
    page = files.reports() / "study" / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    assert "Next: read the report" in text(start.here())
    assert str(page) in text(start.here()), "JupyterLab does not serve what is outside the checkout"


def test_a_report_in_the_checkout_is_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(files, "checkout", lambda: tmp_path)
    notebooks = files.notebooks
    assert notebooks() == tmp_path / "notebooks"
    assert start._place(tmp_path / "reports" / "a run" / "index.html", "it") == (
        '<a href="../reports/a%20run/index.html">it</a>'
    )


def test_runs_of_this_machine_are_listed_and_others_counted() -> None:
    mine = measured(open_run("mine", profile="quick"), "02-single-vs-cluster", "05-dispatch")
    theirs = open_run("theirs", profile="quick")
    machine = theirs.manifest.machine.model_copy(update={"cpu_model": "Abacus 3000"})
    changed(theirs, machine=machine)
    shown = text(start.runs())
    assert "mine" in shown
    assert "quick, unfinished 02 05 2" in shown
    assert "theirs" not in shown
    assert "1 run of other machines can be compared with it: notebook 11" in shown
    assert f"{mine.manifest.started_at.astimezone():%Y-%m-%d %H:%M}" in shown
    for number in range(6):
        open_run(f"more{number}", profile="quick")
    assert "2 earlier runs: lab runs" in text(start.runs())


def test_a_name_is_shown_as_text() -> None:
    changed(open_run("mine", profile="quick"), profile="<script>alert(1)</script>")
    assert Page(markup(start.runs())).find("script") == []
    assert "&lt;script&gt;" in markup(start.runs())
