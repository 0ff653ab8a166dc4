"""What the trials of every dispatch say, as far as they can tell: an answer, readings and a verdict."""

import math

import pandas as pd

from lab import units
from lab.experiments.claims import Verdict, weighed
from lab.experiments.common import spread_is
from lab.experiments.dispatch.ranking import (
    MATTERS,
    Spread,
    Standing,
    by_block,
    kept_over_new,
    overloaded,
    spread,
    standings,
)
from lab.experiments.dispatch.trials import busiest, spread_over_processes, steady
from lab.models.statistics import fewest_trials, samples_needed

_SIMPLEST_FIRST = ("shared", "reuseport", "round-robin", "least-busy", "pool of processes")
"""Ways for a loop that holds the GIL; the first two need nobody between a client and its worker."""


_NEARLY_ALL = 0.9
"""A queue this near to overload grows for a hundred service times and more: 1 / (1 - utilisation)^2."""


def tail_name(trials: pd.DataFrame) -> str:
    """Return the name of the percentile that these trials have samples enough for: p99, p95, p90 or p50."""
    return f"p{100 * trials['tail_share'].iloc[0]:.0f}"


def samples(trials: pd.DataFrame) -> str:
    """Say how many requests a trial has, which percentile they are enough for, and why means are compared."""
    fewest, most, name = int(trials["sent"].min()), int(trials["sent"].max()), tail_name(trials)
    has = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    needed = f"A p99 needs {samples_needed(0.99)} requests, and a trial here has {has}"
    if name == "p99":
        return f"{needed}, so p99 is shown."
    shown = "only medians are shown" if name == "p50" else f"{name} is shown instead"
    return f"{needed}, so {shown}. Ways are compared by their mean latency, which needs fewest."


