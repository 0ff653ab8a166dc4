"""2 n + 1 workers: how much work they do, how long the slowest requests wait, and what memory they take."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lab.experiments.claims import Word
from lab.experiments.common import resolve
from lab.experiments.dispatch.answer import tail_name
from lab.experiments.folk_rules import trials as planned
from lab.experiments.folk_rules.rules import (
    MATTERS,
    MOST_SHOWN,
    TAIL_MATTERS,
    Parameters,
    Ruling,
    at_any_speed,
    by_trials,
    exceeds,
    lead,
    nothing,
    tail_over,
    times,
    written,
)
from lab.experiments.folk_rules.trials import OVERLOAD, TAIL, named, numbers
from lab.experiments.other_servers.analysis import against, estimated
from lab.experiments.worker_scaling import scaling
from lab.figures import IDEAL, INK, PALE, QUIET, SERVERS, SMALL, canvas, reference_line
from lab.models.statistics import Estimate
from lab.study.plan import Condition
from lab.study.run import Run
from lab.units import counted


def measure(run: Run, p: Parameters) -> tuple[pd.DataFrame, pd.DataFrame, list[int]]:
    """Return the trials in overload, those under random arrivals, and which numbers of workers are 04's.

    Overloads that notebook 04 has in as many blocks are taken, and the others are measured like them. The two
    numbers that are compared come from one notebook, so that they met the machine at the same time. Overloads
    have work_cpus: the CPU time of the loops that were answered, per second; nan if the trial was none.
    """
    if not p.asks("workers", "replicas"):
        return pd.DataFrame(), pd.DataFrame(), []
    wanted = planned.overloads(p)
    known = _of_04(run, p.blocks, [one.workers for one in wanted])
    n = resolve(p.workers)
    if not {n, 2 * n + 1} <= set(known["workers"]):
        known = known[~known["workers"].isin([n, 2 * n + 1])]  # these are compared, within blocks
    taken = sorted(int(n) for n in known["workers"].unique())
    missing = [_like(one, known) for one in wanted if one.workers not in taken]
    found = planned.measure(run, p, [*missing, *planned.tails(p)])
    tails, mine = found[found["part"] == TAIL], found[found["part"] == OVERLOAD]
    rates = pd.concat([known, mine], ignore_index=True) if taken else mine
    return with_work(run, rates), tails.reset_index(drop=True), taken


def compared(run: Run, trials: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the overloads of n and 2 n + 1 workers among these trials, or else those taken from 04."""
    own = trials[trials["part"] == OVERLOAD]
    if not {named(n), named(2 * n + 1)} <= set(own["server"]):
        own = _of_04(run, int(trials["block"].max()), [n, 2 * n + 1])
    return with_work(run, own)


def with_work(run: Run, rates: pd.DataFrame) -> pd.DataFrame:
    """Add work_cpus to overloads, as `measure` says."""
    if rates.empty:
        return rates
    found = scaling.accounted(run, rates)
    work_cpus = (found["loop_cpu_s"] / found["window_s"]).where(found["highest_rps"] > 0)
    return found.assign(work_cpus=work_cpus)


def _of_04(run: Run, blocks: int, counts: Sequence[int]) -> pd.DataFrame:
    """Return notebook 04's trials of the numbers of workers that have all these blocks there."""
    known = run.trials(scaling.EXPERIMENT)
    known = known[known["workers"].isin(counts) & (known["block"] <= blocks) & known["load"].notna()]
    known = known[known.groupby("workers")["block"].transform("nunique") == blocks]
    return known.assign(part=OVERLOAD, server=[named(int(n)) for n in known["workers"]])


def _like(one: Condition, known: pd.DataFrame) -> Condition:
    """Return the server under the load that notebook 04 offers, if that was measured."""
    same = ["load", "duration_s", "dispatch", "kernel", "iterations", "pin", "timeout_s"]
    given = known[same].head(1).to_dict("records")
    return replace(one, **{str(name): value for name, value in given[0].items()}) if given else one


def ruling(rates: pd.DataFrame, tails: pd.DataFrame, n: int, cpus: int, taken: Sequence[int] = ()) -> Ruling:
    """Judge 2 n + 1 by work in overload, and by the tail at one rate, over those of n workers."""
    if rates.empty or tails.empty:
        return nothing("workers")
    if n != cpus:
        return nothing("workers", f"the rule is about {counted(cpus, 'CPU')}, and n is {n}")
    few, many = named(n), named(2 * n + 1)
    pair = {"server": many, "over": few}
    both = pd.concat([rates, tails], ignore_index=True)
    both = both[both["server"].isin([few, many])]

    def judge(trials: pd.DataFrame) -> tuple[list[bool | None], str]:
        work = against(trials, many, few, OVERLOAD, "work_cpus")
        tail = against(trials, many, few, TAIL, "over_ideal")
        shorter = against(trials, few, many, TAIL, "over_ideal")
        if work is None or tail is None:
            return [], ""
        told = f"{2 * n + 1} workers do {times(work, WORK_OVER, **pair)} the work of {n}; at one rate, "
        told += f"their {tail_name(tails)} is {times(tail, tail_over(tails), **pair)} as long"
        return [exceeds(work, MATTERS), exceeds(shorter, TAIL_MATTERS)], told

    found = by_trials("workers", at_any_speed(both), judge)
    if not found.evidence:
        return nothing("workers", f"not both {n} and {2 * n + 1} workers could be overloaded")
    source = f"The work of {_listed(taken)} workers is that of notebook 04's trials." if taken else ""
    work = lead(against(both, many, few, OVERLOAD, "work_cpus"), WORK_OVER, **pair)
    return Ruling("workers", f"{found.evidence}.", found, source, f"{work} times the work")


