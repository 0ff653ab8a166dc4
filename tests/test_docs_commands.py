"""The pages as they are followed: every command and every example in them runs."""

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers.lab_command import start
from helpers.pages import CONTRIBUTING, DOCS, PAGES, README, ROOT, Page
from helpers.scripted_search import Scripted

import lab
from lab import cli
from lab.experiments import catalog
from lab.experiments.summary import estimates
from lab.servers import Server, serve
from lab.study.archive import export_run, import_run
from lab.study.run import Run
from lab.study.runs import damage, open_run

STANDS_FOR = {"RUN": "reference", "NAME": "least-busy", "COMMAND": "runs", "14": "01"}
"""What a reader puts in place of a word in capitals, and of the notebook that is yet to be written."""

MANUALS = [README, CONTRIBUTING, *DOCS]
"""The pages with commands of today."""

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+(/api/orders)?")
_PROGRAM = re.compile(r"(\.venv/bin/)?(lab|make|papermill|pytest|python|conda|source) ")


def _commands() -> list[str]:
    """Return every command of the pages once: lines of blocks, and what stands as code in text and tables."""
    lines = [line for page in MANUALS for block in page.blocks("sh") for line in block.splitlines()]
    spans = [span for page in MANUALS for span in page.spans() if _PROGRAM.match(span)]
    parts = [part.strip() for text in (*lines, *spans) for part in text.split(" && ")]
    return sorted(set(filter(None, parts)))


