"""What `lab study` shows while it runs: one screen on a terminal, plain lines elsewhere."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from lab.errors import LabError, one_line
from lab.flags import in_words
from lab.progress import State, display, followed, terminal
from lab.streams import tell
from lab.study.run import Run
from lab.units import clock, per_second, seconds

TO_COME, RUNNING, DONE, FAILED, STOPPED = "to come", "running", "done", "failed", "stopped"

_FRAME_LINES = 7
"""What a screen shows besides the notebooks."""

_BAR = 24


class Watch(Protocol):
    """Shows how a study goes. Always close it: a terminal is another's until then."""

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Show the progress of a notebook meanwhile."""

    def ended(self, name: str, failure: str | None, took_s: float) -> None:
        """Show how a notebook ended: None if it did not fail, else why."""

    def close(self) -> None:
        """Leave the last lines."""


def watch(run: Run, lasts_s: Mapping[str, float]) -> Watch:
    """Return what shows a study of these notebooks, each of which is thought to last so long."""
    console = terminal()
    return Lines(run) if console is None else Screen(run, lasts_s, console)


class Lines:
    """Prints a line for each step."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        line = display()

        def show(state: State | None) -> None:
            doing = "running" if state is None else str(state) if state.current else _READING
            line.show(f"{name}: {doing}", state.share if state else 0.0)

        try:
            with followed(self._run.path, show):
                yield
        finally:
            line.close()

    def ended(self, name: str, failure: str | None, took_s: float) -> None:
        tell(f"{name}: {f'failed: {failure}' if failure else 'done'}, after {took_s:.0f} s")

    def close(self) -> None:
        pass


_READING = "reading what was measured"


@dataclass
class _Row:
    """A notebook: the seconds that it is thought to take, how far it is, what it took, and why it failed."""

    lasts_s: float
    state: str = TO_COME
    took_s: float = 0.0
    failure: str = ""


class Screen:
    """Draws one screen: the notebooks, the trial that runs, the time left, and what the last trial showed.

    It is a terminal's other screen, so that resizing spoils nothing; the last lines go to the usual one. It
    has no thread but the one that follows the measurement.
    """

    def __init__(self, run: Run, lasts_s: Mapping[str, float], console: Any) -> None:
        from rich.live import Live

        self._run, self._about, self.console = run, run.manifest, console
        self._rows = {name: _Row(value_s) for name, value_s in lasts_s.items()}
        self._began_s = self._notebook_began_s = time.monotonic()
        self._now: State | None = None
        self._last = ""
        self._trials = run.names()
        self._lock = threading.Lock()
        self._live = Live(console=console, screen=True, auto_refresh=False, get_renderable=self.drawn)
        with contextlib.suppress(OSError):
            self._live.start()

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        self._rows[name].state, self._now = RUNNING, None
        self._notebook_began_s = time.monotonic()
        with followed(self._run.path, self._show):
            yield

    def ended(self, name: str, failure: str | None, took_s: float) -> None:
        self._rows[name] = _Row(self._rows[name].lasts_s, FAILED if failure else DONE, took_s, failure or "")
        self._show(None)

    def close(self) -> None:
        for row in self._rows.values():
            row.state = STOPPED if row.state == RUNNING else row.state
        with contextlib.suppress(OSError):
            self._live.stop()
            self.console.print(self._notebooks(list(self._rows)))

    def _show(self, state: State | None) -> None:
        with self._lock, contextlib.suppress(OSError, LabError):
            self._now = state
            self._look_for_a_result()
            self._live.refresh()

    def _look_for_a_result(self) -> None:
        """Put the newest trial in words, once it is there."""
        names = self._run.names()
        if names != self._trials and (row := self._run.newest_trial()):
            self._last = result_in_words(row)
        self._trials = names

    def drawn(self) -> Any:
        """Return what to draw now, for the size that the terminal has now."""
        from rich.console import Group
        from rich.text import Text

        title = Text(f"Scaling Lab, run {self._run.run_id}", style="bold", overflow="ellipsis", no_wrap=True)
        machine = Text(
            f"profile {self._about.profile}, {one_line(self._about.machine)}",
            style="dim",
            overflow="ellipsis",
            no_wrap=True,
        )
        return Group(title, machine, "", self._notebooks(self._in_view()), "", self._facts())

    def _in_view(self) -> list[str]:
        """Name the notebooks that there is room for: the running one, with what is around it."""
        names, room = list(self._rows), max(self.console.height - _FRAME_LINES, 1)
        running = [index for index, name in enumerate(names) if self._rows[name].state == RUNNING]
        first = max(0, min((running or [0])[0] - room // 2, len(names) - room))
        return names[first : first + room]

    def _notebooks(self, names: list[str]) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, min_width=len(TO_COME))
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, overflow="ellipsis", justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        styles = {DONE: "green", FAILED: "bold red", RUNNING: "bold", TO_COME: "dim", STOPPED: "yellow"}
        for name in names:
            row = self._rows[name]
            known = row.state in (DONE, FAILED)
            took = clock(row.took_s) if known else f"about {clock(row.lasts_s)}"
            shown = self._doing() if row.state == RUNNING else Text(one_line(row.failure))
            table.add_row(Text(row.state, styles[row.state]), Text(name, styles[row.state]), took, shown)
        return table

    def _doing(self) -> Any:
        """Return a bar with the trial that runs."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if self._now is None:
            return Text("starting", "dim")
        if not self._now.current:
            return Text(_READING, "dim")
        number = "" if self._now.line else f"trial {self._now.done + 1} of {self._now.total}"
        both = Table.grid(padding=(0, 1))
        both.add_row(ProgressBar(1.0, self._now.share, width=_BAR), Text(number))
        return both

    def _facts(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", no_wrap=True, min_width=len("last trial"))
        facts.add_column(overflow="ellipsis", no_wrap=True)
        so_far_s = time.monotonic() - self._began_s
        left_s, now = self.left_s(), self._now
        left = f"about {clock(left_s)}" if left_s >= 1 else "nearly done"
        facts.add_row("time left", f"{left}, after {clock(so_far_s)}")
        facts.add_row("measuring", Text((one_line(now.line or now.current) if now else "") or "–"))
        facts.add_row("last trial", Text(self._last or "–"))
        return facts

    def left_s(self) -> float:
        """Return the seconds that are thought to be left, at the pace so far if that is slow."""
        ended = [row for row in self._rows.values() if row.state in (DONE, FAILED)]
        pace = (
            max(1.0, sum(row.took_s for row in ended) / sum(row.lasts_s for row in ended)) if ended else 1.0
        )
        to_come_s = pace * sum(row.lasts_s for row in self._rows.values() if row.state == TO_COME)
        running_s = pace * sum(row.lasts_s for row in self._rows.values() if row.state == RUNNING)
        of_trials_s = self._now.left_s if self._now else 0.0
        own_s = running_s - (time.monotonic() - self._notebook_began_s) if running_s else 0.0
        return to_come_s + max(own_s, of_trials_s, 0.0)


def result_in_words(row: Mapping[str, Any]) -> str:
    """Put a trial's row in words: the server and its load, what came of it, and whether to doubt it."""
    server = row["peer"] or row["topology"]
    server += f" x {row['workers']}" if row["workers"] > 1 else ""
    p99_s = row["latency_p99_s"]
    told = [
        f"{server} at {per_second(row['rate'])}: {per_second(row['throughput_rps'])} answered",
        f"p99 {seconds(p99_s)}" if p99_s is not None else "none ended",
        f"flagged: {in_words(row['flags'])}" if row["flags"] else "no flag",
    ]
    return one_line(", ".join(told))
