"""`lab study`: run the notebooks into one run, with progress, and export its report."""

import logging
import math
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import yaml

from lab import processes
from lab.cli.execute import execute
from lab.cli.screen import Watch, watch
from lab.errors import UsageError
from lab.experiments import catalog
from lab.machine import checked_label
from lab.report import write_report
from lab.streams import tell, write_out
from lab.study.manifest import Manifest, other_machine, other_version, takes_nothing_more
from lab.study.run import Run
from lab.study.runs import find_runs, open_run, unfinished_run
from lab.units import clock, parse_duration


def changes(assignments: Sequence[str], file: Path | None) -> dict[str, dict[str, Any]]:
    """Read changes of parameters, by notebook: first from a file, then from NOTEBOOK.NAME=VALUE.

    Raises UsageError for anything malformed, or for an unknown notebook.
    """
    found: dict[str, dict[str, Any]] = {}
    for notebook, values in (_changes_in(file) if file else {}).items():
        (name,) = catalog.matching(str(notebook).zfill(2), catalog.notebooks())  # YAML reads 02 as 2
        found.setdefault(name, {}).update({str(key): value for key, value in values.items()})
    for text in assignments:
        notebook, parameter, value = _assignment(text)
        (name,) = catalog.matching(notebook, catalog.notebooks())
        found.setdefault(name, {})[parameter] = value
    if taken := [name for name, values in found.items() if "run" in values]:
        raise UsageError(f"{taken[0]}.run cannot be changed: all notebooks share the run that --run names")
    return found


def _assignment(text: str) -> tuple[str, str, Any]:
    place, equals, value = text.partition("=")
    notebook, dot, name = place.rpartition(".")
    try:
        if equals and dot and name.isidentifier():
            return notebook, name, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise UsageError(f"malformed parameter {text!r}: write NOTEBOOK.NAME=VALUE, such as 02.rate=20")


def _changes_in(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{file} is not YAML{place}: write lines such as `02: {{rate: 20}}`") from None
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise UsageError(f"{file} must hold the parameters of each notebook, such as `02: {{rate: 20}}`")
    return content


@click.command("study", short_help="Run the notebooks into one run, with a report.")
@click.option(
    "--profile",
    default="",
    help="How much to measure: smoke, quick or full. Default: that of --run, or quick.",
)
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only this notebook, such as 02; may be repeated."
)
@click.option("--run", "run_id", default="", metavar="RUN", help="Add to or resume this run, or begin it.")
@click.option(
    "-p", "assignments", multiple=True, metavar="NOTEBOOK.NAME=VALUE", help="Change a parameter; repeatable."
)
@click.option(
    "--parameters", "file", type=click.Path(path_type=Path), metavar="FILE",
    help="Change parameters: YAML of notebook, name and value.",
)  # fmt: skip
@click.option("--host-label", metavar="NAME", help="What you call this machine, such as rack-3.")
@click.option("--budget", metavar="30m", help="Cut the plan to this time: blocks, trials, then conditions.")
def command(
    profile: str,
    only: tuple[str, ...],
    run_id: str,
    assignments: tuple[str, ...],
    file: Path | None,
    budget: str | None,
    host_label: str | None,
) -> int:
    """Run the notebooks in order into one run, and export its report after each.

    It says first how long that will take. With --budget, whole notebooks' settings come down until it fits:
    blocks to six, then trials to shorter ones, then the longest notebooks to what the quick profile measures.

    Without --run, the newest unfinished run of the same profile, notebooks and parameters is resumed, if it
    was begun on this machine by this version.
    """
    profile = profile or _profile_of(run_id) or catalog.USUAL
    if profile not in catalog.profiles():
        raise UsageError(f"there is no profile {profile!r}: choose one of {', '.join(catalog.profiles())}")
    if host_label == "":
        raise UsageError("--host-label needs a name, such as rack-3: leave it out if the machine has none")
    names = catalog.select(only, profile)
    changed = changes(assignments, file)
    if absent := sorted(set(changed) - set(names)):
        raise UsageError(
            f"{absent[0]} is not run, so its parameters cannot be changed: add --only {absent[0]}"
        )
    budget_s = parse_duration(budget) if budget else math.inf
    parameters, changed, cut = catalog.within(budget_s, profile, names, changed)
    for number in processes.ending_signals():
        signal.signal(number, _interrupt)
    run = _open(profile, names, run_id, changed, checked_label(host_label or ""))
    lasts_s = {name: catalog.lasts_s(name, values) for name, values in parameters.items()}
    _tell_the_time(lasts_s, cut)
    if left := [] if only else sorted(set(catalog.notebooks()) - set(names)):
        tell(f"{profile} leaves out {', '.join(left)}: --only NAME measures one")
    failures: list[str] = []
    try:
        with closing(watch(run, lasts_s)) as watching:
            for done, name in enumerate(names, 1):
                if not _execute(run, name, parameters[name], watching):
                    failures.append(name)
                if done == len(names) and name != catalog.SUMMARY:
                    _state(run)
                report = write_report(run.run_id, to_come=names[done:])
    except KeyboardInterrupt:
        tell("stopped; run the same command again to resume")
        raise
    if failures:
        tell(f"failed: {', '.join(failures)}; the rest is in the report")
    elif run.manifest.state == "unfinished":  # else nothing was added, and it stays as it was
        run.seal()
    write_out(report)
    return 1 if failures else 0


