"""The progress of work: a bar on a terminal, a line in a notebook, plain lines elsewhere.

It goes to stderr, or nowhere if that is closed.
"""

import contextlib
import sys
import time
from typing import Any, Protocol

from lab.errors import one_line


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
    if sys.stderr.isatty():
        from rich.console import Console

        if (console := Console(stderr=True)).is_interactive:  # a dumb terminal is not
            return _OnTerminal(console)
    return _Plain(every_s)


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
            self._print(text)

    def close(self, last: str = "") -> None:
        if last:
            self._print(last)

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the reader may be gone: the work goes on all the same
            print(one_line(text), file=sys.stderr, flush=True)


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