WORK_OVER = "work in overload, over another server's"
"""The ratio of `work_cpus`, as an estimate."""


def _listed(taken: Sequence[int]) -> str:
    *first, last = map(str, taken)
    return f"{', '.join(first)} and {last}" if first else last


def table(rates: pd.DataFrame, tails: pd.DataFrame, memory: Estimate | None, n: int) -> pd.DataFrame:
    """Tabulate each number of workers: its work, its tail, and the memory of so many.

    `memory` is that of the largest worker, in bytes, if it was measured.
    """
    if rates.empty or tails.empty:
        return pd.DataFrame({"": ["not measured"]})
    return pd.DataFrame(
        {
            "workers": f"{many}",
            "work in overload, in CPUs' worth of loops": written(_of(rates, many, "work_cpus")),
            **{
                f"{tail_name(tails)} at one rate, {unit}": (
                    written(_of(tails, many, column)) if many >= n else "too few for this rate"
                )
                for column, unit in (("tail_loops", "in loops"), ("over_ideal", "over one ideal queue's"))
            },
            "memory": f"{many * memory.value / 2**20:.0f} MiB" if memory else "–",
        }
        for many in numbers(n)
    )


def _of(trials: pd.DataFrame, workers: int, column: str) -> Estimate | None:
    return estimated(trials.loc[trials["server"] == named(workers), column])


_TITLES = {
    Word.HOLDS: "{many} workers do better than {few}",
    Word.IN_PART: "{many} workers do better than {few}, but not in everything",
    Word.NOT_HERE: "{many} workers do no better than {few}",
    Word.UNTOLD: "Whether {many} workers do better than {few} cannot be told",
}


def figure(
    rates: pd.DataFrame, tails: pd.DataFrame, memory: Estimate | None, n: int, cpus: int
) -> Figure | None:
    """Draw work, tail and memory against the number of workers; None if they were not measured."""
    if rates.empty or tails.empty:
        return None
    counts, word = numbers(n), ruling(rates, tails, n, cpus).verdict.word
    title = _TITLES[word].format(many=2 * n + 1, few=n)
    panels = 3 if memory else 2
    with canvas(title, rows=panels, height=0.4 + 1.9 * panels, sharex=True) as (figure, (work, tail, *size)):
        work.set_title("Work in overload (more is better)")
        work.set_ylabel("CPUs' worth\nof loops")
        tail.set_title("The slowest wait (less is better)")
        tail.set_ylabel(f"{tail_name(tails)} over an\nideal queue's")
        for place, many in enumerate(counts):
            _bar(work, place, _of(rates, many, "work_cpus"), many in (n, 2 * n + 1))
            _bar(tail, place, _of(tails, many, "over_ideal"), many in (n, 2 * n + 1))
            for axes in size if memory else ():
                mib = many * memory.value / 2**20 if memory else 0.0
                _bar(axes, place, Estimate(mib, mib, mib, 1), many in (n, 2 * n + 1))
        (size[-1] if size else tail).set_xlabel("workers")
        for axes in size:
            axes.set_title("Memory (less is better)")
            axes.set_ylabel("MiB")
        for axes in (work, tail, *size):
            axes.set_xticks(range(len(counts)), [_tick(many, n) for many in counts])
            axes.set_xlim(-0.6, len(counts) - 0.4)
            axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
            axes.grid(visible=False, axis="x")
        work.set_ylim(0, max(work.get_ylim()[1], 1.15 * cpus))
        shown = [found.value for many in counts if (found := _of(tails, many, "over_ideal"))]
        tail.set_ylim(0, min(tail.get_ylim()[1], MOST_SHOWN * max(shown, default=1.0)))
        work.axhline(cpus, **IDEAL)
        reference_line(work, y=cpus, text=f"ideal: all {counted(cpus, 'CPU')}", left=True, linewidth=0)
        if counts[0] < n:
            tail.annotate(
                "too few\nfor this\nrate", (counts.index(1), 0), xytext=(0, 5), ha="center", fontsize=SMALL,
                textcoords="offset points", color=QUIET,
            )  # fmt: skip
    return figure


def _tick(many: int, n: int) -> str:
    says = {n: "n", n + 1: "n + 1", 2 * n: "2 n", 2 * n + 1: "2 n + 1"}
    return f"{many}\n{says.get(many, '')}"


def _bar(axes: Axes, place: int, found: Estimate | None, compared: bool) -> None:
    """Draw a bar with its interval; those that are compared are dark."""
    if found is None:
        return
    color = SERVERS["round-robin"].color if compared else PALE
    axes.bar(place, found.value, 0.62, color=color)
    if found.high > found.low:
        halo = [withStroke(linewidth=3, foreground="white")]
        axes.plot([place, place], [found.low, found.high], color=INK, linewidth=1.4, path_effects=halo)
