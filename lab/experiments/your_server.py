"""How many workers does my server need, and what limits it? Any command, with each number of workers."""

import math
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.checks import Seconds
from lab.figures import (
    GRID,
    HALO,
    IDEAL,
    INK,
    QUIET,
    SERVERS,
    SLO,
    SMALL,
    beside,
    canvas,
    reference_line,
)
from lab.hotloop import SLEEP_STEP_S
from lab.models.sizing import Limit, Sized
from lab.study.advice import memory
from lab.study.parameters import ListOf, RunToAddTo, WorkerCount
from lab.study.parameters import Parameters as _Parameters
from lab.study.run import Run
from lab.study.size import Size, size
from lab.study.size_plan import Plan
from lab.study.sustained import Precision
from lab.units import bounds, counted, per_second, percent, seconds

EXPERIMENT = "your-server"

_LIMITS = {
    Limit.CPU: "CPU time",
    Limit.GENERATOR: "the load generator",
    Limit.UNEVEN: "an uneven share",
    Limit.LOCK: "something that all wait for",
}
"""In a title; the other names are words."""

_LOOP_S = 0.02
"""What a request of the server that stands in for the reader's takes, on a usual CPU."""


class Parameters(_Parameters):
    """What notebook 10 lets its reader set; without a command or a URL, a server of ours is measured."""

    run: RunToAddTo
    command: str
    url: str
    folder: str
    path: str
    ready_path: str
    workers: ListOf[WorkerCount]
    slo: ListOf[str]
    duration_s: Seconds
    precision: Precision
    start_timeout_s: Seconds
    request: dict[str, Any]


def plan(p: Parameters) -> Plan:
    """Return what is to be measured. Raises UsageError for what makes no sense."""
    words = tuple(shlex.split(p.command)) if p.command or p.url else _ours()
    given = p.model_dump(exclude={"run", "command", "slo"})
    return Plan(command=words, slo=p.slo or Plan.slo, **given)


def as_parameters(plan: Plan) -> dict[str, Any]:
    """Return the parameters with which the notebook finds what was measured for this plan."""
    return {
        "command": shlex.join(plan.command),
        "url": plan.url,
        "folder": plan.folder,
        "path": plan.path,
        "ready_path": plan.ready_path,
        "workers": list(plan.workers),
        "slo": list(plan.slo),
        "duration_s": plan.duration_s,
        "precision": plan.precision,
        "start_timeout_s": plan.start_timeout_s,
        "request": plan.shown(),
    }


def measure(run: Run, plan: Plan) -> Size:
    """Measure what is not yet in the run; return what all of it says."""
    return size(plan, run)


def table(found: Size) -> pd.DataFrame:
    """Tabulate what was measured, a row per number of workers; columns without any value are left out."""
    rows = pd.DataFrame([_shown(row) for row in found.rows])
    return rows.loc[:, (rows != "").any()].replace("", "–")


def _shown(row: Sized) -> dict[str, str]:
    return {
        "workers": "" if row.workers is None else str(row.workers),
        "sustained": bounds(row.lower_rps, row.upper_rps, per_second),
        "alone": _time(row.alone_s),
        "p50 at half": _time(row.p50_s_at_half),
        "p99 at half": _time(row.p99_s_at_half),
        "p50 at .8": _time(row.p50_s_at_80),
        "p99 at .8": _time(row.p99_s_at_80),
        "CPU per request": _time(row.cpu_s_per_request),
        "memory per worker": "" if row.pss_bytes_per_worker is None else memory(row.pss_bytes_per_worker),
        "busiest worker": "" if row.busiest_share is None else percent(row.busiest_share),
        "others' CPU": "" if row.others_cpu is None else percent(row.others_cpu),
    }


def notes(found: Size) -> list[str]:
    """Say what the table leaves open: why a bound is missing, and where random arrivals miss the SLO."""
    said = []
    limits = {slo.name: slo.limit for slo in found.slos}
    for row in found.rows:
        who = "running" if row.workers is None else str(row.workers)
        said += [f"{who}: {row.reason}"] if row.reason else []
        for name, value_s in (("p50", row.p50_s_at_80), ("p99", row.p99_s_at_80)):
            if value_s is not None and value_s > limits.get(name, math.inf):
                said.append(
                    f"{who}: at .8 of the rate with random arrivals, {name} is {seconds(value_s)}, more than "
                    "the SLO allows: leave more room"
                )
    return said


def left_open(found: Size) -> str:
    """Return the notes in Markdown."""
    lines = [f"- {note}." for note in notes(found)]
    return "\n".join(lines) or "No bound is missing, and at .8 of a rate random arrivals miss no SLO."


def _time(value_s: float | None) -> str:
    return "" if value_s is None else seconds(value_s)


def figure(found: Size) -> Figure | None:
    """Draw sustained rate, latency and who used the CPUs against workers; nothing of a running server."""
    rows = [row for row in found.rows if row.workers is not None]
    if not rows:
        return None
    workers = [row.workers or 0 for row in rows]
    with canvas(_title(found), rows=3, height=6.6, height_ratios=(1.3, 1.2, 1)) as (
        figure,
        (rate, tail, use),
    ):
        ideal = _draw_rates(rate, rows, found.verdict.workers)
        ends = [
            *_line(tail, workers, [row.p99_s_at_80 for row in rows], "p99"),
            *_line(tail, workers, [row.p50_s_at_80 for row in rows], "p50", hollow=True),
            *_line(tail, workers, [row.alone_s for row in rows], "one at a time", quiet=True),
        ]
        tail.set_ylim(0, 1.2 * tail.get_ylim()[1])
        for slo in found.slos:
            if slo.name == "p99" and 1000 * slo.limit < 2 * tail.get_ylim()[1]:  # else it is far above all
                reference_line(tail, y=1000 * slo.limit, text=f"SLO, {slo.name}", left=True, **SLO)
        tail.set_title("Latency at .8 of it")
        tail.set_ylabel("ms")
        _draw_use(use, rows, found.cpus)
        for axes in (rate, tail):
            axes.set_xticks(_apart(workers))
            axes.set_xlim(0, max(workers) * 1.02)
            axes.set_ylim(bottom=0)
        use.set_xlabel("workers")
        beside(rate, ideal)
        beside(tail, ends)
    return figure


