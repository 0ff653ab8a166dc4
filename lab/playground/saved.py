"""The second panel: a saved run's trials, sliced by their factors, as one figure."""

import base64
import html
from collections.abc import Iterable, Mapping
from typing import Any

import ipywidgets as widgets
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab import files
from lab.errors import LabError
from lab.figures import DARK_TO_LIGHT, canvas, cross_flagged, plain_log_ticks, rendered
from lab.notebook import alt_text
from lab.study.plan import FACTORS, NOT_LABELS
from lab.study.runs import find_runs, open_run
from lab.study.store import Store
from lab.units import counted, digits, per_second, seconds

ALL = "all"
NOTHING = "nothing"

_NOT_SLICED = {"duration_s", "warmup", "timeout_s", "place"}
"""Factors that say how long a trial lasts, and a label that orders figures."""

_ACROSS_FIRST = ("load", "rate", "workers", "dispatch")
_BY_FIRST = "dispatch"
_EXPERIMENT_FIRST = ("worker-scaling", "rate-sweep")
_MOST_LINES = 12
_LOG_FROM = 20
_MOST_TICKS = 8
_WIDTH = 4.0
"""Inches: narrower than other figures, as a notebook has its prompts beside it, and often another panel."""


def experiments(run_id: str) -> list[str]:
    """Name what a run has measured. Raises LabError if it cannot be read."""
    return sorted({trial.partition(".")[0] for trial in Store(files.data() / run_id).trial_ids()})


