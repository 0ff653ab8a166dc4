"""Which notebooks run with which parameters, and what is left of one that fails."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lab import files
from lab.cli import study as batch
from lab.cli.execute import execute as execute_notebook
from lab.errors import LabError, UsageError
from lab.experiments import catalog
from lab.report import write_report

PYTHON3 = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (["02"], ["02-single-vs-cluster"]),
        (["hot-loop"], ["01-hot-loop"]),
        (["03-rate-sweep.ipynb"], ["03-rate-sweep"]),
        (["00", "04-worker-scaling", "04"], ["04-worker-scaling", "00-summary"]),
    ],
)
def test_notebooks_are_chosen_by_number_or_name_and_keep_their_order(
    wanted: list[str], chosen: list[str]
) -> None:
    assert catalog.select(wanted) == chosen


def test_none_chosen_means_all_in_the_order_of_their_numbers_the_summary_last() -> None:
    *measuring, last = catalog.select([])
    assert measuring == sorted(measuring)
    assert {"01-hot-loop", "02-single-vs-cluster", "03-rate-sweep", "04-worker-scaling"} <= set(measuring)
    assert last == "00-summary"


def test_a_profile_leaves_out_what_it_has_no_file_for_unless_it_is_named() -> None:
    every = catalog.notebooks()
    assert catalog.select([], "smoke") == every
    assert set(every) - set(catalog.select([], "full")) == {"10-your-server"}
    assert set(every) - set(catalog.select([], "quick")) == {
        "07-other-servers",
        "10-your-server",
        "12-folk-rules",
    }
    assert catalog.select(["07"], "quick") == ["07-other-servers"]


@pytest.mark.parametrize("wanted", ["rate-swep", "2", ""])
def test_an_unknown_notebook_is_one_line_with_the_known_ones(wanted: str) -> None:
    with pytest.raises(UsageError, match=f"there is no notebook '{wanted}'") as caught:
        catalog.select(["01", wanted])
    assert all(name in str(caught.value) for name in catalog.notebooks())
    assert "\n" not in str(caught.value)


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of notebooks of our own."""
    folder = tmp_path / "notebooks"
    (folder / "profiles" / "smoke").mkdir(parents=True)
    monkeypatch.setattr(files, "notebooks", lambda: folder)
    monkeypatch.setenv("SCALING_LAB_HOME", str(tmp_path))
    return folder


@pytest.fixture
def execute(notebooks: Path, tmp_path: Path) -> Callable[..., str | None]:
    """Execute a notebook of these cells as a run does."""

    def run(*sources: str, **parameters: object) -> str | None:
        first = new_code_cell("x = 0  # a number", metadata={"tags": ["parameters"]})
        cells = [new_markdown_cell("# Why?"), first, *map(new_code_cell, sources)]
        nbformat.write(new_notebook(cells=cells, metadata=PYTHON3), notebooks / "01-one.ipynb")
        return execute_notebook(
            "01-one", tmp_path / "data" / "run" / "notebooks" / "01-one.ipynb", dict(parameters)
        )

    return run


def _report() -> str:
    return write_report("run").read_text()


def test_a_profile_sets_what_it_says_and_nothing_else(notebooks: Path) -> None:
    (notebooks / "profiles" / "smoke" / "01-one.yaml").write_text("rate: 20.0\nworkers: [1, 2]\n")
    assert catalog.profiles() == ["smoke"]
    assert catalog.profile_parameters("smoke", "01-one") == {"rate": 20.0, "workers": [1, 2]}
    assert catalog.profile_parameters("smoke", "02-two") == {}


@pytest.mark.parametrize("content", ["", "- 1\n- 2", "rate", "rate: [1, 2\nx: 1", "a: b: c"])
def test_a_malformed_profile_is_one_line_that_names_it(notebooks: Path, content: str) -> None:
    (notebooks / "profiles" / "smoke" / "01-one.yaml").write_text(content)
    with pytest.raises(LabError, match=r"01-one\.yaml must hold one parameter per line") as caught:
        catalog.profile_parameters("smoke", "01-one")
    assert "\n" not in str(caught.value)


def test_a_notebook_runs_with_its_parameters_where_it_is(
    execute: Callable[..., str | None], notebooks: Path
) -> None:
    assert execute("import os", "print(x + 1, os.getcwd())", x=41) is None
    assert f"42 {notebooks}" in _report()


