"""Where a command's result goes: to stdout, or to a file that must be there when the work is done."""

import os
from pathlib import Path

import click

from lab.errors import LabError


def write_out(text: str) -> None:
    """Print a result. Raises LabError if stdout does not take it, a full disk for one."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise  # nobody reads on, which is no error of ours
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LabError(
            f"cannot write to stdout: {reason}; free some space there, or send it elsewhere"
        ) from None


def check_writable(path: Path) -> None:
    """Find out before the work, not after it. Raises LabError."""
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LabError(
            f"cannot write {path}: {folder} is no folder, or may not be written to; name another place"
        )
