"""The second panel: saved trials, sliced by the factors in which they differ."""

import shutil
from pathlib import Path

import pytest
from helpers.trial_rows import trials
from matplotlib.text import Text

from lab.figures import rendered
from lab.notebook import alt_text
from lab.playground.saved import ALL, NOTHING, Saved, axes_of, drawn, sliced, varied
from lab.study.runs import open_run

ROOT = Path(__file__).parents[2]

ROWS = trials(
    {"rate": 10.0, "dispatch": "shared", "throughput_rps": 10.0},
    {"rate": 20.0, "dispatch": "shared", "throughput_rps": 15.0},
    {"rate": 10.0, "dispatch": "$x^$", "throughput_rps": 10.0},
    {"rate": 20.0, "dispatch": "$x^$", "throughput_rps": 18.0, "valid": False},
).drop(columns=["busy_rps", "window_s"])
"""$x^$ is no formula that matplotlib can read: an imported run may hold any text."""


def test_factors_are_those_in_which_trials_differ() -> None:
    factors = varied(ROWS)
    assert factors == {"rate": [10, 20], "dispatch": ["$x^$", "shared"]}
    assert axes_of(factors) == ["rate", "dispatch"]
    assert axes_of([]) == ["block"]


def test_the_rate_is_no_factor_where_it_came_of_a_load() -> None:
    rows = trials({"load": 0.5, "rate": 9.8}, {"load": 0.5, "rate": 10.3}, {"load": 0.9, "rate": 18.0})
    assert "rate" not in varied(rows)
    assert varied(rows)["load"] == [0.5, 0.9]


def test_a_slice_keeps_to_its_values() -> None:
    kept = sliced(ROWS, {"dispatch": "shared", "rate": 20.0})
    assert kept["throughput_rps"].to_list() == [15.0]


def test_the_figure_says_what_is_best_and_has_a_line_per_value() -> None:
    figure = drawn("made-by-hand", ROWS, "rate", "dispatch")
    assert figure is not None
    assert "up to 18.0/s, at rate 20" in alt_text(figure)
    lines = figure.axes[0].get_legend_handles_labels()[1]
    assert lines == [r"dispatch \$x^\$", "dispatch shared", "a flagged trial"]


def test_its_letters_can_be_read_in_a_panel_of_420_pixels() -> None:
    """Of these, JupyterLab leaves 312 to a picture."""
    figure = drawn("made-by-hand", ROWS, "rate", "dispatch")
    assert figure is not None
    points = [float(text.get_fontsize()) for text in figure.findobj(Text) if text.get_text()]
    assert min(points) * 312 / (72 * figure.get_figwidth()) >= 10


def test_against_words_no_line_joins_the_medians() -> None:
    figure = drawn("made-by-hand", ROWS, "dispatch", NOTHING)
    assert figure is not None
    lines = figure.axes[0].get_lines()
    assert {line.get_linestyle() for line in lines} == {"None"}
    assert "a flagged trial" in [line.get_label() for line in lines]
    assert rendered(figure, "svg")


def test_no_trial_no_figure() -> None:
    assert drawn("made-by-hand", ROWS[:0], "rate", NOTHING) is None


def test_without_a_run_it_says_so() -> None:
    assert "No run is saved here yet" in Saved().children[-1].value


def test_the_reference_run_is_found_and_sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALING_LAB_HOME", str(ROOT))
    panel = Saved()
    run, experiment = panel.children[0].children
    assert "reference" in [value for _, value in run.options]
    run.value = "reference"
    experiment.value = "rate-sweep"
    shown = panel.children[-1].value
    assert "rate-sweep: up to" in shown
    only = {one.description: one for one in panel.children[2].children}
    assert set(only) >= {"load", "topology"}
    topology = only["topology"]
    topology.value = next(value for name, value in topology.options if name == "single")
    assert panel.children[-1].value != shown
    assert " trials of " in panel.children[-1].value
    topology.value = ALL
    assert panel.children[-1].value == shown


def test_a_run_without_trials_offers_nothing_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    shutil.copytree(ROOT / "data" / "reference", tmp_path / "data" / "reference")
    open_run("just-begun", profile="quick")
    panel = Saved()
    run, experiment = panel.children[0].children
    run.value = "reference"
    assert experiment.options
    run.value = "just-begun"
    assert "no trials" in panel.children[-1].value
    offered = (experiment, *panel.children[1].children)
    assert [one.options for one in offered] == [(), (), ()]
    assert panel.children[2].children == ()
    run.value = "reference"
    assert "<img" in panel.children[-1].value
