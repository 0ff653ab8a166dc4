"""The control: workers that sleep as long as a loop takes, so that nothing but the harness is at work.

A few CPUs carry many such workers. The share of time that they are kept asleep says whether the supervisor
and the generators of this machine can feed so many workers at all, with loops of that length.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lab import units
from lab.cpus import available_cpus
from lab.figures import DARK_TO_LIGHT, IDEAL, beside, canvas, reference_line
from lab.flags import Flag, in_words
from lab.hotloop import SLEEP_STEP_S
from lab.models.statistics import Estimate, Interval
from lab.study.estimates import linked
from lab.study.plan import Condition
from lab.study.run import Run, table_name
from lab.study.trial import fresh_server, offer

if TYPE_CHECKING:
    from lab.servers import Server


OVERLOAD = 1.2
"""The loops that are offered, as a multiple of those that the workers have time for."""

HELD = 0.9
"""The share of time that workers must be kept busy: what the harness takes from them is then less than
differences that the study tells apart."""

SURELY = 0.95
"""The share at which a loop shorter than 7^6 is chosen: on the verge of `HELD`, two runs of one machine would
choose different loops, and could not be compared."""

STEP = 7**5
"""Loops are multiples of so many iterations: one server runs any of them, by `?times=`."""

LADDER = tuple(times * STEP for times in (1, 3, 7, 20, 49))
"""The loops to choose from, up to the article's 7^7; beyond that, a trial holds too few requests."""

FIRST = 7 * STEP
"""The loop of 7^6 is tried first: the likely answer on a small machine."""

LEAST_RPS = 100.0
"""Longer loops leave a trial of a second or two too few requests to count. A small machine that cannot feed
even these is disturbed, not outgrown."""

_TRIES = 2
_START_S = 120.0
_LEAST_S = 0.6
_LASTS_LOOPS = 10.0
_SETTLED_LOOPS = 2.0
"""So many loops after the start, every worker has had its first."""


@dataclass(frozen=True)
class Fed:
    """What one control showed: workers that slept for `loop_s` at a time, in place of so many iterations.

    `share` is the share of time that they were kept asleep; `throughput_rps` is what that amounts to.
    """

    workers: int
    iterations: int
    loop_s: float
    rate_rps: float
    throughput_rps: float
    share: float
    generators: int
    flags: tuple[Flag, ...]

    @property
    def held(self) -> bool:
        """Whether the harness can feed so many workers, and its generators can be believed meanwhile."""
        return self.share >= HELD and not self.flags


Feed = Callable[[int], Fed]
"""Offers loops of so many iterations to workers that are already running."""


@contextmanager
def sleepers(workers: int, step_s: float) -> Iterator[Feed]:
    """Start workers that sleep, and yield how to feed them; `step_s` is what `STEP` iterations take here."""
    first = planned(workers, step_s, STEP)
    with fresh_server(first, drain_s=0, unlimited=True, start_timeout_s=_START_S) as server:
        yield lambda iterations: _feed(server, planned(workers, step_s, iterations), step_s, iterations)


def planned(workers: int, step_s: float, iterations: int) -> Condition:
    """Return the load of a control; `step_s` is what `STEP` iterations take."""
    times = max(1, round(iterations / STEP))
    return Condition(
        rate=OVERLOAD * workers / (times * step_s),
        duration_s=max(_LEAST_S, _LASTS_LOOPS * times * step_s),
        topology="cluster",
        workers=workers,
        kernel="sleep",
        iterations=max(1, round(step_s / SLEEP_STEP_S)),
        path=f"/api/slow?times={times}",
    )


def _feed(server: "Server", condition: Condition, step_s: float, iterations: int) -> Fed:
    offered = offer(server, condition, seed=0)
    loop_s = step_s * iterations / STEP
    share = busy_share(offered.requests, condition.workers, _SETTLED_LOOPS * loop_s, condition.duration_s)
    summary = offered.summary
    slept_s = summary["service_s"]["mean"] or loop_s
    return Fed(
        workers=condition.workers,
        iterations=iterations,
        loop_s=loop_s,
        rate_rps=condition.offered_rps,
        throughput_rps=share * condition.workers / slept_s,
        share=share,
        generators=int(summary["generator"]["processes"]),
        flags=tuple(map(Flag.from_dict, summary["flags"])),
    )


