"""Which arrangement is nearest to one ideal queue, as far as the trials can tell: tables, answer, verdict.

Arrangements are compared by `excess`: mean latency divided by that of one central queue with the same
arrivals and service times. This removes chance, the machine's speed, and what an arrangement adds to every
request alike; and a mean needs far fewer requests than a percentile. Ratios are paired within blocks. With
too few blocks for a 95 % interval, nothing is decided.
"""

import math
from dataclasses import dataclass

import pandas as pd

from lab import units
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.dispatch.trials import busiest, by_arrangement, spread_over_processes, steady
from lab.models.statistics import Estimate, estimate

MATTERS = 1.1
"""Ratios below this count as equal: no choice hangs on them."""

NEARLY_ALL = 0.9
"""This close to overload, a queue grows for a hundred service times: latency tells how long a trial was."""


@dataclass(frozen=True)
class Standing:
    """An arrangement's excess, and its ratio to that of the best one, block by block.

    `left_out` counts its trials without a steady state.
    """

    name: str
    excess: Estimate
    over_best: Estimate
    left_out: int


def exceeds(ratio: Estimate) -> bool | None:
    """Say whether a ratio is above 1 by as much as matters; None if these blocks cannot tell."""
    if not ratio.is_interval:
        return None
    return True if ratio.low > MATTERS else False if ratio.high <= MATTERS else None


def over_blocks(values: "pd.Series[float]") -> Estimate:
    """Return the median of a value per block, without missing values; nan if there is none."""
    known = values.dropna()
    return estimate(list(known)) if len(known) else Estimate(math.nan, math.nan, math.nan, 0)


