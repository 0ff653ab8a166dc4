"""Many generators as one: they share a schedule and limits, begin together, and merge their logs.

How many there may be, and up to which rate each is believed, is known here too.
"""

import contextlib
import json
import math
import pickle
import platform
import queue
import subprocess
import sys
import tempfile
import time
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lab import files, processes
from lab.channel import Message
from lab.cpus import available_cpus
from lab.errors import LabError
from lab.files import write_whole
from lab.load.arrivals import Times
from lab.load.log import COLUMNS, read_columns
from lab.load.target import Assignment
from lab.units import counted, per_second

_LEAD_S = 0.05
"""From "all are ready" to the first due time: enough for the start to reach every generator."""

_GRACE_S = 2.0

OnMessage = Callable[[int, Message, float], None]
"""Receives a generator's number, its message, and the seconds since the start."""


@dataclass(frozen=True)
class JointLog:
    """What all generators logged, in the order of the schedule."""

    columns: dict[str, "NDArray[np.generic]"]
    errors: Counter[str]
    warmup_errors: Counter[str]
    health: dict[str, float]
    stopped_s: float | None
    """When the attack was interrupted, in seconds from the start; else None."""


def offer(assignment: Assignment, generators: int, due_s: Times, on_message: OnMessage) -> JointLog:
    """Offer a schedule with that many generators; none of them is left afterwards.

    KeyboardInterrupt ends the attack, but keeps the log. Raises LabError if a generator ends early.
    """
    inbox: _Inbox = queue.SimpleQueue()
    shares = zip(split_limits(assignment, generators), split(due_s, generators), strict=True)
    stopped_s = None
    with ThreadPoolExecutor(generators) as pool, ExitStack() as stack:
        started = [stack.enter_context(_Generator(*share)) for share in shares]
        ends = [pool.submit(one.listen, number, inbox) for number, one in enumerate(started)]
        for end in ends:
            end.add_done_callback(inbox.put)
        for _ in started:
            _next_message(inbox)  # "ready"
        start_s = time.monotonic() + _LEAD_S - float(min(due_s[0], 0.0))
        for one in started:
            one.start(start_s)
        try:
            _relay(inbox, len(started), start_s, on_message)
        except KeyboardInterrupt:
            stopped_s = time.monotonic() - start_s
            for one in started:
                one.stop()
        return _merged([end.result() for end in ends], stopped_s)


_Inbox = queue.SimpleQueue[tuple[int, Message] | Future[Message]]
"""What generators say, with their numbers, and their ends."""


def _relay(inbox: _Inbox, speaking: int, start_s: float, on_message: OnMessage) -> None:
    """Pass on messages until all generators have ended."""
    while speaking:
        if said := _next_message(inbox):
            on_message(*said, time.monotonic() - start_s)
        else:
            speaking -= 1


def _next_message(inbox: _Inbox) -> tuple[int, Message] | None:
    """Return the next message; None if a generator ended. Raises LabError if it ended early."""
    said = inbox.get()
    if isinstance(said, Future):
        said.result()
        return None
    return said


