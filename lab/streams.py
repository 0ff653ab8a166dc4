"""What a command says: results on stdout, all else on stderr, in characters that the terminal can show."""

import codecs
import contextlib
import io
import sys
import unicodedata

from lab.errors import LabError, one_line

_PLAIN = str.maketrans({"µ": "u", "–": "-"})
"""Substitutes for our own characters that cannot be shown."""

_UNDECODED = range(0xDC80, 0xDD00)
"""How Python represents a byte of a file name that is not text."""


def show_what_can_be_shown() -> None:
    """Show the nearest character if the terminal lacks one, rather than lose the result over it."""
    codecs.register_error("lab-nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lab-nearest")


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all(ord(char) in _UNDECODED for char in text):
        return bytes(ord(char) - 0xDC00 for char in text), error.end
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return plain.encode("ascii", "replace").decode(), error.end


def write_out(text: object) -> None:
    """Print a result. Raises LabError if stdout refuses it, as on a full disk."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise  # the reader is gone: click exits silently
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LabError(
            f"cannot write to stdout: {reason}; free some space there, or send it elsewhere"
        ) from None


def tell(text: object) -> None:
    """Print one line on stderr. If that fails, the work goes on all the same."""
    with contextlib.suppress(OSError):
        print(one_line(text), file=sys.stderr, flush=True)