def test_an_error_is_one_line_and_what_was_shown_before_it_stays(execute: Callable[..., str | None]) -> None:
    assert execute("print('seen')", "raise ValueError('first\\nsecond')", "print('not ' + 'seen')") == (
        "ValueError: first second"
    )
    page = _report()
    assert "seen" in page
    assert "not seen" not in page
    assert "This notebook failed.</strong> ValueError: first" in page


def test_a_kernel_that_dies_is_named_in_the_report(execute: Callable[..., str | None]) -> None:
    failure = execute("print('seen')", f"import os; os.kill(os.getpid(), {signal.SIGKILL})")
    assert failure == "KernelDied: Kernel died"
    assert "This notebook failed.</strong> KernelDied" in _report()


def test_a_kernel_that_cannot_start_is_named_in_the_report(
    execute: Callable[..., str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = f"import os, sys\nif 'ipykernel_launcher' in sys.orig_argv: os.kill(os.getpid(), {signal.SIGKILL})"
    (tmp_path / "sitecustomize.py").write_text(dies)
    monkeypatch.setitem(os.environ, "PYTHONPATH", str(tmp_path))
    failure = execute("print('never')")
    assert failure is not None
    assert failure.startswith("KernelDied: Kernel died before")
    assert "This notebook failed.</strong> KernelDied" in _report()


def test_nobodys_settings_reach_a_kernel_and_it_leaves_nothing_in_the_temporary_folder(
    execute: Callable[..., str | None],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text("raise SystemExit('somebody's settings')")
    (tmp_path / "startup.py").write_text("print('somebody' + chr(39) + 's startup')")
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    other = {"argv": ["/bin/false"], "display_name": "another", "language": "python"}
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text(json.dumps(other))
    monkeypatch.setitem(os.environ, "JUPYTER_PATH", str(tmp_path))
    monkeypatch.setitem(os.environ, "PYTHONSTARTUP", str(tmp_path / "startup.py"))
    temporary = tmp_path_factory.mktemp("t")
    monkeypatch.setattr("lab.cli.execute.gettempdir", lambda: str(temporary))
    monkeypatch.setitem(os.environ, "IPYTHONDIR", str(profile.parent))
    monkeypatch.setitem(os.environ, "HOME", "/nonexistent")
    assert execute("import tempfile", "print(tempfile.mkdtemp())") is None
    assert str(temporary) in _report()
    assert "somebody's startup" not in _report()
    assert list(temporary.iterdir()) == []
    assert os.environ["IPYTHONDIR"] == str(profile.parent)


def test_a_kernel_imports_nothing_from_the_folder_it_runs_in(
    execute: Callable[..., str | None], notebooks: Path
) -> None:
    for name in ("lab", "pathlib", "queue", "numpy"):
        (notebooks / name).mkdir()
        (notebooks / name / "__init__.py").write_text("raise SystemExit('not mine')")
    assert execute("import lab, pathlib, queue, numpy") is None


def test_a_long_temporary_folder_is_no_obstacle(
    execute: Callable[..., str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.cli.execute.gettempdir", lambda: "/tmp/" + 100 * "x")  # noqa: S108
    assert execute("print('works')") is None


PLACES = {
    "02.rate=20": {"02-single-vs-cluster": {"rate": 20}},
    "single-vs-cluster.rate=1e1": {"02-single-vs-cluster": {"rate": "1e1"}},
    "04.workers=[1, 2]": {"04-worker-scaling": {"workers": [1, 2]}},
    "05-dispatch.kernel=numba": {"05-dispatch": {"kernel": "numba"}},
}


@pytest.mark.parametrize("text", PLACES)
def test_parameters_of_a_notebook_are_changed_by_name(text: str) -> None:
    assert batch.changes([text], None) == PLACES[text]


def test_a_file_of_parameters_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("02: {rate: 20}\nsingle-vs-cluster: {blocks: 2}\nrate-sweep:\n  workers: 2\n")
    assert batch.changes(["02.rate=30"], file) == {
        "02-single-vs-cluster": {"rate": 30, "blocks": 2},
        "03-rate-sweep": {"workers": 2},
    }


@pytest.mark.parametrize(
    ("texts", "content", "said"),
    [
        (["rate=20"], "", "malformed parameter 'rate=20': write NOTEBOOK.NAME=VALUE"),
        (["02.rate"], "", "malformed parameter '02.rate'"),
        (["02.rate=[1"], "", r"malformed parameter '02.rate=\[1'"),
        (["02.rate=*x"], "", "malformed parameter"),
        ([".rate=1"], "", "there is no notebook ''"),
        (["02.run=mine"], "", "02-single-vs-cluster.run cannot be changed: .* --run"),
        ([], "02: {run: mine}", "02-single-vs-cluster.run cannot be changed"),
        ([], "02: {rate: 20}\n? [1]\n: {}", "is not YAML, line 2|there is no notebook"),
        (["99.rate=20"], "", "there is no notebook '99'"),
        ([], "- 1", "must hold the parameters of each notebook"),
        ([], "02: 20", "must hold the parameters of each notebook"),
        ([], "02:\n  rate: [", r"is not YAML, line 2: write lines such as `02: \{rate: 20\}`"),
        ([], "\0", "is not YAML: write lines"),
        ([], None, r"^cannot read .*mine\.yaml: no such file or directory$"),
    ],
)
def test_malformed_changes_are_one_line(
    tmp_path: Path, texts: list[str], content: str | None, said: str
) -> None:
    file = tmp_path / "mine.yaml"
    if content:
        file.write_text(content)
    with pytest.raises(UsageError, match=said) as caught:
        batch.changes(texts, file if content or content is None else None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"raet": 20}, "02-single-vs-cluster: unknown parameter 'raet': did you mean 'rate'?"),
        ({"rate": -1}, "02-single-vs-cluster: parameter rate must be above 0, got -1"),
        ({"workers": 0}, "02-single-vs-cluster: parameter workers must be"),
        ({"workers": 10**6}, "02-single-vs-cluster: parameter workers must be at most "),
        ({"duration_s": 1e9}, "02-single-vs-cluster: parameter duration_s must be at most 86400, got"),
        ({"1": 2}, "02-single-vs-cluster: unknown parameter '1': this notebook has run, duration_s"),
    ],
)
def test_a_changed_parameter_is_checked_before_anything_runs(change: dict[str, object], said: str) -> None:
    names = ["01-hot-loop", "02-single-vs-cluster"]
    with pytest.raises(UsageError) as caught:
        catalog.checked_parameters("smoke", names, {"02-single-vs-cluster": change})
    assert str(caught.value).startswith(said)
    assert "parameters cell" not in str(caught.value), "that is advice for a notebook"


def test_every_profile_is_what_its_notebooks_take() -> None:
    for profile in catalog.profiles():
        found = catalog.checked_parameters(profile, catalog.notebooks(), {})
        assert list(found) == catalog.notebooks()


def test_a_budget_cuts_what_was_not_asked_for_and_the_run_says_what_differs() -> None:
    names = ["02-single-vs-cluster", "03-rate-sweep"]
    asked = {"03-rate-sweep": {"duration_s": 3.0}}
    whole, beyond, cut = catalog.within(float("inf"), "full", names, asked)
    assert (whole, cut) == (catalog.checked_parameters("full", names, asked), "")
    assert beyond == asked
    total_s = sum(catalog.lasts_s(name, values) for name, values in whole.items())
    settings, beyond, cut = catalog.within(0.8 * total_s, "full", names, asked)
    assert cut == "blocks to 6, and trials to shorter ones"
    assert settings["03-rate-sweep"]["duration_s"] == 3.0
    assert settings["02-single-vs-cluster"]["duration_s"] == beyond["02-single-vs-cluster"]["duration_s"]
    assert beyond["02-single-vs-cluster"]["duration_s"] < whole["02-single-vs-cluster"]["duration_s"]
    assert catalog.within(0.8 * total_s, "full", names, asked) == (settings, beyond, cut), "so it resumes"
    assert catalog.checked_parameters("full", names, beyond) == settings


def test_a_budget_too_small_for_anything_is_one_line() -> None:
    with pytest.raises(
        UsageError, match=r"these notebooks take at least .*: give as much, or fewer"
    ) as caught:
        catalog.within(3.0, "quick", ["02-single-vs-cluster"], {})
    assert "\n" not in str(caught.value)
