"""Where numbers come from: every trial named and there, commands that run, and a page that stays light."""

import json
import re
import shlex
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.html_page import Page

from lab import files
from lab.cli import study
from lab.experiments import catalog, control, instrument, summary
from lab.experiments.capacity import score
from lab.experiments.dispatch import answer as dispatch_answer
from lab.experiments.failures import answer as failures_answer
from lab.experiments.failures import trials as failures
from lab.experiments.less_than_one_core import answer as quota_answer
from lab.experiments.searches import Objective
from lab.flags import Flag
from lab.report import evidence
from lab.study.manifest import Manifest
from lab.study.run import Run
from lab.study.runs import open_run, run_in
from lab.study.store import Store

SCALING = "worker-scaling"

PER_TRIAL = (score.INSIDE, score.OWN_LIMIT, score.STEADY_LIMIT)
HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the reference run, with the estimates that its summary would have kept."""
    folder = tmp_path_factory.mktemp("home") / "data" / "reference"
    shutil.copytree(Path(__file__).parents[2] / "data" / "reference", folder)
    run = run_in(folder)
    Store(folder).save_table("tables", "estimates", summary.estimates(run))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """That run, to be changed at will."""
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    shutil.copytree(made, files.data() / "reference", copy_function=_linked)
    return open_run("reference")


def _linked(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _rewritten(path: Path, values: dict[str, Any]) -> None:
    """Change columns of a table, in a file of its own."""
    table = pq.read_table(path)
    for name, value in values.items():
        column = pa.array([value] * table.num_rows, table.schema.field(name).type)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    path.unlink()
    pq.write_table(table, path)


def _manifest(run: Run, **changes: Any) -> None:
    path = run.path / "manifest.json"
    kept = json.loads(path.read_text()) | changes
    path.unlink()
    path.write_text(Manifest.model_validate(kept).model_dump_json())


def _stated(run: Run) -> pd.DataFrame:
    found = run.newest("estimates")
    assert found is not None
    return found


def test_every_source_of_every_estimate_is_kept_and_has_rows(run: Run) -> None:
    stated = _stated(run)
    for row in stated.to_dict("records"):
        assert len(row["sources"]), row
        trials = [source for source in row["sources"] if "." in source]
        assert all(run.glimpse(trial)[0] > 0 for trial in trials)
        assert all(len(run.kept(source)) for source in row["sources"] if source not in trials)
        if row["quantity"] in PER_TRIAL:
            assert len(trials) == row["n"], "a number per trial"
        elif trials and row["experiment"] != "failures":
            assert len({trial.split(".")[1] for trial in trials}) == row["n"], "a number per block"
    assert stated["key"].is_unique
    assert {SCALING, "dispatch", "failures"} <= set(stated["experiment"])


def test_each_number_leads_to_the_trials_that_it_was_computed_from(run: Run) -> None:
    page = Page(evidence.section(run, SCALING))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"].removeprefix("#") for attributes in page.find("a")}
    assert links <= set(ids)
    stated = _stated(run)
    stated = stated[stated["experiment"] == SCALING]
    assert {f"estimate-{key}" for key in stated["key"]} <= set(ids)
    assert {f"trial-{name}" for sources in stated["sources"] for name in sources} <= set(ids)


def test_numbers_in_answers_lead_to_estimates(run: Run) -> None:
    trials, keys = summary.trials_of(run), set(_stated(run)["key"])
    failed = trials["failures"]
    stalled, lagging, fed = (run.newest(part) for part in ("stalls-", "ceilings-", "control-"))
    assert stalled is not None
    assert lagging is not None
    assert fed is not None
    answers = (
        instrument.answer(stalled, lagging, control.alike(fed)),
        dispatch_answer.answer(trials["dispatch"]),
        failures_answer.answer(failures.events(failed, run.requests(failed), run.events(failed))),
        quota_answer.answer(trials["less-than-one-core"], ""),
    )
    linked = [re.findall("#estimate-([0-9a-f]{10})", text) for text in answers]
    assert list(map(len, linked)) == [6, 0, 4, 3], "as many as this run can tell"
    assert {key for mine in linked for key in mine} <= keys


def test_every_trial_is_a_row_with_its_file_and_its_number_of_rows(run: Run) -> None:
    text = Page(evidence.section(run, SCALING)).text()
    trials = run.trials(SCALING)
    assert f"{len(trials)} trials in {trials['block'].nunique()} blocks" in text
    for trial in trials.to_dict("records"):
        assert (run.path / "requests" / f"{trial['trial_id']}.parquet").exists()
        assert f"{trial['planned']:,} {trial['trial_id']}" in text


def test_latencies_of_a_search_say_whether_they_are_as_measured(run: Run) -> None:
    name = "sustained-rates-single-vs-cluster"
    as_measured = run.kept(name).assign(objective="p95 within 3 times the loop")
    Store(run.path).save_table("tables", f"{name}-a", as_measured)
    Store(run.path).save_table("tables", f"{name}-b", as_measured.assign(objective=str(Objective())))
    text = Page(evidence.section(run, "single-vs-cluster")).text()
    assert text.count("p95, ms") + text.count("p95, at a steady speed, ms") == 3
    assert "p95, at a steady speed, ms" in text


def test_flagged_trials_are_listed_with_their_reasons(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = run.trials(SCALING)

    def told(*flags: tuple[Flag, ...]) -> str:
        of_each = [*flags, *[()] * (len(trials) - len(flags))]
        judged = trials.assign(flags=pd.Series(of_each), valid=[not mine for mine in of_each])
        monkeypatch.setattr(Run, "trials", lambda *_: judged)
        return Page(evidence.section(run, SCALING)).text()

    sound = told()
    assert "none of them flagged" in sound
    assert "None: nothing casts doubt on any trial." in sound
    doubted = told((), (Flag("steal", 0.5, 0.05),))
    assert "1 of them flagged" in doubted
    assert f"{trials['trial_id'][1]} : CPU time that the hypervisor took 50 % (limit 5 %)" in doubted


def test_the_commands_are_ones_that_lab_takes(run: Run) -> None:
    changed = {"04-worker-scaling": {"blocks": 3, "dispatch": "least-busy"}, "05-dispatch": {"blocks": 2}}
    _manifest(run, profile="quick", parameters=changed)
    again, anew, _ = _commands(evidence.section(run, SCALING))
    assert "--run reference" in again
    assert "--run new" in anew
    for line in (again, anew):
        _, _, *words = shlex.split(line)
        given = study.command.make_context("study", list(words)).params
        names = catalog.select(given["only"], given["profile"])
        assert names == ["04-worker-scaling"]
        changes = study.changes(given["assignments"], None)
        assert changes == {"04-worker-scaling": changed["04-worker-scaling"]}
        settings = catalog.checked_parameters(given["profile"], names, changes)["04-worker-scaling"]
        assert (settings["blocks"], settings["dispatch"]) == (3, "least-busy")


def test_its_python_opens_a_trials_rows(run: Run) -> None:
    markup = evidence.section(run, SCALING)
    *_, lines = _commands(markup)
    found: dict[str, Any] = {}
    exec(lines, found)  # noqa: S102 - it is what a reader would do
    assert f"of its {len(found['rows']):,} rows" in Page(markup).text()
    assert found["rows"]["trial_id"].nunique() == 1


def _commands(markup: str) -> list[str]:
    return [unescape(code) for code in re.findall(r"<pre><code>(.*?)</code></pre>", markup, re.DOTALL)]


def test_names_from_a_hostile_run_are_text(run: Run) -> None:
    path = next((run.path / "trials").glob(f"{SCALING}.*"))
    _rewritten(path, {"dispatch": HOSTILE, "path": f"/{HOSTILE}"})
    stated = run.path / "tables" / "estimates.parquet"
    _rewritten(stated, {"quantity": HOSTILE, "sources": [HOSTILE], "key": HOSTILE})
    _manifest(run, profile="../..", parameters={"04-worker-scaling": {HOSTILE: HOSTILE}})
    page = Page(evidence.section(open_run("reference"), SCALING))
    assert page.find("script") == []
    assert HOSTILE in page.text()
    assert page.fetched() == []


def test_many_rows_and_many_trials_leave_the_page_light(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    light = len(evidence.section(run, SCALING))
    path = sorted((run.path / "requests").glob(f"{SCALING}.*"))[0]
    rows = pq.read_table(path)
    path.unlink()
    many = pa.concat_tables([rows] * 1_000)
    pq.write_table(many, path)
    heavy = evidence.section(run, SCALING)
    assert len(heavy) < light + 100
    assert f"{len(many):,}" in heavy
    monkeypatch.setattr(evidence, "MOST_LISTED", 5)
    few = evidence.section(run, SCALING)
    assert len(re.findall('<tr id="trial-', few)) == 5
    assert f"{len(run.trials(SCALING)) - 5} more trials are in" in Page(few).text()


def test_a_damaged_or_empty_run_says_so_or_nothing(run: Run) -> None:
    assert evidence.section(run, "machines") == ""
    path = next((run.path / "trials").glob(f"{SCALING}.*"))
    path.unlink()
    path.write_bytes(b"nothing")
    assert "is damaged" in Page(evidence.section(open_run("reference"), SCALING)).text()


def test_a_run_without_estimates_still_lists_its_trials(run: Run) -> None:
    (run.path / "tables" / "estimates.parquet").unlink()
    page = Page(evidence.section(run, SCALING))
    assert not [a for _, a in page.elements if a.get("id", "").startswith("estimate-")]
    assert "Every trial" in page.text()


@pytest.mark.parametrize("pool", ["process", "thread"])
def test_a_pool_is_named_in_english(pool: str) -> None:
    row = {"topology": "offload", "dispatch": "shared", "pool": pool, "workers": 2}
    plural = {"process": "processes", "thread": "threads"}[pool]
    assert evidence._server(row) == f"2 workers, pool of {plural}"
