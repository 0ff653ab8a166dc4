"""Connections: aiohttp's side of one, and how a worker that must go parts from its clients."""

import asyncio
import select
from asyncio.trsock import TransportSocket
from collections.abc import Callable

from aiohttp import web

HEAD_TIMEOUT_S = 10.0
"""A client that has begun the head of a request must have sent all of it within this time."""

_SWEEP_S = 0.01


class Connection(web.RequestHandler):
    """aiohttp's side of a connection, which says when it is over, and ends if a head stays incomplete.

    `head` is what was read of the connection before it came here.
    """

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[], None] | None,
        head: bytes = b"",
    ) -> None:
        super().__init__(server, loop=loop, access_log=None)  # type: ignore[arg-type]
        self._on_lost = on_lost
        self._head = head
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request has come since the last answer."""
        # The first part is aiohttp's own test, in RequestHandler._process_keepalive; there is no public one.
        waits = self._waiter is not None and not self._waiter.done()
        return waits and self._head_timer is None and not _has_input(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on with what was read before."""
        super().connection_made(transport)
        if self._head:
            self.data_received(self._head)

    def data_received(self, data: bytes) -> None:
        """Keep the time from the first byte of a head to its last."""
        before = self._request_count
        super().data_received(data)
        if self._request_count > before:
            self._stop_timer()
        elif self._head_timer is None and self._current_request is None:
            self._head_timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Say so, once aiohttp has done its part."""
        super().connection_lost(exc)
        self._stop_timer()
        if self._on_lost:
            self._on_lost()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


HandOver = Callable[[TransportSocket], None]
"""Gives a copy of an open connection to somebody else, who goes on with it."""


async def close_idle(server: web.Server, *, quiet_s: float, hand_over: HandOver | None = None) -> None:
    """Close the connections that are idle after `quiet_s`, then each of the others as it becomes idle.

    The wait lets requests arrive that are on their way: each is answered. Returns when no connection is left.
    With `hand_over` nobody's connection ends: a client may be about to ask again, and could not know.
    """
    await asyncio.sleep(quiet_s)
    while connections := server.connections:
        for connection in connections:
            if isinstance(connection, Connection) and connection.is_idle:
                if hand_over and connection.transport:
                    hand_over(connection.transport.get_extra_info("socket"))
                connection.force_close()
        await asyncio.sleep(_SWEEP_S)


def _has_input(connection: web.RequestHandler) -> bool:
    # A request may have come while the hot loop kept the event loop from reading it.
    if connection.transport is None:
        return False
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
