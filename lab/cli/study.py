"""`lab study`: run the notebooks into one run, with progress, and export its report."""

import ast
import json
import logging
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import click
import yaml
from traitlets.config import Config

from lab import files, processes
from lab.errors import LabError, UsageError
from lab.progress import followed
from lab.report import write_report
from lab.streams import tell, write_out
from lab.study.manifest import other_machine, other_version
from lab.study.run import Run, find_runs, open_run, unfinished_run
from lab.units import clock, parse_duration

_KERNEL = ["--IPKernelApp.ignore_cwd=True", "--IPKernelApp.log_level=CRITICAL"]
"""Nothing is imported from the folder it runs in; being told to stop while idle is not an error to log."""

_MOST_PATH = 75
"""The longest path of the folder that holds ours: a socket's path may have 107 bytes."""

SUMMARY = "00-summary"
"""The notebook to read first; it runs last, because it only reads what the others measured."""


def notebooks() -> list[str]:
    """Name the notebooks in running order."""
    names = sorted(path.stem for path in files.notebooks().glob("[0-9][0-9]-*.ipynb"))
    return [name for name in names if name != SUMMARY] + [SUMMARY]


def select(wanted: Sequence[str], profile: str = "") -> list[str]:
    """Return the notebooks meant by names such as 02-single-vs-cluster, or 02.

    None means all; of a profile, those that it has a file for, and the summary. Raises UsageError for a name
    that no notebook has.
    """
    known = notebooks()
    chosen = {name for want in wanted for name in _matching(want, known)}
    if wanted or not profile:
        return [name for name in known if not wanted or name in chosen]
    return [name for name in known if name == SUMMARY or _file_of(profile, name).exists()]


def _matching(want: str, known: list[str]) -> list[str]:
    names = [name for name in known if want.removesuffix(".ipynb") in (name, name[:2], name[3:])]
    if not names:
        raise UsageError(f"there is no notebook {want!r}: choose one of {', '.join(sorted(known))}")
    return names


_USUAL = "quick"
"""The profile of who names none."""


def profiles() -> list[str]:
    """Name the profiles."""
    return sorted(path.name for path in (files.notebooks() / "profiles").iterdir() if path.is_dir())


def _file_of(profile: str, notebook: str) -> Path:
    return files.notebooks() / "profiles" / profile / f"{notebook}.yaml"


def profile_parameters(profile: str, notebook: str) -> dict[str, Any]:
    """Return what a profile sets for a notebook; anything else keeps the notebook's default."""
    if not (path := _file_of(profile, notebook)).exists():
        return {}
    try:
        parameters = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError:
        parameters = None
    if not isinstance(parameters, dict):
        raise LabError(f"{path} must hold one parameter per line, such as `rate: 20.0`")
    return parameters


