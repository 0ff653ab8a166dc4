"""The report: one page that needs no network, says what failed, and folds its code away."""

import csv
import re
import zipfile
from pathlib import Path

import pytest
from helpers import reports
from helpers.html_page import Page
from helpers.reports import code, error, html, prose, said, write_notebook

from lab.errors import LabError, UsageError
from lab.experiments import summary, sustained
from lab.report import write_report
from lab.study.manifest import new_manifest, write_manifest
from lab.units import counted

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


def _report() -> Page:
    path = write_report(RUN)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def page(executed: Path) -> Page:
    """A report of a summary, of a notebook that measured, and of one that failed half way."""
    write_notebook(
        executed / "02-other.ipynb",
        prose("# Second?"),
        code("1 / 0", error("LabError", "no <disk>")),
    )
    write_notebook(
        executed / "01-one.ipynb",
        prose("# First & foremost?"),
        code("show(secret)", html(FIGURE)),
    )
    write_notebook(executed / "00-summary.ipynb", prose("# How far?"), code("say()", html("<b>Twice.</b>")))
    return _report()


def test_it_is_written_where_reports_are(page: Page, home: Path) -> None:
    assert [path.name for path in (home / "reports" / RUN).iterdir()] == ["index.html"]


def test_it_needs_nothing_from_elsewhere(page: Page) -> None:
    assert page.fetched() == []
    assert page.find("link") == page.find("iframe") == page.find("object") == []
    assert page.find("script") == [{"type": "module"}]
    assert "http://" not in page.markup
    assert "https://" not in page.markup


def test_the_summary_comes_first_and_every_notebook_is_linked(page: Page) -> None:
    names = ["00-summary", "01-one", "02-other"]
    assert [attributes["id"] for attributes in page.find("article")] == names
    links = [attributes["href"] for attributes in page.find("a")]
    assert [link for link in dict.fromkeys(links) if link[1:] in names] == [f"#{name}" for name in names]
    assert page.text("contents").index("How far?") < page.text("contents").index("First & foremost?")


def test_it_says_of_which_run_it_is_and_in_which_language(page: Page) -> None:
    assert RUN in page.text("title")
    assert page.find("html") == [{"lang": "en"}]


def test_every_figure_keeps_its_alt_text_and_caption(page: Page) -> None:
    assert [image["alt"] for image in page.find("img")] == ["A line that rises."]
    assert page.text("figcaption") == "Up"


def test_results_are_open_and_code_is_folded_away(page: Page) -> None:
    assert "show(secret)" in page.text("details")
    assert "Twice." in page.text("00-summary")
    assert "Twice." not in page.text("details")
    assert all("open" not in attributes for attributes in page.find("details"))


def test_a_failed_notebook_is_named_with_its_reason(page: Page) -> None:
    failures = [attributes for attributes in page.find("p") if attributes.get("role") == "alert"]
    assert len(failures) == 1
    assert "This notebook failed. LabError: no <disk>" in page.text("02-other")
    assert "This notebook failed" not in page.text("01-one")
    assert "Second? failed" in page.text("contents")


def test_what_a_title_says_is_text_and_never_markup(executed: Path) -> None:
    write_notebook(executed / "01-one.ipynb", prose("# <script>alert(1)</script> & more"))
    page = _report()
    assert "<script>alert(1)</script> & more" in page.text("contents")
    assert all("src" not in attributes for attributes in page.find("script"))


def test_a_notebook_without_a_heading_goes_by_its_file(executed: Path) -> None:
    write_notebook(executed / "01-one.ipynb", code("1"))
    assert "01-one" in _report().text("contents")


