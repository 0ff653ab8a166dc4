"""Runs beside each other: which are put beside which, what is told, and what is drawn of them."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.html_page import unlinked

from lab import files
from lab.cli.execute import execute
from lab.errors import LabError, UsageError
from lab.experiments.machines import answer as words
from lab.experiments.machines import figure as views
from lab.experiments.machines.beside import Beside, Parameters, beside, opened
from lab.figures import rendered
from lab.models.statistics import estimate
from lab.study.compare import Difference
from lab.study.estimates import key_of, stated, table_of
from lab.study.runs import open_run


@pytest.fixture
def reference(home: Path) -> Path:
    """Return a copy of the committed run, at home."""
    root = files.checkout()
    assert root is not None
    return Path(shutil.copytree(root / "data" / "reference", home / "data" / "reference"))


def names(run: str = "", runs: Sequence[str] = ()) -> list[str]:
    return [one.name for one in opened(Parameters(run=run, runs=tuple(runs)))]


def test_the_newest_own_run_is_put_beside_the_reference(reference: Path) -> None:
    assert names() == ["reference", "reference (2)"]
    open_run("mine")
    assert names() == ["reference", "mine"]
    assert names("reference", ["mine"]) == ["mine", "reference"]
    assert names("mine", [str(reference)]) == ["reference", "mine"]


def test_the_reference_of_the_project_is_found_from_any_home() -> None:
    open_run("mine")
    assert names() == ["reference", "mine"]


def test_without_a_reference_a_run_stands_beside_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    open_run("mine")
    monkeypatch.setattr(files, "checkout", lambda: None)
    assert names() == ["mine", "mine (2)"]


@pytest.mark.parametrize("name", ["none", "./none", "/etc"])
def test_a_run_that_is_not_there_is_named(name: str) -> None:
    open_run("mine")
    with pytest.raises(LabError, match=name.strip("./")):
        names("mine", [name])


def test_more_runs_than_looks_are_refused() -> None:
    with pytest.raises(UsageError, match="runs"):
        Parameters.from_batch({"run": "", "runs": []}, {"runs": ["a", "b", "c", "d"]})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what makes a run that states three numbers, the first `ratio` times as large as usual."""
    told: dict[Path, pd.DataFrame] = {}
    monkeypatch.setattr("lab.experiments.summary.estimates", lambda run: told[run.path])

    def make(name: str, ratio: float = 1.0, profile: str = "quick") -> None:
        random = np.random.default_rng(len(name))
        rates, gains = ratio * random.lognormal(0, 0.01, 6), random.lognormal(0, 0.01, 6)
        told[open_run(name, profile=profile).path] = table_of(
            [
                stated("scaling", "throughput", estimate(rates), "requests/s", workers=1),
                stated("scaling", "speed-up", estimate(gains), workers=2),
                stated("scaling", "p99", estimate([1.0, 2.0]), "s", workers=2),
            ]
        )

    return make


def _precise(one: Difference) -> float:
    return one.smallest_told or 0.0


def compared(run: str, *runs: str) -> Beside:
    return beside(opened(Parameters(run=run, runs=runs)))


def test_a_difference_is_told_with_its_interval_and_others_with_what_could_have_been_seen(
    made: Callable[..., None],
) -> None:
    made("one")
    made("other", 2.0)
    found = compared("other", "one")
    assert [one.told for one in found.differences] == [True, False]
    answer = words.answer(found)
    assert "**1 difference told in 2 numbers**" in answer
    assert "throughput (1 worker) is 2" in unlinked(answer)
    table = words.differences_table(found)
    first = table.iloc[0]
    assert f"is [{first['ratio to one'].digits}](#estimate-{first['ratio to one'].anchor}) times" in answer
    assert (first["quantity"], first["of"]) == ("throughput, requests/s", "1 worker")
    assert first["in the run"].key == key_of("throughput", workers=1)
    assert float(str(first["in the run"])) / float(first["in one"]) == pytest.approx(2, abs=0.05)
    assert table["ratio to one"].map(lambda number: number.anchor).is_unique
    assert [text.split(" (")[0] for text in table[""]] == [
        "differs",
        "no difference that this could have seen",
        "cannot be told",
    ]
    figure = views.differences_figure(found)
    assert figure is not None
    assert [axes.get_title("left") for axes in figure.axes] == ["Rates and times", "Shares and ratios"]
    assert rendered(figure, "png")


