"""The panel: controls, live numbers and the requests themselves, over an `Engine`."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakSet

import anywidget
import ipywidgets as widgets
import traitlets

from lab.errors import LabError, UsageError, one_line
from lab.experiments.dispatch.trials import Queue, queue_of
from lab.hotloop import ITERATIONS, KERNELS
from lab.load.arrivals import ARRIVALS
from lab.playground import picture
from lab.playground.engine import MOST_RPS, Engine, Moment, Parameters
from lab.servers.spec import DISPATCHES, TOPOLOGIES
from lab.units import counted, per_second

_HERE = Path(__file__).parent
_REPLAY = _HERE.parent / "report" / "templates" / "replay"

TICK_S = 0.25
UNTOUCHED_S = 600.0
"""It stops by itself when nobody has touched it for so long."""

UNSEEN_S, UNSEEN_HIDDEN_S = 10.0, 150.0
"""Or when no browser has shown it for so long: those let hidden pages speak once a minute."""

_SCENE_S, _SCENE_REQUESTS = 4.0, 400

HINT = "Stopped. Press Start, then drag the rate."

_WORK = {
    "the article's loop": ITERATIONS,
    "a tenth of it": ITERATIONS // 10,
    "a hundredth": ITERATIONS // 100,
}


class Live(anywidget.AnyWidget):
    """The numbers and charts; see `live.js` for what `state` holds."""

    _esm = (_HERE / "live.js").read_text()
    _css = (_HERE / "live.css").read_text()
    state = traitlets.Dict().tag(sync=True)


class Requests(anywidget.AnyWidget):
    """The requests of the last seconds, as the report's replay draws them."""

    _esm = _REPLAY.with_suffix(".js").read_text()
    _css = _REPLAY.with_suffix(".css").read_text()
    scenes: traitlets.List[Any] = traitlets.List().tag(sync=True)
    live = traitlets.Bool(True).tag(sync=True)
    at = traitlets.Float(None, allow_none=True).tag(sync=True)


_panels: "WeakSet[Panel]" = WeakSet()
"""All of them: an interrupt is for each."""


