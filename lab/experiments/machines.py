"""Runs beside each other: their machines, their software, their curves, and which differences are told."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import Field

from lab import files, units
from lab.errors import LabError, one_line
from lab.experiments import rate_sweep, summary
from lab.experiments.worker_scaling import scaling
from lab.figures import (
    BAD,
    DARK_TO_LIGHT,
    IDEAL,
    QUIET,
    Look,
    canvas,
    cross_flagged,
    plain_log_ticks,
    reference_line,
)
from lab.models.scaling import Point
from lab.models.statistics import CONFIDENCE
from lab.study.compare import Comparison, Difference, check_alike, compare, software
from lab.study.estimates import anchored, factors_in_words, written
from lab.study.manifest import Manifest
from lab.study.parameters import ListOf
from lab.study.parameters import Parameters as _Parameters
from lab.study.run import Run
from lab.study.runs import run_in

_MOST_OTHERS = len(DARK_TO_LIGHT) - 1
_MOST_DRAWN = 16
_WIDE = 20
"""From one end of an axis to the other, times: there, ticks at 1, 2 and 5 would run into each other."""


class Parameters(_Parameters):
    """What notebook 11 lets its reader set: `run` is put beside `runs`, of which the first is the base."""

    run: str
    runs: Annotated[ListOf[str], Field(max_length=_MOST_OTHERS)]


@dataclass(frozen=True)
class Shown:
    """One of the runs, under the name by which it is told from the others, and the look of its curves."""

    name: str
    run: Run
    look: Look

    @cached_property
    def manifest(self) -> Manifest:
        """Where and with what it was measured."""
        return self.run.manifest

    @property
    def cpus(self) -> int:
        """The CPUs that count on its machine."""
        return self.manifest.machine.available_cpus

    @cached_property
    def points(self) -> list[Point]:
        """The points of its scaling curve; none if it was not measured."""
        trials = self.run.trials(scaling.EXPERIMENT)
        return scaling.points(scaling.accounted(self.run, trials)) if len(trials) else []

    @cached_property
    def sweep(self) -> pd.DataFrame:
        """The trials of its rate sweep with the most workers; none if it was not measured."""
        trials = self.run.trials(rate_sweep.EXPERIMENT)
        return trials.query("workers == workers.max()")


@dataclass(frozen=True)
class Beside:
    """Runs, and what their comparison found; None where they cannot be compared, and `refused` says why."""

    shown: tuple[Shown, ...]
    found: Comparison | None
    refused: str

    @property
    def differences(self) -> list[Difference]:
        """The numbers that all the runs state with an interval, as ratios to the first run."""
        return [one for one in self.found.differences if one.told is not None] if self.found else []

    def key(self, one: Difference) -> str:
        """Return the key of a number's estimate if it is of the run whose page this is: the last."""
        return one.key if one.run == self.shown[-1].name else ""


def opened(p: Parameters) -> tuple[Shown, ...]:
    """Open the runs to compare, the base first. Without names it is the reference, where there is one.

    A name with a slash is the path of a run's folder. Raises LabError for one that is not there.
    """
    own = _opened(p.run)
    others = [_opened(name) for name in p.runs] or [_reference() or own]
    looks = cycle(DARK_TO_LIGHT)
    shown: list[Shown] = []
    labels = Counter(run.manifest.machine.label for run in (*others, own))
    for run in (*others, own):
        same = sum(run.run_id == earlier.run.run_id for earlier in shown)
        name = f"{run.run_id} ({same + 1})" if same else run.run_id
        if labels[label := run.manifest.machine.label] == 1:
            name = label or name
        shown.append(Shown(name, run, next(looks)))
    return tuple(shown)


def _opened(name: str) -> Run:
    return run_in(Path(name)) if "/" in name else summary.open_for_reading(name)


def _reference() -> Run | None:
    """Return the reference run: this home's, else that of the checkout; None if neither has one."""
    places = [files.data() / files.REFERENCE, files.reference()]
    return next((run_in(place) for place in places if place and place.is_dir()), None)