def _words(command: str) -> list[str]:
    """Return the words of a command as a shell splits them, with the program's name alone."""
    program, *words = shlex.split(command, comments=True) or [""]
    return [program.removeprefix(".venv/bin/"), *(STANDS_FOR.get(word, word) for word in words)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The server that the pages' addresses stand for."""
    with serve(workers=2, iterations=1000) as running:
        yield running


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """A folder as a reader of the pages has it: runs, an archive of one, records, an application."""
    home = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALING_LAB_HOME", str(home))
        _copy_scaling(home / "data" / "reference")
        import_run(export_run("reference", home / "run.zip"), "theirs")
        page = home / "data" / "reference" / "notebooks" / "00-summary.ipynb"
        page.parent.mkdir(exist_ok=True)  # a checkout may have a report of its own
        page.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    lab.attack(server.url, rate=20, duration=0.2).save(home / "ramp.parquet")
    (application,) = (
        block for page in DOCS for block in page.blocks("python") if block.startswith("def app(")
    )
    (home / "app.py").write_text(application)
    return home


def _copy_scaling(run: Path) -> None:
    """Copy the reference run's trials of worker scaling alone: what they say is computed sooner."""
    shutil.copytree(ROOT / "data" / "reference", run)
    for table in run.rglob("*.parquet"):
        if table.parent.name != "tables" and not table.name.startswith("worker-scaling."):
            table.unlink()
    open_run("reference").seal()


@pytest.fixture
def here(prepared: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which a command runs."""
    shutil.copytree(prepared, home, dirs_exist_ok=True)
    monkeypatch.chdir(home)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return home


@pytest.mark.parametrize("command", _commands())
def test_a_command_does_what_it_is_there_for(
    command: str,
    here: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program, *words = _words(command)
    if comment := re.search(r" # (.*)", command):
        (here / "mine.yaml").write_text(comment[1])
    words = [_ADDRESS.sub(lambda found: server.url + "/api/slow" * bool(found[1]), word) for word in words]
    if program != "lab":
        _OTHERS[program](words)
    elif words[0] == "serve" and words[1:]:
        _serves(here, words)
    else:
        _runs(words, monkeypatch, capsys)
    assert damage() == [], "whatever a command is there for, what was measured stays as it was"


def _runs(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command of the lab, shortened; a study is only planned, in a time in which nothing fits."""
    monkeypatch.setattr("lab.study.size.Search", Scripted)
    monkeypatch.setattr("lab.cli.size._report", lambda run, kept: run.path)
    monkeypatch.setattr("lab.cli.compare.estimates", _estimates)
    monkeypatch.setattr("lab.cli.doctor.ceiling.RATES_RPS", (50.0,))
    monkeypatch.setattr("lab.cli.doctor._STEP_S", 0.2)
    if words[0] == "import":
        shutil.rmtree("data/theirs")
    if words[0] == "export":
        Path("run.zip").unlink()
    name, *options = words
    plain = options == []
    if name == "attack":
        options = [re.sub(r"\b\d+s\b", "0.2s", option) for option in options]
    at = options.index("--") if "--" in options else len(options)
    shorter = ["--help"] if plain else _SHORTER.get("size --" if at < len(options) else name, [])
    shortened = [name, *options[:at], *shorter, *options[at:]]
    with pytest.raises(SystemExit) as left:
        cli.main(shortened)
    said = capsys.readouterr()
    if name == "study" and not plain:
        assert said.err.startswith("lab: these notebooks take at least")
    else:
        assert left.value.code == 0 or name == "doctor", said.err
        assert said.out or said.err


@cache
def _stated_by_the_reference() -> pd.DataFrame:
    return estimates(open_run("reference"))


def _estimates(run: Run) -> pd.DataFrame:
    """Return what both runs state, for they hold the same: it takes seconds to compute."""
    assert run.run_id in ("reference", "theirs")
    return _stated_by_the_reference()


_SHORTER = {
    "study": ["--budget", "1s"],
    "sustained": ["--duration", "0.2s", "--max-rate", "20"],
    "size": ["--duration", "0.2s"],
    "size --": ["--duration", "0.2s", "--workers", "1"],
}
"""Options that keep a test short; the last of one name counts."""


def _serves(here: Path, words: list[str]) -> None:
    port = words.index("--port") + 1 if "--port" in words else None
    free = ["0" if place == port else word for place, word in enumerate(words)]
    with start(here, "lab", *free, "--iterations", "1000") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0


def _make(words: list[str]) -> None:
    done = subprocess.run(
        [shutil.which("make") or "make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _papermill(words: list[str]) -> None:
    """Have papermill read its options; the parameters are those of a study, which is then planned."""
    from papermill.cli import papermill  # takes seconds, unless a command of ours ran before

    if words == ["--help-notebook"]:
        name = "02-single-vs-cluster"
        with redirect_stdout(StringIO()) as said, pytest.raises(SystemExit, match="0"):
            papermill.main([str(ROOT / "notebooks" / f"{name}.ipynb"), *words])
        listed = re.findall(r"^ +(\w+): .*\(default ", said.getvalue(), re.MULTILINE)
        assert listed == list(catalog.defaults(name))
        return
    given = papermill.make_context("papermill", list(words)).params
    files = [yaml.safe_load((ROOT / name).read_text()) for name in given["parameters_file"]]
    values = {**dict(given["parameters"]), **{key: value for one in files for key, value in one.items()}}
    notebook = Path(given["notebook_path"])
    assert (ROOT / notebook).exists()
    changes = [word for key, value in values.items() for word in ("-p", f"{notebook.stem}.{key}={value}")]
    with pytest.raises(SystemExit) as left:
        cli.main(["study", "--only", notebook.stem, *changes, "--budget", "1s"])
    assert left.value.code == 2


def _pytest(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *words],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0


def _python(words: list[str]) -> None:
    command = runpy.run_path(str(ROOT / words[0]))["main"]
    command.__globals__["estimates"] = _estimates
    assert command(words[1:]) == 0


def _conda(words: list[str]) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert {"create": "environment.yml", "activate": environment["name"]}[
        words[0 if words[0] != "env" else 1]
    ] == words[-1]


def _source(words: list[str]) -> None:
    assert words == [".venv/bin/activate"]


_OTHERS: dict[str, Callable[[list[str]], None]] = {
    "make": _make,
    "papermill": _papermill,
    "pytest": _pytest,
    "python": _python,
    "conda": _conda,
    "source": _source,
}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.blocks("python")], ids=lambda page: page.name
)
def test_what_a_page_shows_in_python_runs(page: Page, here: Path) -> None:
    text = "\n".join(page.blocks("python")).replace("duration=10", "duration=0.5")
    exec(compile(text, page.name, "exec"), {})  # noqa: S102 - it is our own
    assert damage() == [], "what was measured stays as it was"
