"""The committed reference run: whole, and measured as the quick profile measures today."""

from importlib import import_module

import pytest
import yaml

from lab import files
from lab.study.run import Run, damage, open_run

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
