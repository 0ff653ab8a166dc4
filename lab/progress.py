"""The progress of work: a bar on a terminal, a line in a notebook, plain lines elsewhere.

It goes to stderr, or nowhere if that is closed. That of a measurement is also in a small file, to be polled.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from lab.errors import one_line
from lab.files import write_whole
from lab.streams import tell
from lab.units import clock


class Display(Protocol):
    """One line that replaces itself. Always close it: a terminal's cursor is hidden until then."""

    def show(self, text: str, share: float) -> None:
        """Show the progress of the work, and the `share` of it that is done, from 0 to 1."""

    def close(self, last: str = "") -> None:
        """Remove the line, and leave a last one if given."""


def display(every_s: float = 0.0) -> Display:
    """Return the display that fits where we run; plain lines come at most every `every_s` seconds."""
    if _in_notebook():
        return _InNotebook()
    if sys.stderr is None or sys.stderr.closed:
        return _Nowhere()
    console = terminal()
    return _Plain(every_s) if console is None else _OnTerminal(console)


def terminal() -> Any:
    """Return rich's console on stderr if that is a terminal to draw on; None if it is dumb, or CI's."""
    if sys.stderr is None or sys.stderr.closed or not sys.stderr.isatty() or os.environ.get("CI"):
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_interactive else None


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class _Nowhere:
    def show(self, text: str, share: float) -> None:
        pass

    def close(self, last: str = "") -> None:
        pass


class _Plain:
    """Prints a line for each new text."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next_s = time.monotonic() + every_s
        self._shown = ""

    def show(self, text: str, share: float) -> None:
        if text != self._shown and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self._every_s
            self._shown = text
            tell(text)

    def close(self, last: str = "") -> None:
        if last:
            tell(last)


class _OnTerminal(_Plain):
    """Draws a bar and the text, cut to the terminal's width. It has no thread to disturb measurements."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        super().__init__(0.0)
        cut = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = BarColumn(bar_width=10), TextColumn("{task.description}", markup=False, table_column=cut)
        self._bar = Progress(*columns, console=console, transient=True, auto_refresh=False, expand=True)
        self._task = self._bar.add_task("", total=1.0)

    def show(self, text: str, share: float) -> None:
        self._bar.update(self._task, description=one_line(text), completed=share)
        with contextlib.suppress(OSError):
            self._bar.start()
            self._bar.refresh()

    def close(self, last: str = "") -> None:
        with contextlib.suppress(OSError):
            self._bar.stop()
        super().close(last)


class _InNotebook:
    """Updates one output of the cell; papermill keeps the last text."""

    def __init__(self) -> None:
        from IPython.display import display as show_output

        self._output = show_output({"text/plain": ""}, raw=True, display_id=True)

    def show(self, text: str, share: float) -> None:
        self._output.update({"text/plain": text}, raw=True)

    def close(self, last: str = "") -> None:
        self._output.update({"text/plain": last}, raw=True)


NAME = "progress.json"
_FIRST_GUESS_S = 2.0
_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True)
class State:
    """One moment: trials done, trials in all, seconds elapsed and left, and what is being measured.

    Work that does not know how many trials there will be says in a `line` how far it is.
    """

    experiment: str
    done: int
    total: int
    elapsed_s: float
    left_s: float
    current: str
    line: str = ""

    def __str__(self) -> str:
        if self.line:
            return self.line
        left = f"about {clock(self.left_s)} left of these" if self.left_s >= 1 else "nearly done with these"
        return f"trial {self.done + 1} of {self.total}, {left} ({self.current})"

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


class Told:
    """A display of work whose trials are not known beforehand, which is in the run's small file, too."""

    _WHOLE = 1000

    def __init__(self, folder: Path, experiment: str) -> None:
        self._file = folder / NAME
        self._experiment = experiment
        self._start = time.monotonic()
        self._display = display()

    def show(self, text: str, share: float) -> None:
        """Show the progress, here and to whoever polls the file."""
        self._write(round(share * self._WHOLE), text)
        self._display.show(text, share)

    def close(self, last: str = "") -> None:
        """Remove the line, and leave a last one if given."""
        self._write(self._WHOLE, "")
        self._display.close(last)

    def _write(self, done: int, line: str) -> None:
        elapsed_s = round(time.monotonic() - self._start, 1)
        state = State(self._experiment, done, self._WHOLE, elapsed_s, 0.0, line, line)
        write_whole(self._file, json.dumps(asdict(state)).encode())


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


@contextlib.contextmanager
def followed(folder: Path, show: Callable[[State | None], None]) -> Iterator[None]:
    """Meanwhile `show`, twice a second, the progress that a measurement of the run in `folder` reports.

    It is None as long as no measurement has begun.
    """
    (folder / NAME).unlink(missing_ok=True)
    done = threading.Event()
    watcher = threading.Thread(target=_follow, args=(folder, show, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _follow(folder: Path, show: Callable[[State | None], None], done: threading.Event) -> None:
    while not done.wait(_LOOK_AGAIN_S):
        show(State.read(folder))
