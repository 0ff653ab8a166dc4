"""Many generators as one: each takes every n-th request of the schedule, all begin at one instant."""

import contextlib
import json
import math
import platform
import queue
import subprocess
import tempfile
import threading
import time
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lab import files, processes
from lab.errors import LabError
from lab.files import write_whole
from lab.load.arrivals import Times
from lab.load.log import COLUMNS, read_columns
from lab.load.target import Spec, generators_with_room
from lab.machine import available_cpus
from lab.units import counted, per_second

_GRACE_S = 2.0


class GeneratorProcess:
    """A running generator; leaving the `with` block ends it."""

    def __init__(self, spec: Spec, due_s: bytes) -> None:
        self._planned = len(due_s) // array("d").itemsize
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self._process = processes.start(
            "lab.load.generator", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
        )
        self._write(f"{spec.to_json()}\n{self._planned}\n".encode() + due_s)

    def __enter__(self) -> "GeneratorProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def start(self, start_s: float) -> None:
        """Let the schedule begin at this instant of `time.monotonic`, a clock that all processes share."""
        self._write(f"{start_s!r}\n".encode())

    def stop(self) -> None:
        """Ask it to end now and to hand in what it has."""
        self._write(b"stop\n")

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield what it says: `ready`, `progress`, and last `health` and errors with the `columns`.

        Raises LabError if it ends without that.
        """
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101  (Popen was given a pipe)
        try:
            for line in stdout:
                message: dict[str, Any] = json.loads(line)
                if "health" in message:
                    message["columns"] = dict(read_columns(stdout, self._planned))
                    yield message
                    return
                yield message
        except (EOFError, ValueError):
            pass
        raise LabError(f"a load generator ended early: {self._last_words()}")

    def close(self) -> None:
        """End the process and wait until it is gone: cut its lifeline, and kill it if that is not enough."""
        assert self._process.stdin is not None  # noqa: S101  (Popen was given pipes)
        assert self._process.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        processes.end_group(self._process, _GRACE_S)
        self._process.stdout.close()
        self._stderr.close()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101  (Popen was given a pipe)
        with contextlib.suppress(BrokenPipeError):  # it is gone; `messages` says why
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _last_words(self) -> str:
        self._process.wait()
        lines: list[str] = []
        with contextlib.suppress(ValueError):  # `close` was quicker: nobody will read these words
            self._stderr.seek(0)
            lines = self._stderr.read().decode(errors="replace").split("\n")
        return next(
            (line.strip() for line in reversed(lines) if line.strip()), f"status {self._process.returncode}"
        )


_LEAD_S = 0.05
"""From "all are ready" to the first due time: enough for the word to reach every generator."""

_SUMMED = ("cpu_s", "gc_pauses", "stalls", "stalled_s")

Message = dict[str, Any]
OnMessage = Callable[[int, Message, float], None]
"""Is told which generator says what, and the seconds since the start."""


@dataclass(frozen=True)
class Log:
    """What all generators wrote down, in the order of the schedule."""

    columns: dict[str, "NDArray[np.generic]"]
    errors: Counter[str]
    warmup_errors: Counter[str]
    health: dict[str, float]
    stopped_s: float | None
    """When the attack was interrupted, in seconds from the start; None if it was not."""


def offer(specs: Sequence[Spec], due_s: "Times", on_message: OnMessage) -> Log:
    """Offer a schedule with one generator per specification.

    KeyboardInterrupt ends the attack, not the log. Raises LabError if a generator ends early. No generator is
    left.
    """

    inbox: queue.SimpleQueue[tuple[int, Message] | None] = queue.SimpleQueue()
    with ExitStack() as stack:
        crew = [
            stack.enter_context(GeneratorProcess(spec, share_s.tobytes()))
            for spec, share_s in zip(specs, split(due_s, len(specs)), strict=True)
        ]
        listeners = [_Listener(k, process, inbox) for k, process in enumerate(crew)]
        for listener in listeners:
            listener.start()
        if any(inbox.get() is None for _ in crew):
            raise _first_error(listeners)
        start_s = time.monotonic() + _LEAD_S - float(min(due_s[0], 0.0))
        for process in crew:
            process.start(start_s)
        stopped_s = None
        try:
            _relay(inbox, len(crew), start_s, on_message)
        except KeyboardInterrupt:
            stopped_s = time.monotonic() - start_s
            for process in crew:
                process.stop()
        for listener in listeners:
            listener.join()
    if any(listener.error for listener in listeners):
        raise _first_error(listeners)
    return _merged([listener.last for listener in listeners], stopped_s)


class _Listener(threading.Thread):
    """Reads what one generator says, so that none ever waits to be heard."""

    def __init__(
        self, number: int, process: GeneratorProcess, inbox: queue.SimpleQueue[tuple[int, Message] | None]
    ) -> None:
        super().__init__(daemon=True)
        self.last: Message = {}
        self.error: LabError | None = None
        self._number, self._process, self._inbox = number, process, inbox

    def run(self) -> None:
        try:
            for message in self._process.messages():
                self.last = message
                self._inbox.put((self._number, message))
        except LabError as error:
            self.error = error
        finally:
            self._inbox.put(None)


def _first_error(listeners: Sequence[_Listener]) -> LabError:
    return next(
        (listener.error for listener in listeners if listener.error), LabError("a load generator ended early")
    )


def _relay(
    inbox: queue.SimpleQueue[tuple[int, Message] | None], speaking: int, start_s: float, on_message: OnMessage
) -> None:
    while speaking:
        said = inbox.get()
        if said is None:
            speaking -= 1
        else:
            on_message(*said, time.monotonic() - start_s)


def _merged(parts: Sequence[Message], stopped_s: float | None) -> Log:

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
    return Log(columns, errors, warmup_errors, health, stopped_s)


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
    """Return figures about the generators, warm-up apart.

    waited: how many requests waited for a slot of the in-flight limit; most_in_flight: the most that were
    sent and had not ended at one time; lag_p99_s: the p99 of the send lag of those that did not wait for a
    slot, the generators' own fault, None if there are none.
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
    """Return how many requests were sent and not ended at once, at most.

    NaN is what was never sent, or has never ended. What ends at the instant of a send was there no longer.
    """
    sent, end = (np.sort(times[~np.isnan(times)]) for times in (sent_s, end_s))
    there = np.arange(1, len(sent) + 1) - np.searchsorted(end, sent, side="right")
    return int(there.max(initial=0))