def _state(run: Run) -> None:
    """Have the run keep its estimates, as the summary would: a report links its numbers to their trials."""
    from lab.experiments.summary import estimates  # takes a second to import

    estimates(run)


def _interrupt(number: int, frame: object) -> None:
    """End as on Ctrl-C, even if a shell had SIGINT ignored in the background; once is enough."""
    for each in processes.ending_signals():
        signal.signal(each, signal.SIG_IGN)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the kernel's end is then no news
    raise KeyboardInterrupt


def _profile_of(run_id: str) -> str:
    """Return the profile that a run was begun with; "" if there is none."""
    return next((run.profile for run in find_runs() if run.run_id == run_id), "") if run_id else ""


def _open(
    profile: str, names: list[str], run_id: str, changed: dict[str, dict[str, Any]], host_label: str
) -> Run:
    resumed = run_id or _resumable(profile, names, changed, host_label)
    run = open_run(resumed, profile=profile, notebooks=names, parameters=changed, host_label=host_label)
    if difference := _other_label(run.manifest, host_label):
        raise UsageError(f"run {run.run_id} {difference}: leave out --host-label, or name another run")
    _check_machine(run, names)
    begun = "run" if run.trial_count() else "new run"
    verb = "resuming" if resumed and not run_id else begun
    tell(f"{verb} {run.run_id}: profile {profile}, {run.manifest.machine}")
    if run_id and (difference := other_version(run.manifest)):
        tell(f"warning: {difference}; what is added now cannot be told apart from the rest")
    return run


def _check_machine(run: Run, names: Sequence[str]) -> None:
    """Check that a run of another machine is only read: figures of this one would take the place of its own.

    Raises UsageError, before anything is written.
    """
    if other_machine(run.manifest) and any(map(catalog.measures, names)):
        why = takes_nothing_more(run.manifest, run.path)
        reading = sorted(name for name in catalog.notebooks() if not catalog.measures(name))
        only = " ".join(f"--only {name[:2]}" for name in reading)
        raise UsageError(f"nothing can be added to run {run.run_id}: {why}, or read this one with {only}")


def _tell_the_time(each_s: dict[str, float], cut: str) -> None:
    """Say how long all of it takes, and each notebook; a resumed run has some of it behind it."""
    if cut:
        tell(f"cut to fit the budget: {cut}")
    each = ", ".join(f"{name} {clock(value_s)}" for name, value_s in each_s.items())
    tell(f"about {clock(sum(each_s.values()))} in all: {each}")


def _other_label(begun: Manifest, host_label: str) -> str:
    """Say what the machine was called when the run was begun, if that is another name; else ""."""
    label = begun.machine.label
    return "" if host_label in ("", label) else f"was begun on {label or 'a machine without a label'}"


def _resumable(profile: str, names: list[str], changed: dict[str, dict[str, Any]], host_label: str) -> str:
    """Return the id of the run to resume, or "" for a new one, and say why if that might surprise."""
    if not (run := unfinished_run(profile, names, changed)):
        return ""
    renamed = _other_label(run, host_label)
    if difference := other_machine(run) or other_version(run) or (renamed and f"it {renamed}"):
        tell(f"not resuming {run.run_id}: {difference}; a new run begins")
        return ""
    return run.run_id


def _execute(run: Run, name: str, parameters: dict[str, Any], watching: Watch) -> bool:
    parameters = parameters | {"run": run.run_id}
    started = time.monotonic()
    with watching.running(name):
        failure = execute(name, run.path / "notebooks" / f"{name}.ipynb", parameters)
    watching.ended(name, failure, time.monotonic() - started)
    return failure is None