def test_a_report_is_replaced_by_the_next(executed: Path) -> None:
    write_notebook(executed / "01-one.ipynb", prose("# Old"))
    _report()
    write_notebook(executed / "01-one.ipynb", prose("# New"))
    page = _report()
    assert "New" in page.text("contents")
    assert "Old" not in page.text("contents")


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
    write_notebook(executed / "01-one.ipynb", prose("# One?"))
    assert "not complete" not in _report().text(), "nothing says that there is more to come"
    begun = ["01-one", "02-other", "00-summary"]
    write_manifest(executed.parent, new_manifest(RUN, profile="smoke", notebooks=tuple(begun), parameters={}))
    assert "This run is not complete. Still to come: 02-other, 00-summary." in _report().text("main")
    told = Page(write_report(RUN, to_come=["00-summary"]).read_text())
    assert "Still to come: 00-summary." in told.text("main")
    for name in begun:
        write_notebook(executed / f"{name}.ipynb", prose("# One?"))
    assert "not complete" not in _report().text()


@pytest.mark.parametrize("run_id", ["..", ".", "a/b", "", "/etc"])
def test_a_report_is_written_of_runs_alone(run_id: str) -> None:
    with pytest.raises(UsageError, match="a run's name consists of"):
        write_report(run_id)


PARAMETERS = 'run: str = ""\nrate: float = 5.0  # offered, <requests>/s\nseed: int = 1  # of chance'


@pytest.fixture
def notebook(executed: Path) -> Page:
    """A report of a notebook as they are: parameters, set-up, an answer that was filled in, results."""
    write_notebook(
        executed / "04-worker-scaling.ipynb",
        prose("# How far?\n\nWhy it matters."),
        code(PARAMETERS, tag="parameters"),
        code('# Parameters\nrate = 50.0\nseed = 1\nrun = "a-run"', tag="injected-parameters"),
        prose("The parameters are checked first."),
        code("p = check()"),
        code("tell = lab.answer()", said("**Answer.** Twice.")),
        prose("## The curve\n\nIt rises."),
        code("rows = measure()"),
        code('lab.show(rows, save_as=run.figures / "worker-scaling")', html(FIGURE)),
        prose("## The rest"),
        code("tell(answer(rows))"),
    )  # fmt: skip
    return _report()


def test_the_answer_stands_before_all_else_of_its_notebook(notebook: Page) -> None:
    told = notebook.text("04-worker-scaling")
    order = ["How far?", "Twice.", "The curve", "Ran with", "Why it matters.", "It rises."]
    assert sorted(order, key=told.index) == order


def test_set_up_has_one_fold_and_code_the_one_of_its_result(notebook: Page) -> None:
    folds = [attributes.get("class") for attributes in notebook.find("details")]
    assert folds == ["ran", "code", "code"]
    assert "The parameters are checked first." not in notebook.text()


def test_parameters_are_shown_with_their_values_and_meanings(notebook: Page) -> None:
    assert notebook.text("summary").startswith("Ran with rate = 50.0"), "and not what was given its default"
    assert "rate 50.0 offered, <requests>/s" in notebook.text("table")
    assert "seed 1 of chance" in notebook.text("table")


