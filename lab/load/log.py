"""What a generator notes while it sends: flat arrays, 40 bytes a request, that cross a pipe as they are."""

from array import array
from collections.abc import Iterator
from typing import IO, BinaryIO

from lab.load.outcomes import Outcome

COLUMNS = {
    "sent_s": "d",
    "end_s": "d",
    "service_s": "d",
    "outcome": "B",
    "status": "H",
    "worker": "i",
    "bytes_in": "q",
    "waited": "B",
}
"""Each column's type code, as in the module `array`; numpy knows the same codes."""

_NAN = float("nan")


class Log:
    """One row per planned request: times in seconds from the start, NaN and 0 for what did not happen.

    A row begins as dropped, is unfinished once sent, and gets another outcome when its answer is in: so the
    outcomes sum to what was planned, whenever one looks.
    """

    def __init__(self, planned: int) -> None:
        self.sent_s = array("d", [_NAN]) * planned
        self.end_s = array("d", [_NAN]) * planned
        self.service_s = array("d", [_NAN]) * planned
        self.outcome = array("B", [Outcome.DROPPED]) * planned
        self.status = array("H", [0]) * planned
        self.worker = array("i", [0]) * planned
        self.bytes_in = array("q", [0]) * planned
        self.waited = array("B", [0]) * planned  # 1: for a slot of the in-flight limit

    def send_to(self, stream: BinaryIO) -> None:
        """Write the columns to a pipe, one after the other."""
        for name in COLUMNS:
            stream.write(memoryview(getattr(self, name)).cast("B"))


def read_columns(stream: IO[bytes], planned: int) -> Iterator[tuple[str, bytes]]:
    """Yield the columns that `send_to` wrote: name and bytes. Raises EOFError if they end early."""
    for name, code in COLUMNS.items():
        data = stream.read(planned * array(code).itemsize)
        if len(data) != planned * array(code).itemsize:
            raise EOFError("a generator's answer ended early")
        yield name, data
