"""`lab study`: run the notebooks into one run, with progress, and export its report."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from lab import batch
from lab.errors import UsageError
from lab.report import write_report
from lab.study.manifest import other_machine, other_version
from lab.study.progress import NAME as PROGRESS
from lab.study.run import Run, open_run
from lab.study.runs import unfinished_run

_POLL_S = 0.5


@click.command("study")
@click.option(
    "--profile", default="quick", show_default=True, help="How much to measure: smoke, quick or full."
)
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only this notebook, such as 02; may be repeated."
)
@click.option("--run", "run_id", default="", metavar="RUN", help="Add to or resume this run.")
def command(profile: str, only: tuple[str, ...], run_id: str) -> int:
    """Run the notebooks in order into one run and export its report.

    Without --run, the newest unfinished run of the same profile and notebooks is resumed, if it was begun on
    this machine by this version.
    """
    if profile not in batch.profiles():
        raise UsageError(f"there is no profile {profile!r}: choose one of {', '.join(batch.profiles())}")
    names = batch.select(only)
    run = _open(profile, names, run_id)
    try:
        failures = [name for name in names if not _execute(run, profile, name)]
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on where it was", err=True)
        raise
    if not failures:
        run.seal()
    report = write_report(run.run_id)
    if failures:
        click.echo(f"failed: {', '.join(failures)}; the rest is in the report", err=True)
    click.echo(report)
    return 1 if failures else 0


def _open(profile: str, names: list[str], run_id: str) -> Run:
    resumed = run_id or _resumable(profile, names)
    run = open_run(resumed, profile=profile, notebooks=names)
    verb = "resuming" if resumed and not run_id else "run"
    click.echo(f"{verb} {run.run_id}: profile {profile}, {run.manifest.machine}", err=True)
    if run_id and (difference := other_version(run.manifest)):
        click.echo(f"warning: {difference}; what is added now is not told apart from the rest", err=True)
    return run


def _resumable(profile: str, names: list[str]) -> str:
    """Return the id of the run to resume, or "" for a new one, and say why when that might surprise."""
    if not (run := unfinished_run(profile, names)):
        return ""
    if difference := other_machine(run) or other_version(run):
        click.echo(f"not resuming {run.run_id}: {difference}; a new run begins", err=True)
        return ""
    return run.run_id


def _execute(run: Run, profile: str, name: str) -> bool:
    parameters = batch.profile_parameters(profile, name) | {"run": run.run_id}
    started = time.monotonic()
    with _progress_shown(run.path / PROGRESS, name):
        failure = batch.execute(name, run.path / "notebooks" / f"{name}.ipynb", parameters)
    outcome = f"failed: {failure}" if failure else "done"
    click.echo(f"{name}: {outcome}, after {time.monotonic() - started:.0f} s", err=True)
    return failure is None


@contextmanager
def _progress_shown(file: Path, name: str) -> Iterator[None]:
    """While the notebook runs, follow the file in which its measurement says how far it is."""
    file.unlink(missing_ok=True)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(file, name, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(file: Path, name: str, done: threading.Event) -> None:
    terminal = sys.stderr.isatty()
    shown = ""
    while not done.wait(_POLL_S):
        line = f"{name}: {_state(file)}"
        if line != shown:
            shown = line
            click.echo(f"\r\033[K{line}" if terminal else line, err=True, nl=not terminal)
    if terminal:
        click.echo("\r\033[K", err=True, nl=False)


def _state(file: Path) -> str:
    try:
        state = json.loads(file.read_text())
    except (OSError, ValueError):
        return "running"
    if not state["current"]:
        return "reading what was measured"
    place = f"trial {state['done'] + 1} of {state['total']}"
    return f"{place}, about {state['left_s']:.0f} s left ({state['current']})"
