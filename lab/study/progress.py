"""How far a measurement is: a small file for whoever polls it, and one line for whoever watches."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.files import write_whole

NAME = "progress.json"
_FIRST_GUESS_S = 2.0


@dataclass(frozen=True)
class State:
    """One moment: trials done of all, seconds since the start, seconds left, and what is being measured."""

    experiment: str
    done: int
    total: int
    elapsed_s: float
    left_s: float
    current: str

    def __str__(self) -> str:
        count = f"trial {self.done + 1} of {self.total}"
        return f"{self.experiment}: {count}, {_clock(self.left_s)} left ({self.current})"


class Progress:
    """Follows one measurement of trials whose planned seconds are known.

    What a trial takes beyond them (to start, to drain an overload) is guessed from the trials before.
    """

    def __init__(self, folder: Path, experiment: str, durations_s: list[float], from_disk: int) -> None:
        self._file = folder / NAME
        self._experiment = experiment
        self._planned_s = durations_s
        self._from_disk = from_disk
        self._done = 0
        self._start = time.monotonic()
        self._show = _line()

    def begins(self, current: str) -> None:
        """Say that the next trial begins."""
        self._report(state := self._state(current))
        self._show(str(state), False)

    def ends(self) -> None:
        """Count the trial that has just been kept."""
        self._done += 1

    def finish(self) -> None:
        """Leave one quiet sentence."""
        self._report(state := self._state(""))
        measured = f"{self._done} trials measured, {self._from_disk} from disk, in {_clock(state.elapsed_s)}"
        missing = f"; {left} not measured yet" if (left := state.total - state.done) else ""
        self._show(f"{self._experiment}: {measured}{missing}.", True)

    def _state(self, current: str) -> State:
        elapsed_s = time.monotonic() - self._start
        extra_s = (
            (elapsed_s - sum(self._planned_s[: self._done])) / self._done if self._done else _FIRST_GUESS_S
        )
        left = self._planned_s[self._done :]
        left_s = max(sum(left) + extra_s * len(left), 0.0)
        done, total = self._from_disk + self._done, self._from_disk + len(self._planned_s)
        return State(self._experiment, done, total, round(elapsed_s, 1), round(left_s, 1), current)

    def _report(self, state: State) -> None:
        write_whole(self._file, json.dumps(asdict(state)).encode())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _line() -> Callable[[str, bool], None]:
    """Return what shows one line that replaces itself: in a notebook, on a terminal, or nowhere."""
    if "IPython" in sys.modules:
        from IPython import get_ipython

        if get_ipython() is not None:
            return _notebook_line()
    return _terminal_line if sys.stderr.isatty() else lambda text, last: None


def _notebook_line() -> Callable[[str, bool], None]:
    from IPython.display import display

    handle = display({"text/plain": ""}, raw=True, display_id=True)
    return lambda text, last: handle.update({"text/plain": text}, raw=True)


def _terminal_line(text: str, last: bool) -> None:
    print(f"\r\033[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
