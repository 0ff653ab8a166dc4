"""Many generators as one: each takes every n-th request of the schedule, all begin at one instant."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.cpus import available_cpus
from lab.errors import LabError
from lab.load.log import COLUMNS
from lab.load.process import GeneratorProcess
from lab.load.spec import Spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lab.load.arrivals import Times

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
    from lab.load.shares import split

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
    import numpy as np

    from lab.load.shares import merge

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
