"""One connection of a generator, and the one request that is on it: HTTP/1.1, no pipelining, no retries."""

import asyncio
from typing import Protocol, cast

from lab.load.answer import Answer, MalformedAnswerError
from lab.load.outcomes import Outcome, classify


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