def beside(shown: Sequence[Shown]) -> Beside:
    """Compare runs with the first of them; not those of different plans, nor those that share nothing."""
    try:
        check_alike([one.manifest for one in shown])
        runs = {one.run.path: one.run for one in shown}
        stated = {path: summary.estimates(run) for path, run in runs.items()}
        found = compare([(one.name, stated[one.run.path]) for one in shown])
    except LabError as error:
        return Beside(tuple(shown), None, one_line(error))
    return Beside(tuple(shown), found, "")


def machines_table(shown: Sequence[Shown]) -> pd.DataFrame:
    """Put the machines in words, a column each."""
    facts = [summary.machine_table(one.manifest.machine).set_index("") for one in shown]
    table = pd.concat(facts, axis=1).set_axis([one.name for one in shown], axis=1)
    if "name" in table.index:  # of some machine
        table = table.reindex(["name", *table.index.drop("name")]).fillna("")
    table.loc["run"] = [one.run.run_id for one in shown]
    table.loc["begun"] = [f"{one.manifest.started_at:%Y-%m-%d %H:%M} UTC" for one in shown]
    table.loc["profile"] = [one.manifest.profile or "by hand" for one in shown]
    return table.rename_axis("").reset_index()


def software_table(shown: Sequence[Shown]) -> pd.DataFrame:
    """List the software whose version differs, a column for each run."""
    rows = software([one.manifest for one in shown])
    if not rows:
        return pd.DataFrame({"": ["No version differs."]})
    names = ["", *(one.name for one in shown)]
    cells = [[row["name"], *(version or "none" for version in row["versions"])] for row in rows]
    return pd.DataFrame(cells, columns=names)


def differences_table(compared: Beside) -> pd.DataFrame:
    """Put every difference in words: the ratio to the base, its interval, and what that tells."""
    if compared.found is None:
        return pd.DataFrame({"": [f"Not compared: {compared.refused}."]})
    several = len(compared.shown) > 2
    return pd.DataFrame(
        ({"run": one.run} if several else {})
        | {
            "experiment": one.experiment,
            "quantity": f"{one.quantity}, {one.unit}" if one.unit else one.quantity,
            "of": factors_in_words(one.factors),
            f"in {one.base}": written(one.base_value, one.unit),
            "in the run": units.Number(written(one.value, one.unit), key=compared.key(one)),
            f"ratio to {one.base}": _ratio(one),
            "": one.in_words,
        }
        for one in compared.found.differences
    )


def _named(one: Difference, space: str = " ") -> str:
    of = factors_in_words(one.factors)
    return f"{one.quantity}{space}({of})" if of else one.quantity


def _ratio(one: Difference) -> units.Number:
    """Return a ratio with its interval, as the place to which the answer leads."""
    low, high = (None if end is None else units.plain(end) for end in (one.low, one.high))
    return replace(units.plain(one.ratio), low=low, high=high, anchor=one.ratio_key)


def left_out(compared: Beside) -> str:
    """Say which numbers were not compared, a sentence per run."""
    if compared.found is None:
        return f"Not compared: {compared.refused}."
    lines = [f"- Not compared, {line}." for line in compared.found.left_out]
    return "\n".join(lines) or "Every number that the runs state is compared."


