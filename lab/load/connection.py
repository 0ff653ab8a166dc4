"""One connection of a generator, and the one request on it: HTTP/1.1, no pipelining, no retries."""

import asyncio
import re
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from lab.load.log import Outcome, classify

_HEAD_LIMIT = 262_144
"""Bytes before the body, interim answers included; as in browsers."""

_TIMES = re.compile(rb'(?:^|,)\s*(loop|cpu)\s*;(?:[^,]*;)?\s*dur\s*=\s*"?([^\s;,"]*)')
_MS = re.compile(rb"\d{1,12}(?:\.\d+)?(?:[eE]-\d{1,3})?")
"""Twelve digits are 30 years: anything longer is not a time, and its sum might be infinite."""

_SWITCHING = 101


class MalformedAnswerError(ValueError):
    """The answer is not HTTP/1.x."""


class Answer:
    """One answer. Feed it what arrives until it is complete.

    `status` is 0 until the head is complete; `service_s` and `service_cpu_s` are `loop` and `cpu` of the
    server's own `Server-Timing`, NaN without them; `worker` is `X-Worker`, 0 without one; `unreadable` says
    that one of them is not a number;
    `bytes_in` counts the body as received, without its framing.
    """

    __slots__ = (
        *("bytes_in", "complete", "reusable", "status", "unreadable", "worker"),
        *("service_s", "service_cpu_s"),
        *("_chunked", "_head_bytes", "_length", "_parser", "_without_body"),
    )

    def __init__(self, *, without_body: bool = False) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # what browsers and curl read
            lenient_headers=True,
            lenient_chunked_length=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._without_body = without_body  # the answer to HEAD has a length but no body
        self._head_bytes = 0
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.service_s = self.service_cpu_s = float("nan")
        self.worker = 0
        self.unreadable = False
        self.bytes_in = 0
        self.complete = False
        self.reusable = False
        self._length = False  # there is a Content-Length
        self._chunked: bool | None = None  # whether it is the last Transfer-Encoding; None without one

    def feed(self, data: bytes) -> bool:
        """Take what has arrived, and return whether the answer is complete; after that, take no more.

        Raises MalformedAnswerError.
        """
        if self.status == 0:
            room = _HEAD_LIMIT - self._head_bytes
            self._head_bytes += len(data)
            data = self._parse_head(data, room) if len(data) > room else data
        self._parse(data)
        if self.complete:
            del self._parser  # it refers to this answer: only the garbage collector could free both
        return self.complete

    def _parse_head(self, data: bytes, room: int) -> bytes:
        """Parse as many bytes as the head may still have, and return the rest."""
        self._parse(data[:room])
        if self.status == 0:
            raise MalformedAnswerError("the answer's head does not end")
        return data[room:]

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # complete: what follows is another protocol
            self.reusable = False
        except httptools.HttpParserError as error:
            if not self.complete:  # what follows a complete answer is not part of it
                raise MalformedAnswerError(f"the answer is not HTTP/1.x: {error}") from error
            self.reusable = False

    def complete_at_eof(self) -> bool:
        """Return whether the end of the connection is the end of this answer."""
        return self.status > 0 and not self._sized()

    def _sized(self) -> bool:
        """Whether the head says where the body ends; else the end of the connection does."""
        bodiless = self.status in (_SWITCHING, 204, 304)
        return bodiless or (self._length if self._chunked is None else self._chunked)

    # The parser calls the methods below.

    def on_message_begin(self) -> None:
        if self.complete:
            self.reusable = False  # what follows an answer was not asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return
        match name.lower():
            case b"server-timing":
                for name, ms in _TIMES.findall(value):
                    self._take_time(name, ms)
            case b"x-worker":
                if value.isdigit() and len(value) < 10:
                    self.worker = int(value)
                else:
                    self.unreadable = True
            case b"content-length":
                self._length = True
            case b"transfer-encoding":
                self._chunked = value.lower().rstrip().endswith(b"chunked")

    def _take_time(self, name: bytes, ms: bytes) -> None:
        if not _MS.fullmatch(ms):
            self.unreadable = True
        elif name == b"loop":
            self.service_s = float(ms) / 1000
        else:
            self.service_cpu_s = float(ms) / 1000

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 100:
            raise ValueError(f"{self.status:03} is not a status code")
        if self._without_body and self.status >= 200:
            self.on_message_complete()

    def on_body(self, part: bytes) -> None:
        if not self.complete:
            self.bytes_in += len(part)

    def on_message_complete(self) -> None:
        if self.complete:
            return
        if self.status < 200 and self.status != _SWITCHING:  # an interim answer: the real one follows
            self._begin()
            return
        self.complete = True
        self.reusable = self._sized() and self.status != _SWITCHING and bool(self._parser.should_keep_alive())


class Owner(Protocol):
    """Sends requests, and is told what became of each."""

    def ended(self, connection: "Connection", request: int, outcome: Outcome, error: str) -> None:
        """A request has ended and left the connection; `error` is empty if it was answered well."""

    def lost(self, connection: "Connection") -> None:
        """The connection was closed with no request on it."""


class Connection(asyncio.Protocol):
    """Sends its request as soon as it is connected, and reads one answer at a time."""

    __slots__ = ("_owner", "_payload", "_request", "_transport", "_without_body", "answer", "connecting")

    def __init__(self, owner: Owner, payload: bytes, *, without_body: bool) -> None:
        self.answer = Answer(without_body=without_body)
        self.connecting: asyncio.Task[None] | None = None
        self._owner = owner
        self._payload = payload
        self._without_body = without_body
        self._request: int | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._transport is not None

    @property
    def reusable(self) -> bool:
        """Whether another request may follow the answer that was read."""
        return self.answer.complete and self.answer.reusable and self._all_sent()

    def begin(self, request: int) -> None:
        """Put a request on the connection: sent now, or once connected."""
        self._request = request
        if self._transport:
            self.answer = Answer(without_body=self._without_body)
            self._transport.write(self._payload)

    def end(self, outcome: Outcome, error: str) -> None:
        """Take the request off the connection and tell the owner what became of it."""
        if self._request is not None:
            request, self._request = self._request, None
            self._owner.ended(self, request, outcome, error)

    def close(self) -> None:
        """Close at once, or stop connecting; forget any request that is still on it.

        Close politely only after a whole answer to a whole request: a usual close would first send the rest
        of the request, however long the server takes to read it.
        """
        self._request = None
        if self._transport and self.answer.complete and self._all_sent():
            self._transport.close()
        elif self._transport:
            self._transport.abort()
        elif self.connecting:
            self.connecting.cancel()

    def _all_sent(self) -> bool:
        """Whether the request has left; a server may answer before it has read all of it."""
        return self._transport is not None and not self._transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.connecting = None
        if self._request is None:
            self._transport.abort()
        else:
            self._transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        if self._request is None:  # nothing was asked: another request cannot be trusted to it
            self.close()
            return
        try:
            if self.answer.feed(data):
                self._answered()
        except MalformedAnswerError as error:
            self.end(Outcome.HTTP_ERROR, str(error))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._request is None:
            self._owner.lost(self)
        elif error is None and self.answer.complete_at_eof():
            self._answered()
        else:
            self.end(*classify(error or ConnectionError()))

    def _answered(self) -> None:
        status = self.answer.status
        if 200 <= status < 400:
            self.end(Outcome.OK, "")
        else:
            self.end(Outcome.HTTP_ERROR, _in_words(status))


def _in_words(status: int) -> str:
    """Return a status with its usual phrase; the server's own may be anything, even new each time."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