def test_a_parameter_that_holds_an_equals_sign_is_shown_as_given(
    executed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_notebook(
        executed / "10-your-server.ipynb",
        prose("# How many?"),
        code("slo: list[str] = []  # to meet\nseed: int = 1  # of chance", tag="parameters"),
        code('# Parameters\nslo = ["p99=250ms"]\nseed = 2', tag="injected-parameters"),
    )
    assert _report().text("summary").startswith('Ran with slo = ["p99=250ms"] , seed = 2')
    assert caplog.text == "", "papermill's own reader cannot parse it, and says so"


def test_headings_are_in_order_and_a_notebook_lists_its_own(notebook: Page) -> None:
    ranks = [tag for tag, _ in notebook.elements if re.fullmatch("h[1-6]", tag)]
    assert ranks == ["h1", "h2", "h3", "h3"]
    ids = [attributes["id"] for attributes in notebook.find("h3")]
    links = [attributes["href"] for attributes in notebook.find("a")]
    assert ids == ["04-worker-scaling-the-curve", "04-worker-scaling-the-rest"]
    assert {f"#{name}" for name in ids} <= set(links)


def test_no_two_elements_have_the_same_id(executed: Path) -> None:
    for name in ("01-one", "02-two"):
        table = "<table><tbody>" + "<tr><td>1</td></tr>" * 20 + "</tbody></table>"
        write_notebook(
            executed / f"{name}.ipynb", prose("# T\n## Same\n## Same\n## Same 1"), code("t", html(table * 2))
        )
    ids = [attributes["id"] for _, attributes in _report().elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_an_empty_cell_of_a_tables_head_heads_nothing(executed: Path) -> None:
    head = '<thead><tr><th scope="col"></th><th scope="col">value</th></tr></thead>'
    table = f"<table>{head}<tbody><tr><td>a</td><td>1</td></tr></tbody></table>"
    write_notebook(executed / "01-one.ipynb", code("t", html(table)))
    page = _report()
    assert [about for about in page.find("th") if "scope" in about] == [{"scope": "col", "class": "number"}]
    assert [about for about in page.find("td") if "scope" in about] == []


@pytest.mark.parametrize("noise", [0, 8, 255])
def test_a_picture_weighs_at_most_100_kb(executed: Path, noise: int) -> None:
    write_notebook(executed / "01-one.ipynb", code("show()", html(reports.picture(noise=noise))))
    (image,) = _report().find("img")
    assert len(image["src"]) <= 100_000
    assert image["style"] == "width:740px;max-width:100%", "and looks as large"


HOSTILE = "<script>alert(1)</script>"


def test_hostile_names_stay_text(executed: Path) -> None:
    parameters = f'rate: str = "{HOSTILE}"  # {HOSTILE}'
    write_notebook(
        executed / f"01-{HOSTILE.replace('/', '')}.ipynb",
        prose(f"# {HOSTILE}"),
        code(parameters, tag="parameters"),
        code("x", error(HOSTILE, HOSTILE)),
    )
    page = _report()
    assert page.find("script") == [{"type": "module"}]
    assert page.text().count("alert(1)") > 4


def test_a_run_that_measured_no_scaling_says_what_it_has(notebook: Page) -> None:
    assert "What this run measured" in notebook.text("answer")
    assert "Twice." in notebook.text("answer")
    assert "notebooks 02 to 04 measure that" in notebook.text("answer")


def test_the_first_screen_is_of_what_the_run_measured(home: Path) -> None:
    run = reports.scaled_run(RUN)
    write_notebook(run.path / "notebooks" / "00-summary.ipynb", prose("# Sum"))
    cpus = run.manifest.machine.available_cpus
    workers, rate, times = (2, "18.0", "1.80") if cpus < 4 else (4, "17.0", "1.70")
    sentence = f"{workers} workers on {counted(cpus, 'CPU')} answer up to {rate}/s: {times} times one."
    assert sentence in _report().text("headline")
    write_notebook(run.path / "notebooks" / "02-single-vs-cluster.ipynb", prose("# One or two?"))
    reports.keep_sustained_rates(run)
    page = _report()
    assert "2 workers sustain 17.0 to 18.0/s at p95 ≤ 300 ms: 1.89 times one process." in page.text(
        "headline"
    )
    assert "1.89× 1.79 to 2.00" in page.text("answer")
    assert "How it was measured" in page.text("answer")
    assert str(run.manifest.machine) in page.text("answer")
    assert not [one for one in page.find("a") if one["href"].startswith("#estimate-")], "no estimate is kept"
    summary.estimates(run)
    found = sustained.kept(run, "single-vs-cluster")
    assert found is not None
    (number, *_) = [one["href"] for one in _report().find("a") if one["href"].startswith("#estimate-")]
    assert number == f"#estimate-{sustained.estimates('', found)[-1].key}"
    assert "Clustering multiplies the rate that is answered" in page.text("claims")
    assert "A process manager does the same" in page.text("claims")
    reports.keep_sustained_rates(run, reason="stopped")
    assert "times one process" not in _report().text("headline"), "a search that did not end tells nothing"


def test_a_number_is_a_link_only_to_an_estimate_that_the_page_holds(home: Path) -> None:
    run = reports.scaled_run(RUN)
    key = summary.estimates(run)["key"].iloc[0]
    answer = f"**Answer.** [Held](#estimate-{key}), **[gone](#estimate-0123456789)**."
    write_notebook(
        run.path / "notebooks" / "04-worker-scaling.ipynb",
        prose("# How far?"),
        code("tell = lab.answer()", said(answer)),
    )
    page = _report()
    assert f'<a href="#estimate-{key}">Held</a>, <strong>gone</strong>' in page.markup
    interim = Page(write_report(RUN, to_come=["05-dispatch"]).read_text())
    assert "Held, gone" in interim.text("04-worker-scaling")
    assert "#estimate-" not in interim.markup


def test_the_verdicts_on_all_claims_stand_but_once_on_the_page(home: Path) -> None:
    run = reports.scaled_run(RUN, blocks=1)
    own = [prose("## The claims again"), code("lab.table(claims)", html("<p>judged again</p>"))]
    for cell in own:
        cell.metadata["tags"] = ["verdicts"]
    write_notebook(run.path / "notebooks" / "00-summary.ipynb", prose("# Sum"), *own, prose("## Then"))
    assert "again" not in _report().text()
    assert "Then" in _report().text()


def test_code_that_shows_nothing_is_in_the_fold_of_code_beside_it(home: Path) -> None:
    one, other = (code("show()", html("<p>shown</p>")) for _ in range(2))
    cells = [prose("# Up"), code("p = 1"), one, prose("Then"), code("a = 1"), other, code("run.end()")]
    write_notebook(home / "data" / RUN / "notebooks" / "04-up.ipynb", *cells)
    assert len([one for one in _report().find("details") if one.get("class") == "code"]) == 2


def test_data_and_figures_are_named_in_a_file_and_linked_in_a_folder(home: Path) -> None:
    run = reports.scaled_run(RUN, blocks=1)
    write_notebook(
        run.path / "notebooks" / "04-worker-scaling.ipynb",
        prose("# Up"),
        code('lab.show(x, save_as=run.figures / "curve")', html(reports.picture())),
    )
    (home / "figures" / RUN).mkdir(parents=True)
    (home / "figures" / RUN / "curve.svg").write_text("<svg/>")
    assert "data/a-run/trials/worker-scaling* (3 files)" in _report().text("footer")
    assert "figures/a-run/curve.svg" in _report().text("footer")
    page = Page(write_report(RUN, in_folder=True).read_text())
    folder = home / "reports" / RUN
    links = [one["href"] for one in page.find("a") if not one["href"].startswith("#")]
    assert sorted(links) == ["data/a-run.zip", "data/worker-scaling.csv", "figures/curve.svg"]
    (image,) = page.find("img")
    assert (folder / image["src"]).read_bytes()[8:12] == b"WEBP"
    rows = list(csv.DictReader((folder / "data/worker-scaling.csv").open()))
    assert sorted(row["workers"] for row in rows) == ["1", "2", "4"]
    assert "manifest.json" in zipfile.ZipFile(folder / "data/a-run.zip").namelist()


def test_a_run_with_damaged_data_is_reported_without_its_numbers(home: Path) -> None:
    run = reports.scaled_run(RUN, blocks=1)
    write_notebook(run.path / "notebooks" / "00-summary.ipynb", prose("# Sum"))
    damaged = next((run.path / "trials").glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    page = _report()
    assert f"Its data cannot be read. {damaged} is damaged" in page.text("answer")
    assert "Sum" in page.text("00-summary")


def test_a_ratio_leads_to_its_row_in_the_table_of_its_notebook_while_others_are_measured(home: Path) -> None:
    run = reports.scaled_run(RUN)
    row = '<table><tr><td><span id="estimate-0123456789">2.00</span></td></tr></table>'
    write_notebook(
        run.path / "notebooks" / "11-machines.ipynb",
        code("tell = lab.answer()", said("**Answer.** It is [2.00](#estimate-0123456789) times as large.")),
        code("lab.table()", html(f"<details><summary>All</summary>{row}</details>")),
    )
    page = Page(write_report(RUN, to_come=["05-dispatch"]).read_text())
    assert '<a href="#estimate-0123456789">2.00</a>' in page.markup
