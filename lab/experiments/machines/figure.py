"""The figures of several runs: their curves, and the differences between them."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab import units
from lab.experiments.machines.beside import Beside, Shown, named
from lab.figures import (
    BAD,
    HALO,
    IDEAL,
    QUIET,
    SMALL,
    Look,
    canvas,
    cross_flagged,
    plain_log_ticks,
    reference_line,
)
from lab.study.compare import Difference

_MOST_DRAWN = 16
_LINE = 57
"""So many letters of a number's name stand in a line."""
_WIDE = 20
"""From one end of an axis to the other, times: there, ticks at 1, 2 and 5 would run into each other."""


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
    shares.annotate(
        "ideal", (0.6, 1), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
        ha="center", fontsize=SMALL, color=IDEAL["color"], bbox=HALO,
    )  # fmt: skip
    for axes in (latency, services):
        if axes.lines:
            axes.set_yscale("log")
            plain_log_ticks(axes.yaxis)
    services.set_ylim(top=2.5 * services.get_ylim()[1])  # room for the name of the line
    reference_line(services, x=1, text="all workers busy")
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
    sizes = [sum(map(_lines, _names(rows))) for _, rows in groups]
    height = 0.8 + 0.155 * sum(sizes) + 0.4 * len(sizes)
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


def _names(rows: Sequence[Difference]) -> list[str]:
    """Name each number in short lines; and its run, too, if they are of several."""
    many = len({one.run for one in rows}) > 1
    whole = [(f"{one.run}: " if many else "") + named(one, "\n") for one in rows]
    return ["\n".join(textwrap.fill(part, _LINE) for part in name.splitlines()) for name in whole]


def _lines(name: str) -> float:
    """Return the height of a row: the lines of its name, and what keeps it apart from the next."""
    return name.count("\n") + 1.6


def _draw_differences(axes: Axes, title: str, rows: Sequence[Difference]) -> None:
    names = _names(rows)
    heights = np.array(list(map(_lines, names)))
    middles = np.cumsum(heights) - heights / 2
    for told, look, label in ((True, Look(BAD, "s"), "told"), (False, Look(QUIET, "o"), "not told")):
        mine = [(one, at) for one, at in zip(rows, middles, strict=True) if one.told is told]
        if not mine:
            continue
        down = [one.ratio - (one.low or one.ratio) for one, _ in mine]
        up = [(one.high or one.ratio) - one.ratio for one, _ in mine]
        axes.errorbar(
            [one.ratio for one, _ in mine], [at for _, at in mine], xerr=[down, up], color=look.color,
            marker=look.marker, linestyle="none", markersize=4, elinewidth=1.2, label=label,
        )  # fmt: skip
    axes.set_yticks(middles, names, fontsize=8.5)
    axes.set_ylim(heights.sum(), 0)
    axes.set_xscale("log")
    axes.axvline(1, **IDEAL)
    axes.set_title(title, x=1, ha="right")  # the panel is narrow, its labels are wide
    axes.grid(visible=False, axis="y")
