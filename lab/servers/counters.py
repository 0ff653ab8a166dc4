"""What a worker has done so far, in memory that its starter can read even if the worker is busy or dead."""

import contextlib
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

_LAYOUT = struct.Struct("qdq")


@dataclass(frozen=True)
class WorkerCounters:
    """One worker's figures since it started: requests answered, and seconds spent in the hot loop.

    index: its place among the workers; restarts: how many workers held that place before it.
    """

    index: int
    pid: int
    requests: int
    busy_s: float
    restarts: int


class SharedCounts:
    """Requests, busy seconds and received connections, in memory shared by all who map the same file."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, _LAYOUT.size)
        self._last = (0, 0.0, 0)

    @classmethod
    @contextlib.contextmanager
    def new(cls) -> Iterator[tuple[Self, int]]:
        """Yield new counts, and the file descriptor to pass on, which is closed at the end."""
        with tempfile.TemporaryFile() as file:
            file.truncate(_LAYOUT.size)
            yield cls(file.fileno()), file.fileno()

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """Return the counts that were passed on as `fd`, and close `fd`."""
        try:
            return cls(fd)
        finally:
            os.close(fd)

    def add(self, *, requests: int = 0, busy_s: float = 0.0, received: int = 0) -> None:
        """Add to the counts."""
        counted, spent_s, taken = self._all()
        _LAYOUT.pack_into(self._memory, 0, counted + requests, spent_s + busy_s, taken + received)

    def read(self) -> tuple[int, float]:
        """Return the requests and the busy seconds."""
        requests, busy_s, _ = self._all()
        return requests, busy_s

    @property
    def received(self) -> int:
        """The connections that were passed on to it and have arrived, whether or not it could take them."""
        return self._all()[2]

    def _all(self) -> tuple[int, float, int]:
        if not self._memory.closed:
            requests, busy_s, received = _LAYOUT.unpack_from(self._memory)
            self._last = requests, busy_s, received
        return self._last

    def close(self) -> None:
        """Release the memory; the last values stay known."""
        self._all()
        self._memory.close()