def varied(trials: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the factors in which trials differ, with their values in order.

    Where a load was planned, the rate that came of it differs from block to block, and is no factor.
    """
    names = [name for name in (*FACTORS, *trials.columns) if name in FACTORS or name not in NOT_LABELS]
    found = {}
    for name in dict.fromkeys(names):
        values = trials[name].dropna().unique().tolist()
        derived = name == "rate" and trials["load"].notna().all()
        if len(values) > 1 and name not in _NOT_SLICED and not derived:
            found[name] = sorted(values, key=lambda value: (isinstance(value, str), value))
    return found


def axes_of(factors: Iterable[str]) -> list[str]:
    """Name the factors as the axis to draw against, the most telling first; or else the blocks."""
    return sorted(factors, key=lambda name: (*_ACROSS_FIRST, name).index(name)) or ["block"]


def sliced(trials: pd.DataFrame, only: Mapping[str, Any]) -> pd.DataFrame:
    """Return the trials that have these values."""
    for name, value in only.items():
        trials = trials[trials[name] == value]
    return trials


def drawn(experiment: str, trials: pd.DataFrame, across: str, by: str) -> Figure | None:
    """Draw throughput and p99 against a factor: a dot for each trial, a line through each slice's medians.

    `by` is the factor that each line has one value of, or `NOTHING`. Against words, no line joins the
    medians. None without any trial.
    """
    trials = trials.dropna(subset=[across])
    if trials.empty:
        return None
    slices = [("all trials", trials)] if by == NOTHING else [*trials.groupby(by, sort=True)]
    slices = slices[:_MOST_LINES]
    best = trials.nlargest(1, "throughput_rps").iloc[0]
    title = f"{experiment}: up to {per_second(best['throughput_rps'])}, at {across} {_written(best[across])}"
    if by not in (NOTHING, across):
        title += f", {by} {best[by]}"
    with canvas(_plain(title), rows=2, height=5.4, width=_WIDTH) as (figure, (upper, lower)):
        for place, (value, some) in enumerate(slices):
            name = str(value) if by == NOTHING else f"{by} {value}"
            _line(upper, some, across, "throughput_rps", place, name)
            _line(lower, some, across, "latency_p99_s", place, name)
        upper.set(xlabel=_plain(across), ylabel="throughput, requests/s")
        upper.set_ylim(0)
        lower.set(xlabel=_plain(across), ylabel="p99 of latency", yscale="log")
        plain_log_ticks(lower.yaxis, seconds)
        values = trials[across]
        for axes, y in ((upper, "throughput_rps"), (lower, "latency_p99_s")):
            cross_flagged(axes, trials.assign(**{across: _along(values)}), across, y)
            if not _is_numeric(values):
                continue
            if values.min() > 0 and values.max() / values.min() >= _LOG_FROM:
                axes.set_xscale("log")
                plain_log_ticks(axes.xaxis)
            elif values.nunique() <= _MOST_TICKS:
                axes.set_xticks(sorted(values.unique()))
        if len(slices) > 1 or not trials["valid"].all():
            figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _line(axes: Axes, trials: pd.DataFrame, across: str, y: str, place: int, name: str) -> None:
    look = DARK_TO_LIGHT[place % len(DARK_TO_LIGHT)]
    x = _along(trials[across])
    medians = trials.groupby(x)[y].median()
    line = look.line if _is_numeric(x) else "none"
    axes.plot(x, trials[y], look.marker, color=look.color, alpha=0.35, markersize=4)
    axes.plot(
        medians.index, medians, linestyle=line, color=look.color, marker=look.marker, label=_plain(name)
    )


def _along(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return values as they stand along an axis: numbers, or words."""
    return values if _is_numeric(values) else values.map(lambda value: _plain(str(value)))


def _is_numeric(values: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _written(value: Any) -> str:
    return digits(value) if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """Have a text drawn as it is: names may come from an imported run, and $ begins a formula."""
    return text.replace("$", r"\$")


class Saved(widgets.VBox):  # type: ignore[misc]
    """Pick a run and an experiment, what to draw against what, and which trials to keep to."""

    def __init__(self) -> None:
        self._trials = pd.DataFrame()
        self._figure = widgets.HTML()
        self._run = _choice("run", [run.run_id for run in find_runs()])
        self._experiment = _choice("experiment", [])
        self._across, self._by = _choice("against", []), _choice("a line per", [])
        self._only = widgets.Box([], layout=_ROW)
        self._filling = False
        self._run.observe(lambda _: self._pick_run(), "value")
        self._experiment.observe(lambda _: self._pick_experiment(), "value")
        for one in (self._across, self._by):
            one.observe(lambda _: self._slice(), "value")
        super().__init__(
            [
                widgets.Box([self._run, self._experiment], layout=_ROW),
                widgets.Box([self._across, self._by], layout=_ROW),
                self._only,
                self._figure,
            ]
        )
        self._pick_run()

    def __repr__(self) -> str:
        return "Saved runs: open this notebook in JupyterLab, and run all its cells."

    def _pick_run(self) -> None:
        if self._run.value is None:
            self._say("No run is saved here yet: `make study` or any of the other notebooks makes one.")
            return
        try:
            found = experiments(self._run.value)
            why = "" if found else "This run has no trials."
        except LabError as error:
            found, why = [], str(error)
        self._filling = True
        self._experiment.options = found
        if why:
            self._draw_nothing(why)
            return
        self._experiment.value = next((name for name in _EXPERIMENT_FIRST if name in found), found[0])
        self._filling = False
        self._pick_experiment()

    def _pick_experiment(self) -> None:
        if self._filling:
            return
        try:
            self._trials = open_run(self._run.value).trials(self._experiment.value)
        except LabError as error:
            self._draw_nothing(str(error))
            return
        self._filling = True
        self._factors = varied(self._trials)
        across = axes_of(self._factors)
        others = sorted((name for name in self._factors if name != across[0]), key=_BY_FIRST.__ne__)
        self._across.options, self._across.value = across, across[0]
        self._by.options = [NOTHING, *self._factors]
        self._by.value = others[0] if others else NOTHING
        self._only.children = [
            _choice(name, [ALL, *map(_Value, values)]) for name, values in self._factors.items()
        ]
        for one in self._only.children:
            one.observe(lambda _: self._slice(), "value")
        self._filling = False
        self._slice()

    def _slice(self) -> None:
        """Draw what is chosen now."""
        if self._filling:
            return
        only = {one.description: one.value.value for one in self._only.children if one.value != ALL}
        chosen = sliced(self._trials, only)
        figure = drawn(self._experiment.value, chosen, self._across.value, self._by.value)
        if figure is None:
            self._say("No trial is like that: choose all for one of the factors.")
            return
        source = base64.b64encode(rendered(figure, "png")).decode()
        flagged = int((~chosen["valid"]).sum())
        self._figure.value = (
            f'<figure style="margin:0;max-width:33rem"><img src="data:image/png;base64,{source}"'
            f' style="max-width:100%" alt="{html.escape(alt_text(figure))}"><figcaption>'
            f"{counted(len(chosen), 'trial')} of {len(self._trials)}, {flagged} flagged;"
            " lines join medians.</figcaption></figure>"
        )

    def _draw_nothing(self, why: str) -> None:
        """Say why there is no figure, and offer nothing of what was picked before."""
        self._filling = True
        self._across.options, self._by.options, self._only.children = [], [], []
        self._filling = False
        self._say(why)

    def _say(self, text: str) -> None:
        self._figure.value = f'<p role="status">{html.escape(text)}</p>'


class _Value:
    """A factor's value as an option: widgets compare options, and 1 equals True."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        return _written(self.value)


_ROW = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center")


def _choice(name: str, options: Iterable[Any]) -> widgets.Dropdown:
    return widgets.Dropdown(
        options=[(str(one), one) for one in options],
        description=name,
        layout=widgets.Layout(width="19rem"),
        style={"description_width": "6.5rem"},
    )
