"""Clients of servers under test: plain, so that a test says which connection carries which request."""

import http.client
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import urlsplit

import psutil

from lab.channel import polled

Found = TypeVar("Found")

PATIENCE_S = 30.0
"""How long a test waits for what must come: never how long it takes, only when to call it a failure."""


_LOOK_S = 0.005

_PAUSE_S = 0.01
"""Between two requests of a client under load: processes that start need CPUs too."""


@dataclass(frozen=True)
class Answer:
    """A response, read to its end."""

    status: int
    body: str
    headers: dict[str, str]

    @property
    def worker(self) -> int:
        return int(self.headers["X-Worker"])


class Connection:
    """One connection, for one request after the other."""

    def __init__(self, url: str) -> None:
        self._http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
        self._http.connect()

    def ask(self, path: str = "/api/slow") -> Self:
        self._http.request("GET", path)
        return self

    def answer(self) -> Answer:
        response = self._http.getresponse()
        return Answer(response.status, response.read().decode(), dict(response.headers))

    def has_answer(self) -> bool:
        """Say whether there is something to read."""
        return polled(self._http.sock.fileno(), select.POLLIN, timeout_s=0)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get(url: str, path: str = "/api/slow") -> Answer:
    """Ask on a connection of its own."""
    with Connection(url) as connection:
        return connection.ask(path).answer()


def burst(url: str, size: int, path: str = "/api/slow") -> Counter[int]:
    """Ask on `size` connections before any answer is read; return how many each worker answered."""
    connections = [Connection(url).ask(path) for _ in range(size)]
    answers = [connection.answer() for connection in connections]
    for connection in connections:
        connection.close()
    assert {answer.status for answer in answers} == {200}
    return Counter(answer.worker for answer in answers)


class Load:
    """Clients in threads, asking one request after another until the block ends; failures are kept."""

    def __init__(self, url: str, *, clients: int = 3, keepalive: bool = False) -> None:
        self._url = url
        self._keepalive = keepalive
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.answers: list[Answer] = []
        self.failures: list[Exception] = []

    def _ask(self) -> None:
        connection = None
        while not self._over.wait(_PAUSE_S):
            try:
                connection = connection or Connection(self._url)
                answer = connection.ask().answer()
                self.answers.append(answer)
                ends = not self._keepalive or answer.headers.get("Connection") == "close"
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                ends = True
            if ends and connection:
                connection.close()
                connection = None
        if connection:
            connection.close()

    def has_answers(self, more: int) -> None:
        """Wait for so many more answers."""
        wanted = len(self.answers) + more
        until(lambda: len(self.answers) >= wanted)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def until(look: Callable[[], Found], patience_s: float = PATIENCE_S) -> Found:
    """Look until there is something, and return it.

    Patience counts looks: a machine too busy for these is too busy for what is waited for, too.
    """
    for _ in range(round(patience_s / _LOOK_S)):
        if found := look():
            return found
        time.sleep(_LOOK_S)
    raise AssertionError(f"waited in vain for {look}")


def computing(pids: list[int]) -> int:
    """Wait until one of the processes has computed for a while, and return it: it is inside the loop."""
    start = {pid: _cpu_s(pid) for pid in pids}
    until(lambda: any(_cpu_s(pid) > start[pid] + 0.1 for pid in pids))
    return next(pid for pid in pids if _cpu_s(pid) > start[pid] + 0.1)


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def refused(url: str) -> bool:
    """Return whether nothing listens there."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) != 0


def gone(pid: int) -> bool:
    """Return whether a process is no more, or only waits for its end to be noticed."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
