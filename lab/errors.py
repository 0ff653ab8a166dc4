"""The errors that a user can fix: each message is one line that says what is wrong and what to do."""


class LabError(Exception):
    """The work could not be done; a command exits with status 1."""

    def _render_traceback_(self) -> list[str]:
        """Show one line in a notebook, too: IPython and papermill ask an exception for this."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(LabError, ValueError):
    """The request is invalid; a command exits with status 2."""


def one_line(text: object) -> str:
    """Return a text as one line, whoever wrote it: terminal control characters are spelled out."""
    line = " ".join(str(text).split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
