"""Where things are, and how to write files whole or not at all: beside their place, then renamed."""

import contextlib
import errno
import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lab.errors import LabError, UsageError

HOME = "SCALING_LAB_HOME"
"""The environment variable that names the folder for results."""

REFERENCE = "reference"
"""The run that is committed with the code."""

_PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """Return the checkout that this package is in; None if it was installed from a wheel."""
    return _PACKAGE.parent if (_PACKAGE.parent / "pyproject.toml").exists() else None


def reference() -> Path | None:
    """Return the folder of the run that is committed with the code; None outside a checkout."""
    root = checkout()
    return root / "data" / REFERENCE if root else None


def home() -> Path:
    """Return the folder for results: `SCALING_LAB_HOME`, else the checkout, else the current folder."""
    return Path(os.environ.get(HOME) or checkout() or Path.cwd()).resolve()


def notebooks() -> Path:
    """Return the folder of the notebooks; a wheel has it inside the package."""
    return (checkout() or _PACKAGE) / "notebooks"


def named(run_id: str) -> str:
    """Return the name of a run. Raises UsageError if it cannot name a folder; it is never a path."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run_id):
        raise UsageError(f"a run's name consists of letters, digits, '.', '_' and '-', got {run_id!r}")
    return run_id


def data() -> Path:
    """Return the folder with one folder per run."""
    return home() / "data"


def figures() -> Path:
    """Return the folder that figures are exported to."""
    return home() / "figures"


def reports() -> Path:
    """Return the folder with one report per run."""
    return home() / "reports"


KINDS = ("asked", "calibrations", "events", "requests", "tables", "trials")
"""The folders of a run, by what their tables hold."""

TABLE = re.compile(
    rf"(?=.{{0,200}}$)(?P<kind>{'|'.join(KINDS)})/(?P<stem>[a-z0-9][a-z0-9-]*(\.[a-z0-9-]+)*)\.parquet"
)
"""The path of a table within its run."""


def tables_in(folder: Path) -> list[str]:
    """Name the files that hold what was measured; executed notebooks can be remade from them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet"))


TEMPORARY = ".partial"
"""How a file's name ends while it is being written; the name begins with a dot."""


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`, creating its folder if needed.

    Raises LabError as `replacing` does.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; it takes the name `path` once all of it is on disk.

    A kill or a full disk never leaves part of it there. It keeps the mode and owner of the file that it
    replaces, and follows a symbolic link; a device or pipe is written to directly, all at once. Raises
    LabError if it cannot be written.
    """
    with writing_to(path):
        before = path.stat() if path.exists() else None
        if before is None or stat.S_ISREG(before.st_mode):
            with _taking_its_place(Path(os.path.realpath(path)), before) as file:
                yield file
        else:
            yield (content := io.BytesIO())
            path.write_bytes(content.getvalue())


@contextlib.contextmanager
def _taking_its_place(path: Path, before: os.stat_result | None) -> Iterator[BinaryIO]:
    if before and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            if before:
                _keep_owner_and_mode(file.fileno(), before)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _keep_owner_and_mode(descriptor: int, before: os.stat_result) -> None:
    """Set them as far as the system lets us: the content is worth more."""
    with contextlib.suppress(OSError):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def read_small(path: Path) -> str:
    """Return the text of a small system file, or nothing where it is missing or may not be read."""
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def check_writable(path: Path) -> None:
    """Check, before the work, whether `replacing` could write there. Raises LabError if not."""
    folder = Path(os.path.realpath(path)).parent
    if path.exists() and not os.access(path, os.W_OK):
        raise LabError(f"cannot write {path}: permission denied; name another file")
    if (not path.exists() or path.is_file()) and not os.access(folder, os.W_OK | os.X_OK):
        raise LabError(f"cannot write {path}: {folder} is not a writable folder; name another place")


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn the system's error about writing `path` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LabError(
            f"cannot write {path}: {reason}; free some space there, or name a writable folder"
            " (for runs, in SCALING_LAB_HOME)"
        ) from error


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
