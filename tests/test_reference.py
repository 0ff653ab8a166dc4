"""The committed reference run: whole, measured as the quick profile measures today, and closed."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from helpers.study_fakes import condition, fake_attack

from lab import files
from lab.errors import LabError
from lab.study.run import Run
from lab.study.runs import damage, open_run

MEASURED = {
    "02-single-vs-cluster": "single_vs_cluster",
    "03-rate-sweep": "rate_sweep",
    "04-worker-scaling": "worker_scaling",
    "05-dispatch": "dispatch",
    "06-failures": "failures",
}


@pytest.fixture(scope="module")
def reference() -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SCALING_LAB_HOME", raising=False)
        return open_run("reference")


def test_it_is_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCALING_LAB_HOME", raising=False)
    assert [line for line in damage() if line.startswith("reference:")] == []


@pytest.mark.parametrize("notebook", MEASURED)
def test_it_is_todays_quick_profile(notebook: str, reference: Run) -> None:
    quick = yaml.safe_load((files.notebooks() / "profiles" / "quick" / f"{notebook}.yaml").read_text())
    module = import_module(f"lab.experiments.{MEASURED[notebook]}")
    trials = reference.trials(module.EXPERIMENT)
    assert quick["duration_s"] in set(trials["duration_s"].round(6))
    assert trials["block"].nunique() == quick["blocks"]


def _measure(run: Run, rate: float) -> None:
    run.measure("sweep", [condition(rate)], blocks=1, seed=1, execute=fake_attack)


def test_nothing_is_added_to_it_but_without_its_folder_it_is_measured_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "checkout", lambda: home)
    run = open_run("reference")
    _measure(run, 20)
    _measure(run, 40)  # while it is unfinished
    sealed = run.seal()
    refused = "committed with the code; begin a new run, or delete .*/data/reference to measure it anew"
    with pytest.raises(LabError, match=refused):
        _measure(run, 80)
    _measure(run, 40)  # which it has
    assert run.manifest == sealed
    shutil.rmtree(run.path)
    _measure(open_run("reference"), 80)


def test_a_run_of_its_name_in_another_home_is_a_run_like_any_other() -> None:
    run = open_run("reference")
    run.seal()
    _measure(run, 20)
    assert run.trial_count() == 1
