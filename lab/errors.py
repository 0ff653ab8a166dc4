"""The errors that a user can fix: each message is one line that says what is wrong and what to do."""

import re
import unicodedata


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


_HIDDEN = {"Cc", "Cf", "Zl", "Zp"}
"""What a terminal may obey instead of showing it: control and format characters, line separators."""


def shown(text: object) -> str:
    """Return a text with all characters but its line ends spelled out that a terminal would obey."""
    return re.sub(r"[^\n -~]", _spelled_out, str(text))


def _spelled_out(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1] if unicodedata.category(found[0]) in _HIDDEN else found[0]