def over_theory(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return each way's mean latency over that of its own queue in theory, the median of its trials."""
    ratio = trials["latency_mean_s"] / trials["mean_theory_s"]
    return ratio.groupby(trials["server"], sort=False).median().dropna()


def reading(trials: pd.DataFrame) -> str:
    """Say how far each way is from its theory, and what that counts besides loops; new connections only."""
    new = trials[~trials["keepalive"]]
    parts = [f"{way} {units.digits(value)}" for way, value in over_theory(new).items()]
    least_s = new[new["mean_theory_s"].notna()].groupby("server", sort=False)["overhead_s"].first()
    on_top = [f"{way} {units.seconds(value)}" for way, value in least_s.items()]
    return (
        f"Measured mean latency over that of the same arrivals in theory, median of trials: {listed(parts)}. "
        f"On top of a loop, theory and ideal count what a way adds to every request alike: {listed(on_top)}."
    )


def answer(trials: pd.DataFrame) -> str:
    """Say which way to choose, and why, as far as the trials can tell."""
    found = standings(trials)
    if len(found) < 2:
        what = f"Only {found[0].way} was" if found else "No way was"
        return (
            f"**Answer.** {what} measured in a steady state with several workers: nothing to choose between."
        )
    ranked = f"{', '.join(f'{s.way} {_ratio(s.excess)}' for s in found)} ({bar_is(found)})"
    return "\n\n".join(
        [
            f"**Answer.** {_told(found)}",
            f"With random arrivals, at a utilisation of {own_utilisation(trials)}, mean latency was, as a "
            f"multiple of what one ideal central queue makes of the same arrivals: {ranked}.",
            *filter(None, [left_out(trials), on_kept(trials)]),
        ]
    )


def _told(found: list[Standing]) -> str:
    """Say which ways are worse than the best, which are as good, and what that leaves to choose."""
    best, *rest = found
    worse, alike, unclear = ([s for s in rest if s.over_best.exceeds is told] for told in (True, False, None))
    text = []
    if worse:
        ratios = listed(
            [
                f"{s.way} ({s.over_best.value:.2f} times, {s.over_best.low:.2f} to {s.over_best.high:.2f})"
                for s in worse
            ]
        )
        text.append(f"**Requests take longer with {ratios} than with {best.way}.**")
    if alike:
        text.append(f"As good as {best.way}, within {units.percent(MATTERS - 1)}: {listed(_ways(alike))}.")
    if len(unclear) == len(rest):
        text.append("**These trials cannot tell which way is best.**")
    elif unclear:
        text.append(f"Not told apart from {best.way}: {listed(_ways(unclear))}.")
    if short := [s for s in rest if s.over_best.blocks < fewest_trials()]:
        of_whom = "" if len(short) == len(rest) else f", and {listed(_ways(short))} had fewer"
        text.append(f"A comparison needs {fewest_trials()} blocks with a steady state{of_whom}.")
    if alike:
        good = [best.way, *_ways(alike)]
        simplest = next((way for way in _SIMPLEST_FIRST if way in good), best.way)
        text.append(f"Of those as good as each other, **{simplest}** has the fewest parts.")
    return " ".join(text)


def left_out(trials: pd.DataFrame) -> str:
    """Say how many trials the comparison leaves out because they had no steady state."""
    if not (count := len(overloaded(trials))):
        return ""
    whose, are = ("its", "is") if count == 1 else ("their", "are")
    return (
        f"{units.counted(count, 'trial')} at a utilisation of {units.percent(1)} or more by {whose} "
        f"own service times {are} left out: a queue that only grows compares nothing."
    )


def on_kept(trials: pd.DataFrame) -> str:
    """Say what kept connections change, as far as the trials can tell."""
    ratios = kept_over_new(trials)
    if not ratios:
        return ""
    text = "With kept connections, mean latency over ideal was, as a multiple of that with new ones: "
    text += listed([f"{way} {_ratio(ratio)}" for way, ratio in ratios.items()])
    longer = [way for way, ratio in ratios.items() if ratio.exceeds]
    if longer:
        return f"{text}; it is longer with {listed(longer)}."
    blocks = min(ratio.blocks for ratio in ratios.values())
    few = blocks < fewest_trials()
    return f"{text} ({units.counted(blocks, 'block')}, too few to tell)." if few else f"{text}."


def gil(trials: pd.DataFrame) -> str:
    """Say what threads are worth to a loop that holds the GIL, and to one that does not."""
    threads = trials[trials["topology"].eq("offload") & trials["pool"].eq("thread") & ~trials["keepalive"]]
    sentences = []
    for server, mine in busiest(threads).groupby("server"):
        row = mine.median(numeric_only=True)
        sentences.append(
            f"*{server}*: offered {units.per_second(row['sent'] / row['duration_s'])}, "
            f"{units.counted(int(row['workers']), 'thread')} answered "
            f"{units.per_second(row['throughput_rps'])}; {_waited(row)}."
        )
    return " ".join(sentences) or "No pool of threads was measured."


def _waited(row: "pd.Series[float]") -> str:
    if row["utilisation"] > _NEARLY_ALL:
        return "that is all they have time for, or more: latency only tells how long the trial was"
    return f"the mean latency was {units.digits(row['latency_mean_s'] / row['cost_s'])} service times"


CLAIM = "Taking turns and accepting from one shared socket: the first balances well, the second not always"


def verdict(trials: pd.DataFrame) -> Verdict:
    """Judge claim 4: turns balance well, and a shared socket does not always.

    Turns do if the busiest worker answers at most `MATTERS` times its fair share; the socket is worse if,
    against turns, its busiest worker answers more or its requests take longer by as much as matters.
    """
    top = steady(spread_over_processes(busiest(trials)))
    return weighed(top[~top["keepalive"] & top["server"].isin(["round-robin", "shared"])], _balance)


def _balance(top: pd.DataFrame) -> Verdict:
    if top["server"].nunique() < 2:
        return Verdict(4, CLAIM)
    share = by_block(top.assign(of_fair=top["worker_max_share"] * top["workers"]), "of_fair")
    excess = by_block(top, "excess")
    turns = spread(share["round-robin"])
    uneven, longer = (spread(ratio["shared"] / ratio["round-robin"]) for ratio in (share, excess))
    evidence = (
        f"round-robin: its busiest worker answered {_ratio(turns)} times its fair share; shared, as a "
        f"multiple of round-robin: busiest worker {_ratio(uneven)}, mean latency over ideal {_ratio(longer)} "
        f"({spread_is(longer.blocks)})"
    )
    return Verdict(4, CLAIM, evidence, _judged(turns.exceeds, uneven.exceeds, longer.exceeds))


def _judged(turns_uneven: bool | None, shared_uneven: bool | None, shared_longer: bool | None) -> bool | None:
    shared_worse = (shared_uneven, shared_longer)
    if turns_uneven or all(worse is False for worse in shared_worse):
        return False
    return True if turns_uneven is False and any(shared_worse) else None


def own_utilisation(trials: pd.DataFrame) -> str:
    """Write the utilisations that the trials of the comparison had by their own service times."""
    own = steady(spread_over_processes(busiest(trials)))["utilisation"]
    low, high = units.percent(own.min()), units.percent(own.max())
    return low if low == high else f"{low} to {high}"


def bar_is(found: list[Standing]) -> str:
    """Say what the spreads of these ways are: intervals, or the range of too few blocks for one."""
    fewest, most = min(s.excess.blocks for s in found), max(s.excess.blocks for s in found)
    fewer = f", or the range where fewer, down to {fewest}, had a steady state" if fewest < most else ""
    return spread_is(most) + fewer


def _ways(found: list[Standing]) -> list[str]:
    return [s.way for s in found]


def _ratio(ratio: Spread) -> str:
    if math.isnan(ratio.value):
        return "–"
    return f"{ratio.value:.2f}" + (f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.blocks > 1 else "")


def listed(words: list[str]) -> str:
    """Join words as a sentence does: a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
