"""How many workers supervisor and generators can feed here: the control, whose workers only sleep."""

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lab import units
from lab.cpus import available_cpus
from lab.experiments.common import table_name
from lab.figures import DARK_TO_LIGHT, canvas, reference_line
from lab.flags import in_words
from lab.study.control import HELD, STEP, Fed, frame, sleepers, step_s
from lab.study.run import Run


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
            "loop": fed["loop_s"].map(units.seconds),
            "sleeping workers": fed["workers"],
            "offered rate": fed["rate_rps"].map(units.per_second),
            "answered while all could be busy": fed["throughput_rps"].map(units.per_second),
            "share of the own limit": fed["share"].map(units.percent),
            "generators": fed["generators"],
            "fed": fed["held"].map({True: "yes", False: "no"}),
            "flagged because": fed["flags"].map(in_words),
        }
    )


def most_fed(fed: pd.DataFrame, iterations: int) -> int:
    """Return the most workers that were fed with this loop, as were all fewer of them; 0 if none."""
    mine = fed[fed["iterations"] == iterations].sort_values("workers")
    return int(mine.loc[mine["held"].cummin(), "workers"].max()) if mine["held"].iloc[0] else 0


def sentence(fed: pd.DataFrame) -> str:
    """Say how many workers can be fed with each loop."""
    loops = fed.groupby("iterations")["loop_s"].first()
    found = [
        f"{most_fed(fed, int(iterations))} with loops of {units.seconds(loop_s)}"
        for iterations, loop_s in zip(loops.index, loops, strict=True)
    ]
    return f"Of up to {fed['workers'].max()} sleeping workers, it fed {' and '.join(found)}."


def loop_sentence(chosen: pd.DataFrame) -> str:
    """Say which loop `auto` iterations are in this run, and why; `chosen` comes from `control.auto`."""
    last = chosen.iloc[-1]
    loop = f"{last['iterations']:,} iterations, {units.seconds(last['loop_s'])} of plain Python"
    busy = f"{last['workers']} sleeping workers were kept busy {units.percent(last['share'])} of the time"
    if last["held"]:
        return f"Where a notebook leaves its loop to the machine, it is **{loop}**: {busy}."
    doubt = in_words(last["flags"]) or f"less than {units.percent(HELD)}"
    return f"No loop could be fed to all workers, so it is the longest, **{loop}**: {busy} ({doubt})."


def figure(fed: pd.DataFrame) -> Figure:
    """Draw the share of the own limit against the number of sleeping workers, a line for each loop."""
    short = fed["iterations"].min()
    loop = units.seconds(fed.loc[fed["iterations"] == short, "loop_s"].iloc[0])
    most, of = most_fed(fed, short), fed["workers"].max()
    title = f"The harness feeds {most if most else 'none'} of up to {of} workers with loops of {loop}"
    with canvas(title) as (figure, (axes,)):
        for (_, mine), look in zip(fed.groupby("iterations"), DARK_TO_LIGHT, strict=False):
            mine = mine.sort_values("workers")
            label = f"loops of {units.seconds(mine['loop_s'].iloc[0])}"
            axes.plot(
                mine["workers"],
                mine["share"],
                look.marker,
                linestyle=look.line,
                color=look.color,
                label=label,
            )
            lost = mine[mine["flags"].map(len) > 0]
            axes.plot(lost["workers"], lost["share"], "x", color=look.color, markersize=10)
        reference_line(axes, y=1.0, text="always busy")
        fewest = fed[fed["iterations"] == short].sort_values("workers")["share"].iloc[0]
        reference_line(axes, y=HELD * fewest, text="fed: nine tenths of the fewest workers' share")
        reference_line(axes, x=2 * available_cpus(), text="two for each CPU")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(set(fed["workers"])), labels=[f"{n}" for n in sorted(set(fed["workers"]))])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 1.08)
        axes.set_xlabel("sleeping workers (log scale)")
        axes.set_ylabel("share of time kept busy")
        axes.legend(loc="lower left")
    return figure