_NAME = "ceiling.json"


class AboveCeilingWarning(UserWarning):
    """More is asked of a generator than it was believed at when it was measured."""


def keep(connect_rps: float, keepalive_rps: float) -> None:
    """Remember both ceilings for later attacks here: with a connection per request, and kept alive.

    Raises LabError if they cannot be written.
    """
    kept = {"machine": platform.node(), "connect_rps": connect_rps, "keepalive_rps": keepalive_rps}
    write_whole(files.data() / _NAME, (json.dumps(kept) + "\n").encode())


def kept_rps(*, keepalive: bool) -> float | None:
    """Return the ceiling that was measured on this machine, None if none was."""
    try:
        kept = json.loads((files.data() / _NAME).read_text())
        rate_rps = float(kept["keepalive_rps" if keepalive else "connect_rps"])
        return rate_rps if kept["machine"] == platform.node() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def warn_above(peak_rps: float, generators: int, *, keepalive: bool) -> None:
    """Warn if the highest rate of an attack is more than its generators were believed at.

    Generators that leave the server no CPU do not count. The warning names the line that called the caller.
    The result says for itself whether it is valid.
    """
    ceiling_rps = kept_rps(keepalive=keepalive)
    believed = min(generators, generators_with_room())
    if ceiling_rps is None or peak_rps <= believed * ceiling_rps:
        return
    warnings.warn(
        f"{per_second(peak_rps)} is more than lab doctor believed {counted(believed, 'generator')} at"
        f" ({per_second(ceiling_rps)} each): {_advice(peak_rps, ceiling_rps)}",
        AboveCeilingWarning,
        stacklevel=3,
    )


def _advice(peak_rps: float, ceiling_rps: float) -> str:
    if not ceiling_rps:
        return "run it when all is quiet"
    enough = math.ceil(peak_rps / ceiling_rps)
    if enough > generators_with_room():
        return "it takes a machine with more CPUs"
    return f"add --generators {enough} (generators={enough})"
