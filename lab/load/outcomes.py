"""What can become of a planned request: each ends in exactly one outcome, each failure has a short text."""

import errno
import os
import ssl
from enum import IntEnum


class Outcome(IntEnum):
    """What became of a request; the number is its code in a generator's log, the name is in every table."""

    OK = 0  # answered with a status from 200 to 399
    HTTP_ERROR = 1  # answered with another status, or with something that is not HTTP
    TIMEOUT = 2  # not answered within the time-out, which counts from the due time
    REFUSED = 3  # the server's machine refused the connection
    RESET = 4  # the connection ended before the answer was complete
    CLIENT_ERROR = 5  # this machine could not send it: no descriptor, no port, no route, no TLS
    DROPPED = 6  # never sent: the attack was stopped first, or no slot came free within the time-out
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
