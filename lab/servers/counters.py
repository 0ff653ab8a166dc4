"""What a worker has done so far, in memory that its starter reads, however busy or dead the worker is."""

import contextlib
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

_LAYOUT = struct.Struct("qd")


@dataclass(frozen=True)
class WorkerCounters:
    """One worker in figures, since it started: requests answered, and seconds that the hot loop took of them.

    index: its place among the workers; restarts: how many workers held that place before it.
    """

    index: int
    pid: int
    requests: int
    busy_s: float
    restarts: int


class SharedCounts:
    """Two numbers, requests and busy seconds, in memory shared by whoever maps the same file."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, _LAYOUT.size)
        self._last = (0, 0.0)

    @classmethod
    @contextlib.contextmanager
    def new(cls) -> Iterator[tuple[Self, int]]:
        """Give a new one, and the file descriptor to pass on, which is closed again at the end."""
        with tempfile.TemporaryFile() as file:
            file.truncate(_LAYOUT.size)
            yield cls(file.fileno()), file.fileno()

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Return the one that was passed on as `fd`, which is closed."""
        try:
            return cls(fd)
        finally:
            os.close(fd)

    def add(self, *, requests: int = 0, busy_s: float = 0.0) -> None:
        """Count more."""
        counted, spent_s = self.read()
        _LAYOUT.pack_into(self._memory, 0, counted + requests, spent_s + busy_s)

    def read(self) -> tuple[int, float]:
        """Return the requests and the busy seconds."""
        if not self._memory.closed:
            requests, busy_s = _LAYOUT.unpack_from(self._memory)
            self._last = requests, busy_s
        return self._last

    def close(self) -> None:
        """Let go of the memory; `read` goes on returning what it said last."""
        self.read()
        self._memory.close()