def answer(compared: Beside) -> str:
    """Say how many differences are told, the largest one, or how small one would have been seen."""
    base, *others = (one.name for one in compared.shown)
    names = f"{', '.join(others)} beside {base}"
    if compared.found is None:
        return f"**Answer.** No comparison: {compared.refused}. Machines and curves are shown all the same."
    alone = len({one.run.path for one in compared.shown}) == 1
    said = f"There is only one run to compare, beside itself ({names})" if alone else names
    start = f"**Answer.** {said}: "
    known = compared.differences
    if not known:
        return f"{start}nothing can be told, as the runs share no number that has an interval in both."
    told = [one for one in known if one.told]
    count = units.counted(len(known), "number")
    seen = sorted(known, key=lambda one: one.smallest_told or 0.0)
    least, middle = (units.percent(one.smallest_told or 0.0) for one in (seen[0], seen[len(seen) // 2]))
    if not told:
        return (
            f"{start}no difference in {count} that this could have seen. Half of them would have shown a"
            f" difference of {middle} or less; the most precise one, of {anchored(least, seen[0].ratio_key)}."
        )
    most = max(told, key=lambda one: abs(math.log(one.ratio)))
    ratio = anchored(units.digits(most.ratio), most.ratio_key)
    return (
        f"{start}**{units.counted(len(told), 'difference')} told in {count}**, with"
        f" {units.percent(CONFIDENCE)} confidence for all together. The largest: {_named(most)} is {ratio}"
        f" times as large in {most.run} ({units.digits(most.low or 0)} to {units.digits(most.high or 0)})."
        f" {_speed(told, known)}"
    )


def _speed(told: Sequence[Difference], known: Sequence[Difference]) -> str:
    """Say how many of the differences no machine's speed is in; nothing if there are no such numbers."""
    apart, all_apart = (sum(not one.unit for one in some) for some in (told, known))
    if not all_apart:
        return ""
    numbers = units.counted(all_apart, "number")
    are = "is" if apart == 1 else "are"
    return (
        f"Of these, {apart or 'none'} {are} among the {numbers} without a unit, free of any machine's speed."
    )


def curves_figure(shown: Sequence[Shown]) -> Figure | None:
    """Draw each run's scaling and its rate sweep: as measured, and as shares of what is ideal there."""
    if not any(one.points or len(one.sweep) for one in shown):
        return None
    names = ", ".join(one.name for one in shown)
    with canvas(_curves_title(shown, names), rows=2, columns=2, height=5.2) as (figure, panels):
        for one in shown:
            _draw_scaling(panels[0], panels[1], one)
            _draw_sweep(panels[2], panels[3], one)
        _finish(figure, panels)
    return figure


def _curves_title(shown: Sequence[Shown], names: str) -> str:
    """Say how far clustering goes in each run."""
    gains = [
        f"{one.name} {units.digits(most.speedup.value)} times with {units.counted(most.workers, 'worker')}"
        for one in shown
        if len(one.points) > 1
        for most in [max(one.points, key=lambda point: point.speedup.value)]
    ]
    return f"Speed-up: {', '.join(gains)}" if gains else f"{names}: scaling and latency"


def _draw_scaling(absolute: Axes, normalised: Axes, one: Shown) -> None:
    if not one.points:
        return
    workers = [point.workers for point in one.points]
    ideal = [min(count, one.cpus) for count in workers]
    rates = [(found.value, found.low, found.high) for found in (point.throughput_rps for point in one.points)]
    gains = [(found.value, found.low, found.high) for found in (point.speedup for point in one.points)]
    shares = [tuple(end / most for end in gain) for gain, most in zip(gains, ideal, strict=True)]
    for axes, values in ((absolute, rates), (normalised, shares)):
        middle, low, high = zip(*values, strict=True)
        down = [value - least for value, least in zip(middle, low, strict=True)]
        up = [most - value for value, most in zip(middle, high, strict=True)]
        axes.errorbar(
            workers, middle, yerr=[down, up], color=one.look.color, marker=one.look.marker,
            linestyle=one.look.line, capsize=4, elinewidth=1.2, label=one.name,
        )  # fmt: skip


def _draw_sweep(absolute: Axes, normalised: Axes, one: Shown) -> None:
    if one.sweep.empty:
        return
    found = one.sweep.assign(in_services=one.sweep["latency_p95_s"] / one.sweep["service_mean_s"])
    for axes, x, y in ((absolute, "rate", "latency_p95_s"), (normalised, "utilisation", "in_services")):
        look: dict[str, Any] = {"marker": one.look.marker, "color": one.look.color, "markersize": 4.5}
        axes.plot(found[x], found[y], linestyle="none", alpha=0.6, label=one.name, **look)
        cross_flagged(axes, found, x, y)


def _finish(figure: Figure, panels: Sequence[Axes]) -> None:
    rates, shares, latency, services = panels
    titles = "Scaling, as measured", "... over the ideal", "Latency, as measured", "... in service times"
    labels = (
        ("workers", "requests/s"),
        ("workers", "share of the ideal"),
        ("offered rate, requests/s", "p95, s"),
        ("utilisation", "p95 / service time"),
    )
    for axes, title, (across, up) in zip(panels, titles, labels, strict=True):
        axes.set_title(title)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
    for axes in (rates, shares):
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    shares.axhline(1, **IDEAL)
    reference_line(shares, y=1, text="ideal", linewidth=0)
    reference_line(services, x=1, text="all workers busy")
    for axes in (latency, services):
        if axes.lines:
            axes.set_yscale("log")
            plain_log_ticks(axes.yaxis)
    known = {
        label: handle
        for axes in reversed(panels)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(known.values()), list(known), loc="outside lower left", ncols=2)


def differences_figure(compared: Beside) -> Figure | None:
    """Draw each difference with its interval: rates and times above, shares and ratios below.

    Of more than can be read, it draws those that are told, and then the most precise ones.
    """
    known = compared.differences
    chosen = sorted(known, key=lambda one: (not one.told, one.smallest_told or 0.0))[:_MOST_DRAWN]
    drawn = [one for one in known if one in chosen]
    groups = [(title, rows) for title, rows in _grouped(drawn) if rows]
    if not groups:
        return None
    told = sum(one.told is True for one in known)
    count = "1 difference" if told == 1 else f"{told or 'No'} differences"
    title = f"{count} told in {units.counted(len(known), 'number')}"
    if told:
        most = max((one for one in known if one.told), key=lambda one: abs(math.log(one.ratio)))
        title += f"; the largest: {units.digits(most.ratio)} times the {most.quantity}"
    sizes = [len(rows) for _, rows in groups]
    height = 0.8 + 0.36 * sum(sizes) + 0.4 * len(sizes)
    grid: dict[str, Any] = {"sharex": True, "height_ratios": sizes}
    with canvas(title, rows=len(groups), height=height, **grid) as (figure, panels):
        for axes, (title, rows) in zip(panels, groups, strict=True):
            _draw_differences(axes, title, rows)
        low, high = panels[-1].get_xlim()  # which they share
        plain_log_ticks(panels[-1].xaxis, most=5 if high / low > _WIDE else None)
        panels[-1].set_xlabel(f"ratio to {drawn[0].base}")
    return figure


def _grouped(rows: Sequence[Difference]) -> Iterator[tuple[str, list[Difference]]]:
    yield "Rates and times", [one for one in rows if one.unit]
    yield "Shares and ratios", [one for one in rows if not one.unit]


def _draw_differences(axes: Axes, title: str, rows: Sequence[Difference]) -> None:
    for told, look, label in ((True, Look(BAD, "s"), "told"), (False, Look(QUIET, "o"), "not told")):
        places = [place for place, one in enumerate(rows) if one.told is told]
        if not places:
            continue
        ratios = [rows[place].ratio for place in places]
        down = [ratio - (rows[place].low or ratio) for place, ratio in zip(places, ratios, strict=True)]
        up = [(rows[place].high or ratio) - ratio for place, ratio in zip(places, ratios, strict=True)]
        axes.errorbar(
            ratios, places, xerr=[down, up], color=look.color, marker=look.marker, linestyle="none",
            markersize=4, elinewidth=1.2, label=label,
        )  # fmt: skip
    many = len({one.run for one in rows}) > 1
    names = [(f"{one.run}: " if many else "") + _named(one, "\n") for one in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.axvline(1, **IDEAL)
    axes.set_title(title, x=1, ha="right")  # the panel is narrow, its labels are wide
    axes.grid(visible=False, axis="y")
