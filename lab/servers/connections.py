"""Connections: aiohttp's side of one, and how a worker that must go parts from its clients."""

import asyncio
import select
from asyncio.trsock import TransportSocket
from collections.abc import Callable

from aiohttp import web

_SWEEP_S = 0.01


class Connection(web.RequestHandler):
    """aiohttp's side of a connection, which says when it is over."""

    def __init__(
        self, server: web.Server, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None] | None
    ) -> None:
        super().__init__(server, loop=loop, access_log=None)  # type: ignore[arg-type]
        self._on_lost = on_lost

    def connection_lost(self, exc: BaseException | None) -> None:
        """Say so, once aiohttp has done its part."""
        super().connection_lost(exc)
        if self._on_lost:
            self._on_lost()


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
            if _is_idle(connection):
                if hand_over and connection.transport:
                    hand_over(connection.transport.get_extra_info("socket"))
                connection.force_close()
        await asyncio.sleep(_SWEEP_S)


def _is_idle(connection: web.RequestHandler) -> bool:
    # aiohttp's own test for it, in RequestHandler._process_keepalive; there is no public one.
    waiter = connection._waiter
    return waiter is not None and not waiter.done() and not _has_input(connection)


def _has_input(connection: web.RequestHandler) -> bool:
    # A request may have come while the hot loop kept the event loop from reading it.
    if connection.transport is None:
        return False
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
