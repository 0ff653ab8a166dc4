"""Execute a notebook in a kernel of its own, which nobody's settings reach and which leaves nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from traitlets.config import Config

from lab import files
from lab.errors import LabError

_KERNEL = ["--IPKernelApp.ignore_cwd=True", "--IPKernelApp.log_level=CRITICAL"]
"""Nothing is imported from the folder it runs in; being told to stop while idle is not an error to log."""

_MOST_PATH = 75
"""The longest path of the folder that holds ours: a socket's path may have 107 bytes."""


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
    return Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel", "shutdown_wait_time": 1.0})


def _leave_word(output: Path, reason: str) -> str:
    """Write into the notebook that its kernel died, which no kernel was left to do; return the reason."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_output

    notebook = nbformat.read(output, as_version=nbformat.NO_CONVERT)
    last_words = new_output("error", ename="KernelDied", evalue=reason, traceback=[f"KernelDied: {reason}"])
    notebook.cells.append(new_code_cell(outputs=[last_words]))
    nbformat.write(notebook, output)
    return f"KernelDied: {reason}"