def busy_share(requests: pd.DataFrame, workers: int, from_s: float, to_s: float) -> float:
    """Return the share of the time between two moments that workers spent on the loops they reported."""
    end_s = requests["end_s"].to_numpy(np.float64)
    begin_s = end_s - requests["service_s"].to_numpy(np.float64)
    busy_s = np.minimum(end_s, to_s) - np.maximum(begin_s, from_s)
    return float(np.nansum(np.maximum(busy_s, 0.0))) / (workers * (to_s - from_s))


def ladder(step_s: float) -> list[int]:
    """Return the loops to choose from: those of which the CPUs do `LEAST_RPS`; 7^6 in any case."""
    longest_s = available_cpus() / LEAST_RPS
    return [loop for loop in LADDER if loop <= FIRST or loop / STEP * step_s <= longest_s]


def shortest_loop(feed: Feed, loops: Sequence[int] = LADDER) -> list[Fed]:
    """Find the shortest of these loops that is held: every control that led there, the answer last.

    Begins with 7^6 and goes down while that surely holds, or up until it does. If none holds, the longest is
    last.
    """
    place = loops.index(FIRST)
    seen, found = _tried(feed, loops[place])
    step = -1 if found.held else 1
    while 0 <= (place := place + step) < len(loops):
        more, this = _tried(feed, loops[place])
        seen += more
        if step < 0 and not (this.held and this.share >= SURELY):
            break
        found = this
        if step > 0 and this.held:
            break
    return [*(fed for fed in seen if fed is not found), found]


def _tried(feed: Feed, iterations: int) -> tuple[list[Fed], Fed]:
    """Feed these loops until they hold, twice at most: one disturbance says nothing about the harness."""
    seen: list[Fed] = []
    while len(seen) < _TRIES and not (seen and seen[-1].held):
        seen.append(feed(iterations))
    return seen, seen[-1]


def step_s(run: Run) -> float:
    """Return what `STEP` iterations of plain Python take on a CPU of their own, as the run has timed it."""
    return run.loop_cpu_s("python", FIRST) * STEP / FIRST


TABLE = "auto-iterations"


def auto(run: Run) -> pd.DataFrame:
    """Return the controls that set the length of this run's loops, a row each, the deciding one last.

    They have two workers for each CPU, which sleep; the study computes, and so answers at most half as much.
    A loop at which these are kept busy is one for which the study's highest rate is below half of what
    supervisor and generators can do here. Measured once per run: every notebook gets the same loops.
    """
    return run.table(TABLE, lambda: _auto(step_s(run)))


def _auto(step_s: float) -> pd.DataFrame:
    with sleepers(2 * available_cpus(), step_s) as feed:
        return frame(shortest_loop(feed, ladder(step_s)))


def frame(controls: list[Fed]) -> pd.DataFrame:
    """Return a row per control, with the fields of `Fed`, and `held`."""
    return pd.DataFrame([vars(fed) | {"held": fed.held} for fed in controls])


def iterations(run: Run, kernel: str = "python") -> int:
    """Return what "auto" means in this run: a loop of that kernel that lasts as long as the chosen one."""
    chosen = int(auto(run)["iterations"].iloc[-1])
    if kernel in ("python", "sleep"):
        return chosen
    return max(1, round(chosen * run.loop_cpu_s("python") / run.loop_cpu_s(kernel)))


def in_steps(loops: tuple[int, ...]) -> tuple[int, ...]:
    """Return loops that the control can offer. Raises ValueError for others."""
    if any(iterations % STEP or not 0 < iterations <= 7 * 7**7 for iterations in loops):
        raise ValueError(f"must be multiples of {STEP} (7^5), up to {7 * 7**7} (7^8)")
    return loops


def numbers(workers: Sequence[int]) -> list[int]:
    """Return these numbers of workers, and those that the study needs: one and two for each CPU."""
    return sorted({available_cpus(), 2 * available_cpus(), *workers})


def measure(run: Run, workers: Sequence[int], loops: Sequence[int]) -> pd.DataFrame:
    """Overload sleeping workers, a fresh server for each of their `numbers`, with each loop.

    A row per number and loop, with the fields of `Fed`, and `held`: whether that many were fed, by `alike`.
    """
    settings = numbers(workers), sorted(loops)
    name = table_name("control", *settings)
    return alike(run.table(name, lambda: frame(list(_measure(*settings, step_s(run))))))


def alike(fed: pd.DataFrame) -> pd.DataFrame:
    """Say which numbers of workers were kept `HELD` times as busy as the fewest, by generators to believe.

    What the fewest lack is what a worker spends on a request beside its loop, and no fault of the harness.
    """
    ordered = fed.sort_values("workers")
    fewest = ordered.groupby("iterations")["share"].transform("first").reindex(fed.index)
    return fed.assign(held=(fed["share"] >= HELD * fewest) & (fed["flags"].map(len) == 0))