def _apart(workers: Sequence[int]) -> list[int]:
    """Return the numbers to label: of those too close to be read side by side, the larger."""
    return [n for n, after in zip(workers, [*workers[1:], 2 * workers[-1]], strict=True) if after > 1.08 * n]


def _title(found: Size) -> str:
    taken = found.verdict
    if taken.workers is None:
        return "No number of workers can be recommended"
    return f"Take {counted(taken.workers, 'worker')}; what limits it: {_LIMITS.get(taken.limit, taken.limit)}"


_Label = tuple[float, float, str, str]
"""Where a line ends, its name and its colour."""


def _draw_rates(axes: Axes, rows: Sequence[Sized], taken: int | None) -> list[_Label]:
    """Draw the bounds of each rate, and as many times one worker's; return the label of that line."""
    look, ideal = SERVERS["round-robin"], list[_Label]()
    known = [row for row in rows if row.lower_rps]
    middles = [((row.lower_rps or 0.0) + (row.upper_rps or row.lower_rps or 0.0)) / 2 for row in known]
    off = [middle - (row.lower_rps or 0.0) for middle, row in zip(middles, known, strict=True)]
    axes.errorbar(
        [row.workers or 0 for row in known], middles, yerr=off, marker=look.marker, color=look.color,
        capsize=4, elinewidth=1.2,
    )  # fmt: skip
    for middle, row in zip(middles, known, strict=True):
        if taken and row.workers == taken:
            axes.plot(
                taken, middle, "o", markersize=14, markeredgewidth=2, color=INK, fillstyle="none", zorder=4,
                clip_on=False,
            )  # fmt: skip
            axes.annotate(
                "recommended", (taken, middle), xytext=(9, -9), textcoords="offset points", va="top",
                fontsize=SMALL, fontweight="bold", bbox=HALO,
            )  # fmt: skip
    if len(known) > 1:
        each = middles[0] / (known[0].workers or 1)
        last = rows[-1].workers or 1
        top = 1.15 * max(middles)
        end = min(last, top / each), min(each * last, top)
        axes.plot([0, end[0]], [0, end[1]], **IDEAL)
        ideal = [(*end, "ideal", QUIET)]
    axes.set_title("Sustained rate")
    axes.set_ylabel("requests/s")
    return ideal


def _draw_use(axes: Axes, rows: Sequence[Sized], cpus: float) -> None:
    """Stack what the server, the load generator and others used of all CPU time at each sustained rate."""
    share = [100 * (row.lower_rps or 0.0) / cpus for row in rows]
    used = {
        "server": [each * (row.cpu_s_per_request or 0.0) for each, row in zip(share, rows, strict=True)],
        "load generator": [
            each * (row.generator_cpu_s_per_request or 0.0) for each, row in zip(share, rows, strict=True)
        ],
        "others": [100 * (row.others_cpu or 0.0) for row in rows],  # when they used more: see `Sized`
    }
    below = [0.0] * len(rows)
    for (label, shares), color in zip(
        used.items(), (SERVERS["round-robin"].color, "#8a97a3", GRID), strict=True
    ):
        values = [min(value, max(0.0, 100 - low)) for value, low in zip(shares, below, strict=True)]
        axes.bar(range(len(rows)), values, 0.7, below, color=color, edgecolor=INK, linewidth=0.5, label=label)
        below = [low + value for low, value in zip(below, values, strict=True)]
    axes.set_xticks(range(len(rows)), [str(row.workers) for row in rows])
    axes.set_ylim(0, 150)
    axes.set_yticks(range(0, 101, 50))
    axes.legend(loc="upper left", ncols=3, columnspacing=1)
    axes.set_title("Who uses the CPUs then")
    axes.set_ylabel("% of CPU time")


def _line(
    axes: Axes,
    workers: Sequence[int],
    values_s: Sequence[float | None],
    label: str,
    *,
    hollow: bool = False,
    quiet: bool = False,
) -> list[_Label]:
    """Draw what is known of a series; return the label of its end."""
    points = [(n, 1000 * value) for n, value in zip(workers, values_s, strict=True) if value is not None]
    if not points:
        return []
    look = SERVERS["round-robin"]
    color = QUIET if quiet else look.color
    axes.plot(
        *zip(*points, strict=True), linestyle=":" if hollow or quiet else "-", color=color,
        marker="." if quiet else look.marker, markerfacecolor="white" if hollow else color, label=label,
    )  # fmt: skip
    return [(*points[-1], label, color)]


def answer(found: Size) -> str:
    """Return the answer in Markdown: the two sentences."""
    return f"**Answer.** {found.why}"


def _ours() -> tuple[str, ...]:
    """Return the command of a server of ours that any machine has: it computes."""
    own = f"{sys.executable} -m lab serve --topology cluster"
    told = "--workers {workers} --host {host} --port {port}"
    return (*shlex.split(f"{own} {told}"), "--iterations", str(round(_LOOP_S / SLEEP_STEP_S)))
