"""The reference server, with known answers, to check a load generator against: quick, or as slow as told.

It speaks only as much HTTP as load generators need, so that it is cheap enough to find their limits.
"""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from lab import processes

_BODY = b"Hello World!"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\nConnection: "
_KEPT = _HEAD + b"keep-alive\r\n\r\n" + _BODY
_CLOSED = _HEAD + b"close\r\n\r\n" + _BODY

_GOLDEN = (5**0.5 - 1) / 2
"""The fractional parts of its multiples fill 0 to 1 evenly at any time (Weyl)."""


@dataclass(frozen=True)
class ReferenceServer:
    """A running server."""

    url: str
    pid: int
    _process: subprocess.Popen[bytes]

    def requests(self) -> int:
        """Return how many requests it has read so far."""
        assert self._process.stdin is not None  # noqa: S101  (Popen was given pipes)
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(b"how many?\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextlib.contextmanager
def reference_server(
    stall_at: int = -1, stall_s: float = 0.0, *, waits_s: tuple[float, float] = (0.0, 0.0)
) -> Iterator[ReferenceServer]:
    """Serve on loopback, in its own process, which ends with the block or with its starter.

    At request `stall_at`, counted from 0, the whole server stands still for `stall_s` before it answers. A
    server told to stall says in `Server-Timing` how long it took over each answer.

    Each answer waits for a time between the two of `waits_s`, without delaying others. The waits are spread
    evenly, in a fixed order, so the quantiles of any number of requests are known, to the millisecond of a
    timer. A connection with several requests in flight may then get their answers in another order.
    """
    settings = [str(value) for value in (stall_at, stall_s, *waits_s)]
    with processes.start(
        "lab.load.reference_server", *settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101  (Popen was given pipes)
            port = int(process.stdout.readline())
            yield ReferenceServer(f"http://127.0.0.1:{port}/", process.pid, process)
        finally:
            processes.end_group(process)


class _Answering(asyncio.Protocol):
    """Answers each request at once or after its wait, except the one that stalls all."""

    count = 0

    def __init__(self, stall_at: int, stall_s: float, least_s: float, most_s: float) -> None:
        self._stall_at, self._stall_s = stall_at, stall_s
        self._least_s, self._spread_s = least_s, most_s - least_s
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *heads, self._pending = (self._pending + data).split(b"\r\n\r\n")
        for head in heads:
            self._answer(head.lower())

    def _answer(self, head: bytes) -> None:
        began_s = time.perf_counter()
        if _Answering.count == self._stall_at:
            time.sleep(self._stall_s)
        _Answering.count += 1
        close = b"connection: close" in head or (b"http/1.0" in head and b"keep-alive" not in head)
        answer = _CLOSED if close else _KEPT
        if self._stall_at >= 0:
            took = b"\r\nServer-Timing: loop;dur=%.3f\r\n" % (1000 * (time.perf_counter() - began_s))
            answer = answer.replace(b"\r\n", took, 1)
        if self._least_s:
            wait_s = self._least_s + self._spread_s * (_Answering.count * _GOLDEN % 1)
            asyncio.get_running_loop().call_later(wait_s, self._write, answer, close)
        else:
            self._write(answer, close)

    def _write(self, answer: bytes, close: bool) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(answer)
        if close:
            self._transport.close()


async def _serve(stall_at: int, *times_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(stall_at, *times_s), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _tell_count() -> None:
    """Print the count whenever asked."""
    while sys.stdin.buffer.readline():
        print(_Answering.count, flush=True)


def main() -> None:
    """Serve until killed."""
    processes.begin(lifeline=0)
    threading.Thread(target=_tell_count, daemon=True).start()
    processes.run_loop(_serve(int(sys.argv[1]), *map(float, sys.argv[2:])))


if __name__ == "__main__":
    main()
