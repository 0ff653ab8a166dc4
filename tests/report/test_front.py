"""The first screen: no name lies over a curve, notes are English, and verdicts lead to what judged them."""

import re
from pathlib import Path

import pytest
from helpers import reports
from helpers.html_page import Page
from helpers.reports import prose, write_notebook
from jinja2 import Environment, FileSystemLoader

from lab import units
from lab.report import front, write_report
from lab.report.article import TEMPLATES
from lab.report.front import Mark, Picture

RUN = "a-run"


@pytest.mark.parametrize("last", [Mark(4, 1.95, 1.66, 2.12), Mark(4, 3.1, 3.0, 3.2)])
def test_both_names_stand_below_the_curve_one_below_the_other(last: Mark) -> None:
    answered = (Mark(1, 1.0, 1.0, 1.0), Mark(2, 1.91, 1.68, 1.99), last)
    picture = Picture(answered, Mark(2, 1.84, 1.54, 2.21), 2)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    environment.globals.update(digits=units.digits)
    drawn = environment.get_template("picture.svg.j2").render(picture=picture, **picture.ticks)
    dot = float(re.search(r'class="sustained".*?cy="([\d.]+)"', drawn, re.DOTALL)[1])  # type: ignore[index]
    names = [
        float(re.search(rf'<text x="[\d.]+" y="([\d.]+)"[^>]*>(?:<tspan[^>]*>)?{name}', drawn)[1])  # type: ignore[index]
        for name in ("highest", "1.84×")
    ]
    assert dot + 20 < names[0] <= names[1] - 20


@pytest.mark.parametrize(
    ("flagged", "said"), [(0, []), (1, ["1 of its 9 trials is"]), (2, ["2 of its 9 trials are"])]
)
def test_one_trial_is_flagged_and_several_are(flagged: int, said: list[str]) -> None:
    assert [text.split(" flagged")[0] for text in front._flagged(flagged, 9)] == said


def _places(markup: str) -> list[str]:
    """Return where the verdicts of a page lead to."""
    claims = markup.partition('id="claims"')[2].partition("</section>")[0]
    return re.findall('href="#([^"]+)"', claims)


def test_a_verdict_leads_to_the_notebook_that_judged_it_and_to_its_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    run = reports.scaled_run(RUN)
    write_notebook(run.path / "notebooks" / "02-single-vs-cluster.ipynb", prose("# One or two?"))
    assert _places(Page(write_report(RUN).read_text()).markup) == [], "the notebook is not on the page"
    write_notebook(run.path / "notebooks" / "04-worker-scaling.ipynb", prose("# How far?"))
    page = Page(write_report(RUN).read_text())
    assert _places(page.markup) == ["04-worker-scaling", "evidence-of-worker-scaling"]
    ids = [attributes.get("id") for _, attributes in page.elements]
    assert set(_places(page.markup)) <= set(ids)
    interim = write_report(RUN, to_come=["05-dispatch"]).read_text()
    assert _places(interim) == ["04-worker-scaling"], "its trials come with the rest"
