"""What any server in the background is to its starter, ours or not: it has a log, and it stops at the end."""

import contextlib
from abc import abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from lab.cards import Card, Shown, listed
from lab.errors import LabError
from lab.files import read_small

_LAST_LINES = 6
"""Gunicorn says four things after the reason why its workers ended."""

_SOCKETS, _LISTENS = ("/proc/net/tcp", "/proc/net/tcp6"), "0A"


class RunningServer(Shown):
    """A server that runs in the background; as a context manager, it stops at the end.

    url: where it answers. pid: the process that was started. log_path: what its processes print; deleted when
    it stops, unless it failed; None if they print elsewhere.
    """

    url: str
    pid: int
    log_path: Path | None
    _stopped: bool

    @property
    @abstractmethod
    def workers(self) -> list[int]:
        """The pids of its workers; none once the server is gone."""

    @abstractmethod
    def cpu_s(self) -> float:
        """Return the CPU seconds that its processes, ended ones too, have used so far; NaN if it is gone."""

    @abstractmethod
    def send_signal(self, number: int) -> None:
        """Send the started process a signal, if it still exists."""

    @abstractmethod
    def stop(self) -> None:
        """End it, after what it has accepted is answered or its time is up. Repeating is harmless.

        Raises LabError if one of its processes survives, or if something still listens on its port.
        """

    def listeners(self) -> int:
        """Return how many sockets listen on its port: one that its workers share, or one for each (Linux).

        With several, the kernel hashes connections over them (SO_REUSEPORT).
        """
        port = f":{urlsplit(self.url).port:04X}"
        lines = [line.split() for file in _SOCKETS for line in read_small(Path(file)).splitlines()[1:]]
        return sum(line[1].endswith(port) and line[3] == _LISTENS for line in lines)

    def log(self, lines: int = 20) -> str:
        """Return the end of its log; nothing once it is deleted, or if it prints elsewhere."""
        if self.log_path is None:
            return ""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _with_last_words(self, reason: str) -> str:
        """Add the end of its log to a reason, in one line."""
        tail = " | ".join(line.strip() for line in self.log(_LAST_LINES).splitlines())
        return f"{reason} ({self.log_path}: {tail})" if tail else reason

    @property
    @abstractmethod
    def _kind(self) -> str:
        """What it is, in a word or two."""

    @abstractmethod
    def _about(self) -> dict[str, object]:
        """What is true of it, whether it runs or not."""

    def _workers_now(self) -> list[int]:
        """The pids of its workers, for who only looks and would not wait."""
        return self.workers

    def __repr__(self) -> str:
        return f"<{self._kind}, {self.url}, {'stopped' if self._stopped else f'pid {self.pid}'}>"

    def _card(self) -> Card:
        about = self._about()
        if self._stopped:
            return Card(self._kind, {"state": "stopped", "was at": self.url, **about})
        try:
            pids = self._workers_now()
        except LabError as error:
            return Card(self._kind, {"state": error, "at": self.url, **about})
        state = "running" if pids else "it has no workers: has it ended?"
        return Card(self._kind, {"state": state, "at": self.url, **about, "pids": listed(pids)})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