class _Generator:
    """A running generator; leaving the `with` block ends it."""

    def __init__(self, assignment: Assignment, due_s: Times) -> None:
        self._planned = len(due_s)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `__exit__`)
        self._process = processes.start(
            "lab.load.generator", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
        )
        assert self._process.stdin  # noqa: S101  (Popen was given pipes)
        assert self._process.stdout  # noqa: S101
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._write(pickle.dumps((assignment, array("d", due_s.tobytes()))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and wait until it is gone: cut its lifeline, and kill it if need be."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        processes.end_group(self._process, _GRACE_S)
        self._stdout.close()
        self._stderr.close()

    def start(self, start_s: float) -> None:
        """Start the schedule at this instant of `time.monotonic`, a clock that all processes share."""
        self._write(f"{start_s!r}\n".encode())

    def stop(self) -> None:
        """Ask it to end now and hand in what it has."""
        self._write(b"stop\n")

    def listen(self, number: int, inbox: _Inbox) -> Message:
        """Pass on its messages: `ready`, `progress`, and finally `health` and errors, with the `columns`.

        Return the final one. Raises LabError if it ends without it.
        """
        try:
            for line in self._stdout:
                message: Message = json.loads(line)
                inbox.put((number, message))
                if "health" in message:
                    return message | {"columns": dict(read_columns(self._stdout, self._planned))}
        except (EOFError, ValueError):
            pass
        raise LabError(f"a load generator ended early: {self._last_words()}")

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone; `listen` says why
            self._stdin.write(data)
            self._stdin.flush()

    def _last_words(self) -> str:
        self._process.wait()
        lines: list[str] = []
        with contextlib.suppress(ValueError):  # we ended it: these words go unread
            self._stderr.seek(0)
            lines = [line.strip() for line in self._stderr.read().decode(errors="replace").split("\n")]
        return next(filter(None, reversed(lines)), processes.ending(self._process.returncode))


def split_limits(assignment: Assignment, generators: int) -> list[Assignment]:
    """Return one assignment per generator; together they keep to both limits.

    They get real-time priority only if that leaves the server a CPU: else they would starve it.
    """
    realtime = generators <= generators_with_room()

    def share(limit: int, k: int) -> int:
        return (limit + k) // generators

    return [
        replace(
            assignment,
            connections=share(assignment.connections, k),
            in_flight=None if assignment.in_flight is None else share(assignment.in_flight, k),
            realtime=realtime,
        )
        for k in range(generators)
    ]


_SUMMED = ("cpu_s", "gc_pauses", "stalls", "stalled_s", "unreadable")


def _merged(parts: Sequence[Message], stopped_s: float | None) -> JointLog:
    columns = {
        name: merge([np.frombuffer(part["columns"][name], code) for part in parts])
        for name, code in COLUMNS.items()
    }
    errors, warmup_errors = (
        sum((Counter(part[kind]) for part in parts), Counter[str]()) for kind in ("errors", "warmup_errors")
    )
    healths = [part["health"] for part in parts]
    health = {name: (sum if name in _SUMMED else max)(h[name] for h in healths) for name in healths[0]}
    of_all = sum(h["cpu_share"] for h in healths) / available_cpus()
    health = {"processes": len(parts), **health, "cpu_share_of_all": of_all}
    return JointLog(columns, errors, warmup_errors, health, stopped_s)


Scalar = TypeVar("Scalar", bound=np.generic)


def split(rows: NDArray[Scalar], shares: int) -> list[NDArray[Scalar]]:
    """Deal rows out in turn."""
    return [rows[k::shares] for k in range(shares)]


def merge(parts: Sequence[NDArray[Scalar]]) -> NDArray[Scalar]:
    """Put dealt-out rows back in their order: the exact inverse of `split`."""
    rows = np.empty(sum(map(len, parts)), parts[0].dtype)
    for k, part in enumerate(parts):
        rows[k :: len(parts)] = part
    return rows


def joint_figures(due_s: Times, columns: Mapping[str, NDArray[Any]]) -> dict[str, float | None]:
    """Return figures about the generators, without the warm-up.

    waited: how many requests waited for a slot of the in-flight limit; most_in_flight: the most requests
    sent but not ended at one time; lag_p99_s: the p99 of the send lag of those that did not wait for a slot,
    the generators' own fault; None without any.
    """
    counted = due_s >= 0
    sent_s, end_s, waited = (columns[name][counted] for name in ("sent_s", "end_s", "waited"))
    own_lag_s = (sent_s - due_s[counted])[(waited == 0) & ~np.isnan(sent_s)]
    return {
        "waited": int(np.count_nonzero(waited)),
        "most_in_flight": most_in_flight(sent_s, end_s),
        "lag_p99_s": float(np.percentile(own_lag_s, 99)) if len(own_lag_s) else None,
    }


def most_in_flight(sent_s: Times, end_s: Times) -> int:
    """Return the most requests that were sent but not ended at one time.

    NaN marks those never sent or never ended. A request that ends at the instant of a send no longer counts.
    """
    sent, end = (np.sort(times[~np.isnan(times)]) for times in (sent_s, end_s))
    there = np.arange(1, len(sent) + 1) - np.searchsorted(end, sent, side="right")
    return int(there.max(initial=0))


MOST_GENERATORS_PER_CPU = 16
"""Generators that a CPU may have: more are probably a slip."""

_CEILINGS = "ceiling.json"


class AboveCeilingWarning(UserWarning):
    """A generator is asked for a rate above the one at which it was believed."""


def generators_with_room() -> int:
    """Return how many generators leave a CPU to the server, if there is more than one CPU."""
    return max(1, available_cpus() - 1)


ASSUMED_CEILING_RPS = 1000.0
"""What one generator is asked for at most where `lab doctor` has not measured more: slow machines do that."""

_SHARE_OF_CEILING = 0.5
"""A ceiling is the best of three short tries: half of it is left for worse moments."""


def generators_for(rate_rps: float, *, keepalive: bool) -> int:
    """Return how many generators a rate needs, each at half its ceiling, if there are CPUs for them."""
    ceiling_rps = kept_ceiling_rps(keepalive=keepalive) or ASSUMED_CEILING_RPS
    return min(math.ceil(rate_rps / (_SHARE_OF_CEILING * ceiling_rps)), generators_with_room())


def keep_ceilings(connect_rps: float, keepalive_rps: float) -> None:
    """Remember both ceilings for later attacks here: with a connection per request, and kept alive.

    Raises LabError if they cannot be written.
    """
    kept = {"machine": platform.node(), "connect_rps": connect_rps, "keepalive_rps": keepalive_rps}
    write_whole(files.data() / _CEILINGS, (json.dumps(kept) + "\n").encode())


def kept_ceiling_rps(*, keepalive: bool) -> float | None:
    """Return the ceiling measured on this machine, or None."""
    try:
        kept = json.loads((files.data() / _CEILINGS).read_text())
        rate_rps = float(kept["keepalive_rps" if keepalive else "connect_rps"])
        return rate_rps if kept["machine"] == platform.node() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def warn_above(peak_rps: float, generators: int, *, keepalive: bool) -> None:
    """Warn if the highest rate of an attack is above the one at which its generators were believed.

    Generators that leave the server no CPU do not count. The warning names the caller's line. The result
    itself says whether it is valid.
    """
    ceiling_rps = kept_ceiling_rps(keepalive=keepalive)
    believed = min(generators, generators_with_room())
    if ceiling_rps is None or peak_rps <= believed * ceiling_rps:
        return
    warnings.warn(
        f"{per_second(peak_rps)} is more than lab doctor trusts {counted(believed, 'generator')} with"
        f" ({per_second(ceiling_rps)} each): {_advice(peak_rps, ceiling_rps)}",
        AboveCeilingWarning,
        stacklevel=_callers_level(),
    )


def _advice(peak_rps: float, ceiling_rps: float) -> str:
    if not ceiling_rps:
        return "rerun lab doctor when the machine is quiet"
    enough = math.ceil(peak_rps / ceiling_rps)
    if enough > generators_with_room():
        return "use a machine with more CPUs"
    return f"add --generators {enough} (generators={enough})"


def _callers_level() -> int:
    """Return how far up the stack the first frame outside both this package and pydantic is."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] in ("lab", "pydantic"):
        level, frame = level + 1, frame.f_back
    return level + 1
