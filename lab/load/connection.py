"""One connection of a generator, and the one request that is on it: HTTP/1.1, no pipelining, no retries."""

import asyncio
import re
from typing import Protocol, cast

import httptools

from lab.load.log import Outcome, classify

_HEAD_LIMIT = 65_536
_LOOP = re.compile(rb"(?:^|,)\s*loop\s*;[^,]*?dur=(\d+(?:\.\d+)?)")


class MalformedAnswerError(ValueError):
    """What came back is not HTTP/1.x."""


class Answer:
    """One answer. Feed it what arrives until it is complete.

    `status` is 0 until the head is complete; `service_s` is the server's own `Server-Timing: loop`, NaN
    without one; `worker` is `X-Worker`, 0 without one; `bytes_in` counts the body as it came, without its
    framing.
    """

    __slots__ = (
        *("bytes_in", "complete", "reason", "reusable", "service_s", "status", "worker"),
        *("_head_bytes", "_parser", "_sized", "_without_body"),
    )

    def __init__(self, *, without_body: bool = False) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._without_body = without_body  # the answer to HEAD has a length, and no body
        self._head_bytes = 0
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.reason = ""
        self.service_s = float("nan")
        self.worker = 0
        self.bytes_in = 0
        self.complete = False
        self.reusable = False
        self._sized = False  # whether the head says where the body ends; else the connection's end does

    def feed(self, data: bytes) -> bool:
        """Take what has arrived and return whether the answer is complete; then it takes no more.

        Raises MalformedAnswerError.
        """
        if not self.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.complete:  # what follows a complete answer is no part of it
                raise MalformedAnswerError("the answer is not HTTP/1.x") from error
            self.reusable = False
        if not self.status and self._head_bytes > _HEAD_LIMIT:
            raise MalformedAnswerError("the answer's head does not end")
        if self.complete:
            del self._parser  # it refers to this answer: both would wait for the garbage collector
        return self.complete

    def complete_at_eof(self) -> bool:
        """Return whether the end of the connection is the end of this answer."""
        return self.status > 0 and not self._sized

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        if self.complete:
            self.reusable = False  # what follows an answer was not asked for

    def on_status(self, reason: bytes) -> None:
        if not self.complete:
            self.reason += reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete:
            return
        match name.lower():
            case b"server-timing":
                if loop := _LOOP.search(value):
                    self.service_s = float(loop[1]) / 1000
            case b"x-worker":
                if value.isdigit() and len(value) < 10:
                    self.worker = int(value)
            case b"content-length" | b"transfer-encoding":
                self._sized = True

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        self.status = self._parser.get_status_code()
        self._sized = self._sized or self.status < 200 or self.status in (204, 304)
        if self._without_body and self.status >= 200:
            self.on_message_complete()

    def on_body(self, part: bytes) -> None:
        if not self.complete:
            self.bytes_in += len(part)

    def on_message_complete(self) -> None:
        if self.complete:
            return
        if self.status < 200:  # an interim answer: the real one follows
            self._begin()
            return
        self.complete = True
        self.reusable = self._sized and self._parser.should_keep_alive()


class Owner(Protocol):
    """Whoever sends requests and is told what became of each."""

    def ended(self, connection: "Connection", request: int, outcome: Outcome, error: str) -> None:
        """A request has come to its end and left the connection; `error` is empty if it was answered well."""

    def lost(self, connection: "Connection") -> None:
        """The connection is closed and had no request on it."""


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
        return self._transport is not None and self.answer.complete and self.answer.reusable

    def begin(self, request: int) -> None:
        """Put a request on the connection; it leaves now, or once connected."""
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
        """Close, or stop connecting; a request that is still on it is forgotten."""
        self._request = None
        if self._transport:
            self._transport.close()
        elif self.connecting:
            self.connecting.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.connecting = None
        if self._request is None:
            self._transport.close()
        else:
            self._transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        if self._request is None:  # nothing was asked: the connection cannot be trusted with another request
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
            self.end(Outcome.HTTP_ERROR, f"{status} {self.answer.reason}".strip())