class Panel(widgets.VBox):  # type: ignore[misc]
    """The playground: stopped at first, and again when its output is closed, cleared or interrupted."""

    def __init__(self, parameters: Parameters) -> None:
        self.engine = Engine()
        self._history = picture.History()
        self._orders = ThreadPoolExecutor(4, thread_name_prefix="playground-orders")
        self._said, self._bad = HINT, False
        self._touched_s = self._seen_s = time.monotonic()
        self._unseen_s = UNSEEN_S
        self._cell_runs = False
        self._make_controls(parameters)
        self._live = Live(state=self._state(None))
        self._live.on_msg(self._hear)
        self._requests = Requests()
        self._watch = widgets.Checkbox(True, description="show the requests themselves", indent=False)
        self._picture = widgets.VBox([])
        self._watch.observe(lambda _: self._show_picture(), "value")
        self._enable()
        super().__init__(
            [self._arrangement, self._driving, self._live, self._watch, self._picture],
            layout=widgets.Layout(max_width="64rem"),
        )
        _panels.add(self)
        self._stop_on_interrupt()

    def __repr__(self) -> str:
        return "The playground: open this notebook in JupyterLab, run all its cells, and press Start."

    def _make_controls(self, p: Parameters) -> None:
        def choice(name: str, options: Any, value: Any) -> widgets.Dropdown:
            return widgets.Dropdown(
                options=options, value=value, description=name, layout=widgets.Layout(width="15rem")
            )

        def button(name: str, tip: str, order: Callable[[], str], doing: str, **look: Any) -> widgets.Button:
            made = widgets.Button(description=name, tooltip=tip, **look)
            made.on_click(lambda _: self._order(doing, order))
            return made

        work = _WORK if p.iterations in _WORK.values() else _WORK | {f"{p.iterations:,} steps": p.iterations}
        self._topology = choice("topology", TOPOLOGIES, p.topology)
        self._dispatch = choice("dispatch", DISPATCHES, p.dispatch)
        self._workers = widgets.IntText(
            p.workers, description="workers", layout=widgets.Layout(width="10rem")
        )
        self._kernel = choice("kernel", KERNELS, p.kernel)
        self._work = choice("work", list(work.items()), p.iterations)
        self._arrivals = choice("arrivals", ARRIVALS, p.arrivals)
        self._rate = widgets.FloatLogSlider(
            p.rate, min=0, max=3, step=0.01, description="requests/s", readout_format=".4",
            layout=widgets.Layout(width="46rem", max_width="100%"),
        )  # fmt: skip
        self._start = button(
            "Start",
            "Start the server, and offer load to it",
            self._begin,
            "Starting…",
            button_style="primary",
        )
        self._stop = button("Stop", "End the server and the load", self._end, "Stopping…")
        self._do = [
            button("Kill a worker", "SIGKILL, as a crash", self._kill, "Killing…"),
            button("Block a worker", "One request that takes 3 s", self._block, "Blocking a worker for 3 s…"),
            button("Recycle", "Replace all workers, one at a time", self._recycle, "Recycling…"),
        ]
        self._fixed = [self._topology, self._dispatch, self._kernel, self._work, self._arrivals]
        self._settings = {
            "topology": self._topology, "dispatch": self._dispatch, "workers": self._workers,
            "kernel": self._kernel, "iterations": self._work, "arrivals": self._arrivals, "rate": self._rate,
        }  # fmt: skip
        self._topology.observe(lambda _: self._enable(), "value")
        self._rate.observe(self._rate_changed, "value")
        self._workers.observe(self._workers_changed, "value")
        row = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center")
        first = [self._topology, self._dispatch, self._workers, self._kernel, self._work, self._arrivals]
        self._arrangement = widgets.Box(first, layout=row)
        self._driving = widgets.VBox(
            [self._rate, widgets.Box([self._start, self._stop, *self._do], layout=row)]
        )

    def _enable(self) -> None:
        """Leave enabled what means something now."""
        runs, topology = self.engine.is_running, self._topology.value
        for one in self._fixed:
            one.disabled = runs
        self._dispatch.disabled = runs or topology != "cluster"
        self._workers.disabled = topology == "single"
        self._start.disabled = runs
        self._stop.disabled = not runs
        for one in self._do:
            one.disabled = not runs
        self._do[-1].disabled = not runs or topology == "single"

    def _order(self, doing: str, order: Callable[[], str]) -> None:
        """Carry out an order beside, so that the kernel stays responsive; say how it went."""
        self._touched_s = time.monotonic()
        self._say(doing)
        if order == self._begin:
            self._start.disabled = True
        self._orders.submit(self._carry_out, order)

    def _carry_out(self, order: Callable[[], str]) -> None:
        try:
            said = order()
        except LabError as error:
            if self.engine.is_running or order == self._begin:  # else it was stopped meanwhile
                self._say(one_line(error), bad=True)
        except Exception as error:  # a bug: in one line, as nobody reads a thread's traceback
            self._say(one_line(f"{type(error).__name__}: {error}"), bad=True)
        else:
            self._say(said)
        self._enable()

    def _begin(self) -> str:
        chosen = {name: control.value for name, control in self._settings.items()}
        parameters = _checked(chosen)
        self._history = picture.History()
        self.engine.start(parameters)
        self._seen_s = time.monotonic()
        threading.Thread(
            target=self._follow, args=(self._history,), name="playground-panel", daemon=True
        ).start()
        queue = queue_of({**chosen, "pool": "process"})
        return f"Running: {queue}. Drag the rate, or disturb a worker."

    def _end(self) -> str:
        totals = self.engine.stop()
        self._live.state = {**self._live.state, "running": False}
        self._show_picture()
        if not totals.due:
            return HINT
        ways = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in totals.outcomes.items())
        return f"Stopped. Of {counted(totals.due, 'request')} that fell due: {ways}."

    def _kill(self) -> str:
        self._history.note("kill")
        return f"Killed {self.engine.kill_worker()}."

    def _block(self) -> str:
        self._history.note("block")
        return f"Blocked {self.engine.block_worker()}."

    def _recycle(self) -> str:
        self._history.note("recycle")
        return f"Recycled: {self.engine.recycle()}."

    def _rate_changed(self, change: Any) -> None:
        self._touched_s = time.monotonic()
        if self.engine.is_running:
            try:
                self.engine.set_rate(min(MOST_RPS, change["new"]))
            except LabError as error:
                self._say(str(error), bad=True)

    def _workers_changed(self, change: Any) -> None:
        if self.engine.is_running:
            workers = change["new"]
            self._history.note(f"{workers} workers")
            self._order(
                f"Scaling to {counted(workers, 'worker')}…", lambda: f"Workers: {self.engine.scale(workers)}."
            )

    def _say(self, text: str, *, bad: bool = False) -> None:
        self._said, self._bad = text, bad
        if hasattr(self, "_live"):
            self._live.state = {**self._live.state, "said": text, "bad": bad}

    def _follow(self, history: picture.History) -> None:
        """Show a moment after the other while it runs."""
        self._show_picture()
        due_s = time.monotonic()
        while self.engine.is_running and history is self._history:
            try:
                moment = self.engine.moment()
                history.add(moment)
                if moment.trouble:
                    self._said, self._bad = one_line(moment.trouble) + ": press Stop", True
                self._live.state = self._state(moment)
                if self._watch.value:
                    self._requests.scenes = [self._scene(moment)]
            except LabError:  # it was stopped meanwhile
                break
            if why := self._deserted():
                self._orders.submit(self._carry_out, lambda: f"{why} {self._end()}")
                break
            due_s = max(due_s + TICK_S, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))

    def _deserted(self) -> str:
        """Say why nobody needs it any more, if so.

        While a cell runs, the kernel does not hear whether a browser shows it.
        """
        now_s = time.monotonic()
        if now_s - self._touched_s > UNTOUCHED_S:
            return "Nobody has touched it for 10 minutes."
        if self._cell_runs:
            self._seen_s = now_s
        return "Nobody watches." if now_s - self._seen_s > self._unseen_s else ""

    def _state(self, moment: Moment | None) -> dict[str, Any]:
        found = moment.workers if moment else ()
        return {
            "running": moment is not None,
            "at": round(moment.at_s, 2) if moment else 0,
            "said": self._said,
            "bad": self._bad,
            "tiles": picture.tiles(moment),
            "charts": self._history.charts(),
            "workers": picture.workers(found),
            "fair": 1 / len(found) if len(found) > 1 else None,
        }

    def _scene(self, moment: Moment) -> dict[str, Any]:
        shown_s = _SCENE_S + (moment.numbers.service_s or 0.0)  # the picture is a loop's time behind
        recent, places = self.engine.recent(shown_s, _SCENE_REQUESTS)
        factors = {"topology": self._topology.value, "dispatch": self._dispatch.value, "pool": "process"}
        queue = queue_of(factors | {"kernel": self._kernel.value})
        title = f"{queue}, {per_second(self._rate.value)}"
        return picture.scene(title, moment.workers, queue == Queue.CENTRAL, recent, places)

    def _show_picture(self) -> None:
        shown = self._watch.value and self.engine.is_running
        self._picture.children = [self._requests] if shown else []

    def _hear(self, _: Any, content: dict[str, Any], __: Any) -> None:
        """Stop when the output is cleared; else note that somebody watches."""
        if "hidden" in content:
            self._seen_s = time.monotonic()
            self._unseen_s = UNSEEN_HIDDEN_S if content["hidden"] else UNSEEN_S
        if content.get("closed") and self.engine.is_running:
            self._order(HINT, self._end)

    def _stop_on_interrupt(self) -> None:
        """Stop when the kernel is interrupted, in a cell or between cells."""
        ipython: Any = sys.modules.get("IPython")
        shell: Any = ipython and ipython.get_ipython()
        if not hasattr(shell, "kernel"):
            return

        def interrupted(*_: Any) -> None:
            for panel in list(_panels):
                if panel.engine.is_running:
                    panel._order("Interrupted: stopping…", panel._end)

        def before_cell(_: Any) -> None:
            self._cell_runs = True

        def after_cell(result: Any) -> None:
            self._cell_runs = False
            if isinstance(result.error_in_exec, KeyboardInterrupt):
                interrupted()

        shell.events.register("pre_run_cell", before_cell)
        shell.events.register("post_run_cell", after_cell)
        shell.kernel.saved_sigint_handler = interrupted  # what the kernel restores after each message


def _checked(chosen: dict[str, Any]) -> Parameters:
    """Return the parameters. Raises UsageError, in one line for a reader who sees the controls."""
    try:
        parameters = Parameters.from_batch({}, chosen)
    except UsageError as error:
        raise UsageError(str(error).replace("parameter ", "")) from None
    parameters.spec()
    return parameters
