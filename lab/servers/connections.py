"""Connections: aiohttp's side of one, and how a worker that must go leaves its clients."""

import asyncio
import select
from asyncio.trsock import TransportSocket
from collections.abc import Callable

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from lab.servers.sockets import HEAD_TIMEOUT_S

_SWEEP_S = 0.01

_SOON_S = 0.01
"""A client that connects to ask does so within this time, or its worker does not wait for it."""


class ServedConnection(web.RequestHandler):
    """aiohttp's side of a connection. It closes if a head stays incomplete.

    It shows each answer before it is sent. It reports when the first is, or that no request has come soon, or
    its end.
    """

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        on_done: Callable[[], None] | None = None,
        on_answer: Callable[[web.StreamResponse], None] | None = None,
    ) -> None:
        super().__init__(server, loop=loop, access_log=None)  # type: ignore[arg-type]
        self._on_done = on_done
        self._on_answer = on_answer
        self._body: StreamReader = EMPTY_PAYLOAD
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no part of a request has arrived since the last answer."""
        return self._waits and self._head_timer is None and not _has_input(self)

    @property
    def _waits(self) -> bool:
        # aiohttp's own test, in RequestHandler._process_keepalive; there is no public one.
        return self._waiter is not None and not self._waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the client time to ask from now on: before, nothing could be read."""
        super().connection_made(transport)
        if self._on_done:
            self._loop.call_later(_SOON_S, self._report_unasked)

    def data_received(self, data: bytes) -> None:
        """Time a head from its first byte to its last."""
        count, in_body = self._request_count, not self._body.is_eof()
        super().data_received(data)
        if self._request_count > count:
            self._body = self._messages[-1][1]
            self._stop_timer()
            in_body = self._body is not EMPTY_PAYLOAD
            data = data.rpartition(b"\r\n\r\n")[2]
        if not in_body and self._head_timer is None and data.strip(b"\r\n"):
            self._start_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Report the end, once aiohttp has done its part."""
        super().connection_lost(exc)
        self._stop_timer()
        self._report_done()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Report that the request is answered, whoever made the answer, once that is written.

        The connection may last: aiohttp waits for the rest of a body that nobody read.
        """
        if self._on_answer:
            self._on_answer(resp)
        finished = await super().finish_response(request, resp, start_time)
        self._report_done()
        return finished

    def _report_unasked(self) -> None:
        if self._request_count:
            return
        if _has_input(self):  # it is this process that was late
            self._loop.call_soon(self._report_unasked)
        else:
            self._report_done()

    def _report_done(self) -> None:
        on_done, self._on_done = self._on_done, None
        if on_done:
            on_done()

    def _start_timer(self) -> None:
        self._head_timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, self._time_out)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _time_out(self) -> None:
        if self._waits:
            self.force_close()
        else:  # the request before this one is not answered yet
            self._start_timer()


HandOver = Callable[[TransportSocket], None]
"""Gives a copy of an open connection to another process, which continues with it."""


async def close_idle(server: web.Server, *, quiet_s: float, hand_over: HandOver | None = None) -> None:
    """Close the connections that are idle after `quiet_s`, then the others as they become idle.

    The wait lets requests on their way arrive; each is answered. Returns when no connection is left.
    With `hand_over` every client keeps its connection: it may be about to ask again, unaware of the change.
    """
    if server.connections:
        await asyncio.sleep(quiet_s)
    while connections := server.connections:
        for connection in connections:
            if isinstance(connection, ServedConnection) and connection.is_idle:
                if hand_over and connection.transport:
                    hand_over(connection.transport.get_extra_info("socket"))
                connection.force_close()
        await asyncio.sleep(_SWEEP_S)


def _has_input(connection: web.RequestHandler) -> bool:
    # A request may have arrived while the hot loop blocked the event loop.
    if connection.transport is None:
        return False
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
