"""What a generator notes while it sends: flat arrays, 48 bytes per request, piped as they are."""

import errno
import os
import ssl
from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import IO, BinaryIO


class Outcome(IntEnum):
    """What became of a request: the number is its code in a generator's log, the name is in every table."""

    OK = 0  # answered with a status from 200 to 399
    HTTP_ERROR = 1  # answered with another status, or with something that is not HTTP
    TIMEOUT = 2  # not answered within the timeout, which counts from the due time
    REFUSED = 3  # the server's machine refused the connection
    RESET = 4  # the connection ended before the answer was complete
    CLIENT_ERROR = 5  # this machine could not send it: no descriptor, no port, no route, no TLS
    DROPPED = 6  # never sent: the attack was stopped first, or no slot came free within the timeout
    UNFINISHED = 7  # sent, and still unanswered when the attack was stopped


OUTCOMES = tuple(outcome.name.lower() for outcome in Outcome)
"""The names of the outcomes, in the order of their codes."""

_BY_ERRNO = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ECONNRESET: Outcome.RESET,
    errno.ECONNABORTED: Outcome.RESET,
    errno.EPIPE: Outcome.RESET,
    errno.ETIMEDOUT: Outcome.TIMEOUT,
}


def classify(error: Exception) -> tuple[Outcome, str]:
    """Return the outcome of a request that met this error, and a text without addresses or ports."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Outcome.CLIENT_ERROR, f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return Outcome.CLIENT_ERROR, f"TLS: {(error.reason or 'handshake failed').replace('_', ' ').lower()}"
    number = getattr(error, "errno", None)
    if number is None:
        return Outcome.RESET, "closed before the answer was complete"
    text = f"{os.strerror(number).lower()} ({errno.errorcode.get(number, number)})"
    return _BY_ERRNO.get(number, Outcome.CLIENT_ERROR), text


COLUMNS = {
    "sent_s": "d",
    "end_s": "d",
    "service_s": "d",
    "service_cpu_s": "d",
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

    A row begins as dropped, is unfinished once sent, and gets another outcome with its answer. So the
    outcomes sum to what was planned at any moment.
    """

    def __init__(self, planned: int) -> None:
        self.sent_s = array("d", [_NAN]) * planned
        self.end_s = array("d", [_NAN]) * planned
        self.service_s = array("d", [_NAN]) * planned
        self.service_cpu_s = array("d", [_NAN]) * planned
        self.outcome = array("B", [Outcome.DROPPED]) * planned
        self.status = array("H", [0]) * planned
        self.worker = array("i", [0]) * planned
        self.bytes_in = array("q", [0]) * planned
        self.waited = array("B", [0]) * planned  # 1: for a slot of the in-flight limit

    def send_to(self, stream: BinaryIO) -> None:
        """Write the columns to a pipe, one by one."""
        for name in COLUMNS:
            stream.write(memoryview(getattr(self, name)).cast("B"))


def read_columns(stream: IO[bytes], planned: int) -> Iterator[tuple[str, bytes]]:
    """Yield the columns that `send_to` wrote: name and bytes. Raises EOFError if they end early."""
    for name, code in COLUMNS.items():
        data = stream.read(planned * array(code).itemsize)
        if len(data) != planned * array(code).itemsize:
            raise EOFError("a generator's answer ended early")
        yield name, data
