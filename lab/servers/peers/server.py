"""A running peer: what a foreign server has, and what trials also ask of a server of ours."""

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from lab.errors import LabError, UsageError
from lab.servers.foreign import ForeignServer, ForeignSpec

WORKERS = "SCALING_LAB_WORKERS"
"""The environment variable that names the folder in which each worker that is ready leaves its pid."""

_POLL_S = 0.02
_CLOCK_S = 1.0
"""How far the start of a process and the time of a file may be off each other: the system rounds both."""


def new_folder() -> Path:
    """Return a new folder for what one server needs on disk."""
    folder = Path(tempfile.mkdtemp(prefix="scaling-lab-"))
    (folder / "workers").mkdir()
    return folder


class PeerServer(ForeignServer):
    """A running peer; as a context manager, it stops at the end. It is ready when all its workers accept.

    name: that of the peer. folder: what it needs on disk, removed with it.
    """

    def __init__(
        self, name: str, spec: ForeignSpec, folder: Path, reload: "Callable[[PeerServer], None] | None"
    ) -> None:
        """Start it, and return when all its workers accept. `reload` has it replace them; None if it cannot.

        Raises LabError as `ForeignServer` does.
        """
        self.name = name
        self.folder = folder
        self._reload = reload
        super().__init__(spec, leftovers=[folder])

    @property
    def workers(self) -> list[int]:
        """The pids of the workers that have become ready and still exist."""
        found = []
        for mark in (self.folder / "workers").glob("*"):
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                process = psutil.Process(int(mark.name))
                same = process.create_time() <= mark.stat().st_mtime + _CLOCK_S  # or the pid is another's now
                if same and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return sorted(found)

    def recycle(self) -> None:
        """Have it replace its workers in its own way; return when the last of the old ones is gone.

        Raises UsageError if it cannot; LabError if it has not done so in time.
        """
        if self._reload is None:
            raise UsageError(f"{self.name} cannot replace its workers: stop it, and start another")
        before = set(self.workers)
        self._reload(self)
        within_s = self.spec.start_timeout_s + self.spec.drain_s
        deadline_s = time.monotonic() + within_s
        while len(now := set(self.workers)) < self.spec.workers or now & before:
            if time.monotonic() > deadline_s:
                late = f"{self.name} has not replaced its workers within {within_s:g} s"
                raise LabError(self._with_last_words(late))
            time.sleep(_POLL_S)

    def throttling(self) -> None:
        """Return None: it is under no quota of ours."""

    def _answers(self) -> bool:
        return len(self.workers) >= self.spec.workers and super()._answers()