def _measure(workers: Sequence[int], loops: Sequence[int], step_s: float) -> Iterator[Fed]:
    for count in workers:
        with sleepers(count, step_s) as feed:
            yield from map(feed, loops)


def table(fed: pd.DataFrame) -> pd.DataFrame:
    """Put controls in words, a row each."""
    return pd.DataFrame(
        {
            "iterations": fed["iterations"].map("{:,}".format),
            "loop": fed["loop_s"].map(units.in_seconds),
            "sleeping workers": fed["workers"],
            "offered rate": fed["rate_rps"].map(units.in_requests),
            "answered while all could be busy": fed["throughput_rps"].map(units.in_requests),
            "share of the own limit": fed["share"].map(units.in_percent),
            "generators": fed["generators"],
            "fed": fed["held"].map({True: "yes", False: "no"}),
            "flagged because": fed["flags"].map(in_words),
        }
    )


def most_fed(fed: pd.DataFrame, iterations: int) -> int:
    """Return the most workers that were fed with this loop, as were all fewer of them; 0 if none."""
    mine = fed[fed["iterations"] == iterations].sort_values("workers")
    return int(mine.loc[mine["held"].cummin(), "workers"].max()) if mine["held"].iloc[0] else 0


FEEDS = "kept busy with sleeping"


def feeds(fed: pd.DataFrame) -> dict[int, Estimate]:
    """Return the most workers that were fed with each loop, and the next number that was not.

    The value is nan if none was fed, the upper bound if all were.
    """
    found = {}
    for loop, mine in fed.groupby("iterations"):
        most = most_fed(fed, iterations := int(str(loop)))
        value, above = most or math.nan, float(mine.loc[mine["workers"] > most, "workers"].min())
        found[iterations] = Estimate(value, value, above, len(mine), Interval.SEARCH)
    return found


def sentence(fed: pd.DataFrame) -> str:
    """Say how many workers can be fed with each loop; each number is a link to its estimate."""
    loops_s = fed.groupby("iterations")["loop_s"].first()
    found = [
        f"{linked(f'{one.value:.0f}', FEEDS, iterations=iterations) if one.value > 0 else '0'}"
        f" with loops of {units.seconds(loops_s[iterations])}"
        for iterations, one in feeds(fed).items()
    ]
    return f"Of up to {fed['workers'].max()} sleeping workers, the harness kept busy {' and '.join(found)}."


def figure(fed: pd.DataFrame) -> Figure:
    """Draw the share of the own limit against the number of sleeping workers, a line for each loop."""
    short = fed["iterations"].min()
    loop = units.seconds(fed.loc[fed["iterations"] == short, "loop_s"].iloc[0])
    most, of = most_fed(fed, short), fed["workers"].max()
    title = f"The harness feeds {most if most else 'none'} of up to {of} workers with loops of {loop}"
    with canvas(title, height=3.3) as (figure, (axes,)):
        ends: list[tuple[float, float, str, str]] = []
        for (_, mine), look in zip(fed.groupby("iterations"), DARK_TO_LIGHT, strict=False):
            mine = mine.sort_values("workers")
            label = f"loops of\n{units.seconds(mine['loop_s'].iloc[0])}"
            axes.plot(
                mine["workers"],
                mine["share"],
                look.marker,
                linestyle=look.line,
                color=look.color,
                label=label,
            )
            ends.append((float(mine["workers"].iloc[-1]), float(mine["share"].iloc[-1]), label, look.color))
            lost = mine[mine["flags"].map(len) > 0]
            axes.plot(lost["workers"], lost["share"], "x", color=look.color, markersize=10)
        axes.axhline(1.0, **IDEAL)
        reference_line(axes, y=1.0, text="ideal: always busy", left=True, linewidth=0)
        fewest = fed[fed["iterations"] == short].sort_values("workers")["share"].iloc[0]
        reference_line(axes, y=HELD * fewest, text="fed from here on", left=True)
        reference_line(axes, x=2 * available_cpus(), text="two for each CPU")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(set(fed["workers"])), labels=[f"{n}" for n in sorted(set(fed["workers"]))])
        axes.xaxis.set_minor_formatter(NullFormatter())
        least = min(float(fed["share"].min()), HELD * fewest)
        axes.set_ylim(max(0.0, np.floor(10 * least) / 10 - 0.1), 1.06)
        axes.set_xlabel("sleeping workers (log scale)")
        axes.set_ylabel("share of time kept busy")
        beside(axes, ends)
    return figure
