"""Small servers with known answers, in a thread of the test: what they do with a request is a function."""

import asyncio
import itertools
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Behaviour = Callable[[int, asyncio.StreamWriter], Awaitable[None]]
"""Is given the request's number on this server, from 0, and where to write."""

_BEAT_S, _EXACT_S = 0.02, 0.002


def answer(body: bytes = b"hello", status: str = "200 OK", fields: bytes = b"") -> bytes:
    """Return an answer with its length."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n".encode()
    return head + fields + b"\r\n" + body


@dataclass
class Served:
    """A running server, and the heads of the requests that it has read.

    late_s: by how much its loop was late so far, in all: it held no answer up for longer.
    """

    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    late_s: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def serving(behave: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[Served]:
    """Serve on a port of the system's choice; a connection stays open for as long as the client wants."""
    ready, stop, served = threading.Event(), asyncio.Event(), Served(0)
    loop = asyncio.new_event_loop()

    async def main() -> None:
        server = await start(behave, served, tls)
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    ready.wait()
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


async def start(behave: Behaviour, served: Served, tls: ssl.SSLContext | None = None) -> asyncio.Server:
    """Start a server on the running loop."""
    numbers = itertools.count()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        try:
            while True:
                served.requests.append(await reader.readuntil(b"\r\n\r\n"))
                await behave(next(numbers), writer)
                if writer.is_closing():
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    _beat(served, time.monotonic())
    return server


def _beat(served: Served, due_s: float) -> None:
    now_s = time.monotonic()
    served.late_s += max(0.0, now_s - due_s - _EXACT_S)
    asyncio.get_running_loop().call_later(_BEAT_S, _beat, served, now_s + _BEAT_S)


async def greet(number: int, writer: asyncio.StreamWriter) -> None:
    """Answer at once."""
    writer.write(answer())


def stalling(at: int, for_s: float) -> Behaviour:
    """Answer at once, but from request `at` on let all wait until `for_s` later; each says it took 1 ms."""
    over: list[float] = []

    async def behave(number: int, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        if number == at:
            over.append(loop.time() + for_s)
        if over and loop.time() < over[0]:
            await asyncio.sleep(over[0] - loop.time())
        writer.write(answer(fields=b"Server-Timing: loop;dur=1.0\r\nX-Worker: 7\r\n"))

    return behave


async def never(number: int, writer: asyncio.StreamWriter) -> None:
    """Do not answer at all."""
    await asyncio.Event().wait()


async def half(number: int, writer: asyncio.StreamWriter) -> None:
    """Close in the middle of the body."""
    writer.write(answer(b"x" * 100)[:-50])
    writer.close()


async def reset(number: int, writer: asyncio.StreamWriter) -> None:
    """Cut the connection without a word."""
    writer.transport.abort()


async def gibberish(number: int, writer: asyncio.StreamWriter) -> None:
    """Speak something that is not HTTP."""
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")


async def too_long(number: int, writer: asyncio.StreamWriter) -> None:
    """Send more than was announced."""
    writer.write(answer() + b"and more")


async def until_closed(number: int, writer: asyncio.StreamWriter) -> None:
    """Say that the body ends with the connection, as curl and browsers understand it."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello")
    writer.close()


async def switching(number: int, writer: asyncio.StreamWriter) -> None:
    """Speak another protocol from here on."""
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\x81")


async def broken(number: int, writer: asyncio.StreamWriter) -> None:
    """Fail, politely."""
    writer.write(answer(status="500 Internal Server Error"))
