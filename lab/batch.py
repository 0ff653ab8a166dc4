"""Run the notebooks by papermill, one after the other, into one run: what `lab study` does."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from traitlets.config import Config

from lab import paths
from lab.errors import LabError, UsageError

_QUIET = ["--IPKernelApp.log_level=CRITICAL"]
"""A kernel that is told to stop while it is idle would log that as an error of its own."""

SUMMARY = "00-summary"
"""The notebook that is read first and runs last, because it only reads what the others measured."""


def notebooks() -> list[str]:
    """Name the notebooks in the order in which they run."""
    names = sorted(path.stem for path in paths.notebooks().glob("[0-9][0-9]-*.ipynb"))
    return [name for name in names if name != SUMMARY] + [SUMMARY]


def select(wanted: Sequence[str]) -> list[str]:
    """Return the notebooks meant by names such as 02-single-vs-cluster, or 02; none means all.

    Raises UsageError for a name that no notebook has.
    """
    known = notebooks()
    chosen = {name for want in wanted for name in _matching(want, known)}
    return [name for name in known if not wanted or name in chosen]


def _matching(want: str, known: list[str]) -> list[str]:
    names = [name for name in known if want.removesuffix(".ipynb") in (name, name[:2], name[3:])]
    if not names:
        raise UsageError(f"there is no notebook {want!r}: choose one of {', '.join(sorted(known))}")
    return names


def profiles() -> list[str]:
    """Name the profiles."""
    return sorted(path.name for path in (paths.notebooks() / "profiles").iterdir() if path.is_dir())


def profile_parameters(profile: str, notebook: str) -> dict[str, Any]:
    """Return what a profile sets for a notebook; what it does not set keeps the notebook's own default."""
    path = paths.notebooks() / "profiles" / profile / f"{notebook}.yaml"
    if not path.exists():
        return {}
    try:
        parameters = yaml.safe_load(path.read_text())
    except yaml.YAMLError:
        parameters = None
    if not isinstance(parameters, dict):
        raise LabError(f"{path} should hold a parameter a line, such as `rate: 20.0`")
    return parameters


def execute(notebook: str, output: Path, parameters: dict[str, Any]) -> str | None:
    """Execute a notebook into `output`, and return None, or in one line why it failed.

    What it had shown by then is in `output` in either case.
    """
    import papermill

    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix="scaling-lab-") as private:
            papermill.execute_notebook(
                paths.notebooks() / f"{notebook}.ipynb", output, parameters=parameters,
                kernel_name="python3", cwd=paths.notebooks(), progress_bar=False,
                config=_spoken_to_in(private), extra_arguments=_QUIET,
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {' '.join(str(error.evalue).split())}"
    except RuntimeError as error:  # nbclient's DeadKernelError among them
        return _leave_word(output, " ".join(str(error).split()))
    return None


def _spoken_to_in(folder: str) -> Config:
    """Speak to the kernel through sockets in a private folder, not over TCP, which others could read."""
    return Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})


def _leave_word(output: Path, reason: str) -> str:
    """Write into the notebook that its kernel died, as no kernel was left to do so; return the reason."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_output

    notebook = nbformat.read(output, as_version=nbformat.NO_CONVERT)
    last_words = new_output("error", ename="KernelDied", evalue=reason, traceback=[f"KernelDied: {reason}"])
    notebook.cells.append(new_code_cell(outputs=[last_words]))
    nbformat.write(notebook, output)
    return f"KernelDied: {reason}"