def checked_parameters(
    profile: str, names: Sequence[str], changes: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return what to set for each notebook: what the profile says, then the changes.

    Raises UsageError, before anything is measured, for a value that the notebook would refuse.
    """
    found = {}
    for name in names:
        found[name] = profile_parameters(profile, name) | dict(changes.get(name, {}))
        module = import_module(f"lab.experiments.{name[3:].replace('-', '_')}")
        try:
            module.Parameters.from_batch(_defaults(name), found[name])
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
    return found


def within(
    budget_s: float, profile: str, names: Sequence[str], changed: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], str]:
    """Return what to set for each notebook so that all fit the budget, what of it the profile does not say,
    and in words what was cut.

    Raises UsageError, in one line, if a change is refused or if nothing fits.
    """
    from lab.experiments.forecast import fitted

    whole = checked_parameters(profile, names, changed)
    least = checked_parameters(_USUAL, names, changed) if profile == "full" else whole
    settings, cut = fitted(whole, least, lasts_s, budget_s)
    beyond: dict[str, dict[str, Any]] = {}
    for name, values in settings.items():
        usual = _defaults(name) | profile_parameters(profile, name)
        other = {key: value for key, value in (_defaults(name) | values).items() if usual[key] != value}
        own = dict(changed.get(name, {})) | other
        beyond |= {name: own} if own else {}
    return settings, beyond, cut


def lasts_s(notebook: str, parameters: Mapping[str, Any]) -> float:
    """Return the seconds that a notebook will take with these changes of its defaults."""
    from lab.experiments import forecast

    return forecast.of(notebook, _defaults(notebook) | dict(parameters))


def _defaults(notebook: str) -> dict[str, Any]:
    """Read the values that a notebook's parameters cell sets."""
    cells = json.loads((files.notebooks() / f"{notebook}.ipynb").read_bytes())["cells"]
    (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    lines = ast.parse("".join(cell["source"])).body
    return {
        line.target.id: ast.literal_eval(line.value)
        for line in lines
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value
    }


def changes(assignments: Sequence[str], file: Path | None) -> dict[str, dict[str, Any]]:
    """Read changes of parameters, by notebook: first from a file, then from NOTEBOOK.NAME=VALUE.

    Raises UsageError for anything malformed, or for an unknown notebook.
    """
    found: dict[str, dict[str, Any]] = {}
    for notebook, values in (_changes_in(file) if file else {}).items():
        (name,) = _matching(str(notebook).zfill(2), notebooks())  # YAML reads 02 as 2
        found.setdefault(name, {}).update({str(key): value for key, value in values.items()})
    for text in assignments:
        notebook, parameter, value = _assignment(text)
        (name,) = _matching(notebook, notebooks())
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
        raise UsageError(f"cannot read {file}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise UsageError(f"{file} must hold the parameters of each notebook, such as `02: {{rate: 20}}`")
    return content


def execute(notebook: str, output: Path, parameters: dict[str, Any]) -> str | None:
    """Execute a notebook into `output`; return None, or in one line why it failed.

    In either case, `output` holds what it had shown by then.
    """
    import papermill

    output.parent.mkdir(parents=True, exist_ok=True)
    folder = files.notebooks() if files.checkout() else files.home()
    try:
        with _private_folder() as private, _environment(private):
            papermill.execute_notebook(
                files.notebooks() / f"{notebook}.ipynb", output, parameters=parameters,
                kernel_name="python3", cwd=folder, progress_bar=False,
                config=_spoken_to_in(private), extra_arguments=_KERNEL,
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {' '.join(str(error.evalue).split())}"
    except RuntimeError as error:  # nbclient's DeadKernelError among them
        return _leave_word(output, " ".join(str(error).split()))
    return None


@contextmanager
def _private_folder() -> Iterator[str]:
    """Yield a folder for all that a kernel and its processes leave behind; it is deleted with them.

    Raises LabError if every possible folder's name is too long for a socket's path.
    """
    for place in (gettempdir(), "/tmp", "/dev/shm"):  # noqa: S108 - the folder in it is private
        if len(place) <= _MOST_PATH and os.access(place, os.W_OK):
            with TemporaryDirectory(prefix="scaling-lab-", dir=place) as private:
                yield private
            return
    raise LabError(
        f"the temporary folder's name is too long for a socket: set TMPDIR to one shorter than {gettempdir()}"
    )


@contextmanager
def _environment(private: str) -> Iterator[None]:
    """Have a kernel of this Python use this folder, and only our settings; results go where ours do."""
    ours = {
        files.HOME: str(files.home()),
        "TMPDIR": private,
        "IPYTHONDIR": f"{private}/ipython",
        "JUPYTER_DATA_DIR": f"{private}/data",
        "JUPYTER_RUNTIME_DIR": f"{private}/runtime",
        "JUPYTER_PATH": "",  # otherwise another Python might be called python3
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONSAFEPATH": "1",  # nothing is imported from where it runs
        "PYTHONSTARTUP": "",
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _spoken_to_in(folder: str) -> Config:
    """Speak to the kernel through sockets in a private folder, not over TCP, which others could read."""
    return Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})


def _leave_word(output: Path, reason: str) -> str:
    """Write into the notebook that its kernel died, which no kernel was left to do; return the reason."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_output

    notebook = nbformat.read(output, as_version=nbformat.NO_CONVERT)
    last_words = new_output("error", ename="KernelDied", evalue=reason, traceback=[f"KernelDied: {reason}"])
    notebook.cells.append(new_code_cell(outputs=[last_words]))
    nbformat.write(notebook, output)
    return f"KernelDied: {reason}"


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
@click.option("--budget", metavar="30m", help="Cut the plan to this time: blocks, trials, then conditions.")
def command(
    profile: str,
    only: tuple[str, ...],
    run_id: str,
    assignments: tuple[str, ...],
    file: Path | None,
    budget: str | None,
) -> int:
    """Run the notebooks in order into one run, and export its report after each.

    It says first how long that will take. With --budget, whole notebooks' settings come down until it fits:
    blocks to six, then trials to shorter ones, then the longest notebooks to what the quick profile measures.

    Without --run, the newest unfinished run of the same profile, notebooks and parameters is resumed, if it
    was begun on this machine by this version.
    """
    profile = profile or _profile_of(run_id) or _USUAL
    if profile not in profiles():
        raise UsageError(f"there is no profile {profile!r}: choose one of {', '.join(profiles())}")
    names = select(only, profile)
    changed = changes(assignments, file)
    if absent := sorted(set(changed) - set(names)):
        raise UsageError(
            f"{absent[0]} is not run, so its parameters cannot be changed: add --only {absent[0]}"
        )
    budget_s = parse_duration(budget) if budget else math.inf
    parameters, changed, cut = within(budget_s, profile, names, changed)
    for number in processes.ending_signals():
        signal.signal(number, _interrupt)
    run = _open(profile, names, run_id, changed)
    _tell_the_time(parameters, cut)
    if left := [] if only else sorted(set(notebooks()) - set(names)):
        tell(f"{profile} leaves out {', '.join(left)}: --only measures it")
    failures: list[str] = []
    try:
        for name in names:
            if not _execute(run, name, parameters[name]):
                failures.append(name)
            report = write_report(run.run_id, to_come=names[names.index(name) + 1 :])
        if SUMMARY not in names:
            _state(run)
            report = write_report(run.run_id, to_come=())
    except KeyboardInterrupt:
        tell("stopped; run the same command again to resume")
        raise
    if failures:
        tell(f"failed: {', '.join(failures)}; the rest is in the report")
    else:
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


def _open(profile: str, names: list[str], run_id: str, changed: dict[str, dict[str, Any]]) -> Run:
    resumed = run_id or _resumable(profile, names, changed)
    run = open_run(resumed, profile=profile, notebooks=names, parameters=changed)
    verb = "resuming" if resumed and not run_id else "run"
    tell(f"{verb} {run.run_id}: profile {profile}, {run.manifest.machine}")
    if run_id and (difference := other_version(run.manifest)):
        tell(f"warning: {difference}; what is added now cannot be told apart from the rest")
    return run


def _tell_the_time(parameters: dict[str, dict[str, Any]], cut: str) -> None:
    """Say how long all of it takes, and each notebook; a resumed run has some of it behind it."""
    each_s = {name: lasts_s(name, values) for name, values in parameters.items()}
    if cut:
        tell(f"cut to fit the budget: {cut}")
    each = ", ".join(f"{name} {clock(value_s)}" for name, value_s in each_s.items())
    tell(f"about {clock(sum(each_s.values()))} in all: {each}")


def _resumable(profile: str, names: list[str], changed: dict[str, dict[str, Any]]) -> str:
    """Return the id of the run to resume, or "" for a new one, and say why if that might surprise."""
    if not (run := unfinished_run(profile, names, changed)):
        return ""
    if difference := other_machine(run) or other_version(run):
        tell(f"not resuming {run.run_id}: {difference}; a new run begins")
        return ""
    return run.run_id


def _execute(run: Run, name: str, parameters: dict[str, Any]) -> bool:
    parameters = parameters | {"run": run.run_id}
    started = time.monotonic()
    with followed(run.path, name):
        failure = execute(name, run.path / "notebooks" / f"{name}.ipynb", parameters)
    outcome = f"failed: {failure}" if failure else "done"
    tell(f"{name}: {outcome}, after {time.monotonic() - started:.0f} s")
    return failure is None