def test_a_run_beside_itself_differs_in_nothing_and_says_that_it_is_alone(
    made: Callable[..., None],
) -> None:
    made("one")
    found = compared("one", "one")
    answer = words.answer(found)
    assert "only one run" in answer
    assert "no difference in 2 numbers" in answer
    assert found.found
    precise = found.found.differences.index(min(found.differences, key=_precise))
    ratio = words.differences_table(found)["ratio to one"][precise]
    assert f"(#estimate-{ratio.anchor})" in answer, "the most precise one"


def test_only_numbers_of_the_run_whose_page_it_is_lead_to_their_trials(made: Callable[..., None]) -> None:
    for name, ratio in (("one", 1.0), ("other", 3.0), ("own", 1.0)):
        made(name, ratio)
    found = compared("own", "one", "other")
    assert "times as large in other" in words.answer(found)
    table = words.differences_table(found)
    assert [bool(number.key) for number in table["in the run"]] == [run == "own" for run in table["run"]]


def test_a_machine_that_has_a_name_is_called_by_it_unless_two_runs_share_it() -> None:
    open_run("one", profile="quick", host_label="rack-3")
    open_run("two", profile="quick", host_label="rack-4")
    open_run("three", profile="quick", host_label="rack-3")
    open_run("four", profile="quick")
    assert [one.name for one in opened(Parameters(run="four", runs=("two", "one")))] == [
        "rack-4",
        "rack-3",
        "four",
    ]
    shown = opened(Parameters(run="three", runs=("two", "one")))
    assert [one.name for one in shown] == ["rack-4", "one", "three"]
    table = words.machines_table(shown).set_index("")
    assert list(table.loc["run"]) == ["two", "one", "three"]
    assert list(table.loc["name"]) == ["rack-4", "rack-3", "rack-3"]
    named = words.machines_table(opened(Parameters(run="four", runs=("two",)))).set_index("")
    assert list(named.loc["name"]) == ["rack-4", ""]


def test_runs_of_other_plans_are_shown_but_not_compared(made: Callable[..., None]) -> None:
    made("one")
    made("other", profile="smoke")
    found = compared("other", "one")
    assert found.differences == []
    assert "different profiles (quick; smoke)" in words.answer(found)
    assert "different profiles" in words.differences_table(found)[""][0]
    assert views.differences_figure(found) is None
    assert list(words.machines_table(found.shown).columns) == ["", "one", "other"]


def test_curves_of_runs_without_any_are_not_drawn(home: Path) -> None:
    open_run("one")
    assert views.curves_figure(opened(Parameters(run="one", runs=("one",)))) is None


def test_scaling_is_drawn_as_measured_and_as_a_share_of_what_the_cpus_allow(reference: Path) -> None:
    one, _ = opened(Parameters(run="reference", runs=()))
    figure = views.curves_figure([one])
    assert figure is not None
    rates, shares, *_ = figure.axes
    assert rates.get_legend_handles_labels()[1] == ["reference"]
    ideal = [point.speedup.value / min(point.workers, one.cpus) for point in one.points]
    assert np.asarray(shares.lines[0].get_ydata()).tolist() == pytest.approx(ideal)


def test_the_notebook_needs_but_one_run(home: Path) -> None:
    open_run("mine")
    assert execute("11-machines", home / "out.ipynb", {}) is None
    assert (home / "figures/mine/machines.svg").exists()
