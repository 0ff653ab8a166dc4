"""What a command says: results on stdout, all else on stderr, each with what its reader can show."""

import codecs
import contextlib
import io
import sys
import unicodedata

from lab.errors import LabError, one_line

_PLAIN = str.maketrans({"µ": "u", "–": "-"})
"""How characters of our own are written where they cannot be shown."""

_UNDECODED = range(0xDC80, 0xDD00)
"""How Python holds a byte of a file's name that is no text."""


def show_what_can_be_shown() -> None:
    """Have a terminal that lacks a character show the nearest one, instead of losing the result over it."""
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
    """Print a result. Raises LabError if stdout does not take it, a full disk for one."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise  # nobody reads on: click leaves without a word
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LabError(
            f"cannot write to stdout: {reason}; free some space there, or send it elsewhere"
        ) from None


def tell(text: object) -> None:
    """Say something on stderr, in one line. If nobody can hear it, the work goes on all the same."""
    with contextlib.suppress(OSError):
        print(one_line(text), file=sys.stderr, flush=True)
