"""The progress of a measurement: a small file to poll, and a line to watch."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.files import write_whole
from lab.progress import display
from lab.units import clock

NAME = "progress.json"
_FIRST_GUESS_S = 2.0


@dataclass(frozen=True)
class State:
    """One moment: trials done, trials in all, seconds elapsed and left, and what is being measured."""

    experiment: str
    done: int
    total: int
    elapsed_s: float
    left_s: float
    current: str

    def __str__(self) -> str:
        return f"trial {self.done + 1} of {self.total}, about {clock(self.left_s)} left ({self.current})"

    @property
    def share(self) -> float:
        """How much of the measurement is done, from 0 to 1."""
        return self.done / max(self.total, 1)

    @staticmethod
    def read(folder: Path) -> "State | None":
        """Return the latest state of the run in `folder`, or None."""
        try:
            return State(**json.loads((folder / NAME).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


class Countdown:
    """Follows one measurement of trials whose planned seconds are known.

    What a trial takes beyond them (to start, to drain an overload) is guessed from earlier trials.
    """

    def __init__(self, folder: Path, experiment: str, durations_s: list[float], from_disk: int) -> None:
        self._file = folder / NAME
        self._experiment = experiment
        self._planned_s = durations_s
        self._from_disk = from_disk
        self._done = 0
        self._start = time.monotonic()
        self._display = display()

    def begins(self, current: str) -> None:
        """Report that the next trial begins."""
        state = self._report(current)
        self._display.show(f"{self._experiment}: {state}", state.share)

    def ends(self) -> None:
        """Count the trial that was just kept."""
        self._done += 1

    def finish(self) -> None:
        """Leave one closing sentence."""
        state = self._report("")
        measured = f"{self._done} trials measured, {self._from_disk} from disk, in {clock(state.elapsed_s)}"
        missing = f"; {left} not measured yet" if (left := state.total - state.done) else ""
        self._display.close(f"{self._experiment}: {measured}{missing}.")

    def _report(self, current: str) -> State:
        """Write the current state to the file."""
        elapsed_s = time.monotonic() - self._start
        extra_s = (
            (elapsed_s - sum(self._planned_s[: self._done])) / self._done if self._done else _FIRST_GUESS_S
        )
        left = self._planned_s[self._done :]
        left_s = max(sum(left) + extra_s * len(left), 0.0)
        done, total = self._from_disk + self._done, self._from_disk + len(self._planned_s)
        state = State(self._experiment, done, total, round(elapsed_s, 1), round(left_s, 1), current)
        write_whole(self._file, json.dumps(asdict(state)).encode())
        return state