def to_choose_by(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials to choose by: several processes, the highest Poisson utilisation, a steady state."""
    return steady(spread_over_processes(busiest(trials)))


def standings(trials: pd.DataFrame) -> list[Standing]:
    """Return how the arrangements compare with new connections, the best first.

    The best has the lowest median of those with enough blocks for an interval, if there are any.
    """
    top = spread_over_processes(busiest(trials))
    groups = dict(by_arrangement(top[~top["keepalive"]]))
    excess = {name: _by_block(steady(mine)) for name, mine in groups.items()}
    found = {name: over_blocks(values) for name, values in excess.items()}
    order = sorted(found, key=lambda name: _rank(found[name]))
    return [
        Standing(
            name,
            found[name],
            over_blocks(excess[name] / excess[order[0]]),
            left_out=len(groups[name]) - len(steady(groups[name])),
        )
        for name in order
    ]


def _by_block(trials: pd.DataFrame) -> "pd.Series[float]":
    return trials.groupby("block")["excess"].median()


def _rank(excess: Estimate) -> tuple[bool, bool, float]:
    return not excess.is_interval, math.isnan(excess.value), excess.value


def answer(trials: pd.DataFrame) -> str:
    """Say which arrangement to choose, as far as the trials can tell."""
    found = [standing for standing in standings(trials) if standing.excess.trials]
    if len(found) < 2:
        return "**Answer.** Nothing to compare: fewer than two arrangements were measured in a steady state."
    best, *rest = found
    worse = [f"{s.name} ({_ratio(s.over_best)})" for s in rest if exceeds(s.over_best)]
    alike = [s.name for s in rest if exceeds(s.over_best) is False]
    if worse:
        told = f"**Requests take longer with {listed(worse)} than with {best.name}.**"
        if alike:
            told += f" They take as long with {listed(alike)}."
    elif len(alike) == len(rest):
        told = f"**No arrangement is slower than {best.name} by {units.percent(MATTERS - 1)} or more.**"
    else:
        told = "**These trials cannot tell which arrangement is best.**"
    return (
        f"**Answer.** {told} The measure is mean latency divided by an ideal queue's, under random arrivals"
        f" at a utilisation of {own_utilisation(trials)}, paired over"
        f" {units.counted(best.excess.trials, 'block')}."
    )


def standings_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put the standings in a table."""
    words = {True: "longer", False: "as long", None: "cannot be told"}
    return pd.DataFrame(
        {
            "arrangement": s.name,
            "blocks": s.excess.trials,
            "left out": s.left_out,
            "mean latency over ideal": _ratio(s.excess),
            "over the best": "" if number == 0 else _ratio(s.over_best),
            "requests take": words[exceeds(s.over_best)] if number or not s.excess.trials else "the best",
        }
        for number, s in enumerate(standings(trials))
    )


def kept_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Tabulate how many times as long requests take with kept connections as with new ones."""
    rows = []
    for name, mine in by_arrangement(to_choose_by(trials)):
        kept, new = _by_block(mine[mine["keepalive"]]), _by_block(mine[~mine["keepalive"]])
        ratio = over_blocks(kept / new)
        if ratio.trials:
            row = {"arrangement": name, "blocks": ratio.trials, "kept over new connections": _ratio(ratio)}
            rows.append(row)
    return pd.DataFrame(rows)


def threads_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what threads are worth to a loop that holds the GIL, and to one that does not."""
    threads = trials[trials["topology"].eq("offload") & trials["pool"].eq("thread") & ~trials["keepalive"]]
    medians = {name: mine.median(numeric_only=True) for name, mine in by_arrangement(busiest(threads))}
    return pd.DataFrame(
        {
            "threads": int(row["workers"]),
            "pool": name,
            "offered": units.per_second(row["sent"] / row["duration_s"]),
            "answered": units.per_second(row["throughput_rps"]),
            "utilisation": units.percent(row["utilisation"]),
            "mean latency, service times": units.digits(
                row["latency_mean_s"] / row["cost_s"] if row["utilisation"] <= NEARLY_ALL else math.nan
            ),
        }
        for name, row in medians.items()
    )


def verdict(trials: pd.DataFrame) -> Verdict:
    """Judge claim 4: turns balance well, and a shared socket does not always.

    Turns do if the busiest worker answers at most `MATTERS` times its fair share. The socket is worse if,
    compared with turns, its busiest worker answers more or its requests take longer by as much as matters.
    """
    top = to_choose_by(trials)
    among = top["topology"].eq("cluster") & top["dispatch"].isin(["round-robin", "shared"])
    return weighed(top[among & ~top["keepalive"]], _balance)


def _balance(top: pd.DataFrame) -> Verdict:
    if top["dispatch"].nunique() < 2:
        return Verdict(4)
    share, excess = (
        top.assign(of_fair=top["worker_max_share"] * top["workers"]).pivot_table(
            index="block", columns="dispatch", values=column
        )
        for column in ("of_fair", "excess")
    )
    turns = over_blocks(share["round-robin"])
    uneven, longer = (over_blocks(ratio["shared"] / ratio["round-robin"]) for ratio in (share, excess))
    evidence = (
        f"busiest worker over its fair share with round-robin: {_ratio(turns)}; shared over round-robin: "
        f"busiest worker {_ratio(uneven)}, mean latency over ideal {_ratio(longer)}"
    )
    return Verdict(4, evidence, Word.of(_not(exceeds(turns)), _either(exceeds(uneven), exceeds(longer))))


def _not(known: bool | None) -> bool | None:
    return None if known is None else not known


def _either(one: bool | None, other: bool | None) -> bool | None:
    return True if True in (one, other) else None if None in (one, other) else False


def own_utilisation(trials: pd.DataFrame) -> str:
    """Write the utilisations of the compared trials, by their own service times."""
    own = to_choose_by(trials)["utilisation"]
    return " to ".join(dict.fromkeys([units.percent(own.min()), units.percent(own.max())]))


def _ratio(ratio: Estimate) -> str:
    if math.isnan(ratio.value):
        return "–"
    return f"{ratio.value:.2f}" + (f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.trials > 1 else "")


def listed(words: list[str]) -> str:
    """Join words as a sentence does: a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
