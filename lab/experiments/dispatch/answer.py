"""Which arrangement is nearest to one ideal queue, as far as the trials can tell: tables, answer, verdict.

Arrangements are compared by `excess`: mean latency over what one central queue makes of the same arrivals and
the same service times. That takes out chance, the machine's speed and what an arrangement adds to every
request alike; and a mean needs far fewer requests than a percentile. Ratios are paired within blocks; fewer
blocks than a 95 % interval needs decide nothing.
"""

import math
from dataclasses import dataclass

import pandas as pd

from lab import units
from lab.experiments.claims import Verdict, Word, of_parts, weighed
from lab.experiments.dispatch.trials import busiest, spread_over_processes, steady
from lab.models.statistics import Estimate, estimate

MATTERS = 1.1
"""Requests that take less than this many times as long take as long: no choice hangs on it."""

NEARLY_ALL = 0.9
"""So near to overload a queue grows for a hundred service times: latency tells how long a trial was."""

CLAIM = "Taking turns and accepting from one shared socket: the first balances well, the second not always"


@dataclass(frozen=True)
class Standing:
    """An arrangement's excess, and how many times that of the best one it is, block by block."""

    name: str
    excess: Estimate
    over_best: Estimate


def exceeds(ratio: Estimate) -> bool | None:
    """Say whether a ratio is above 1 by as much as matters; None: these blocks cannot tell."""
    if not ratio.is_interval:
        return None
    return True if ratio.low > MATTERS else False if ratio.high <= MATTERS else None


def over_blocks(values: "pd.Series[float]") -> Estimate:
    """Return the median of a value per block, missing values left out; nan if there is none."""
    known = values.dropna()
    return estimate(list(known)) if len(known) else Estimate(math.nan, math.nan, math.nan, 0)


def by_block(trials: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a column with a row for each block and a column for each arrangement."""
    return trials.pivot_table(index="block", columns="server", values=column, aggfunc="median")


def compared(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials to choose by: several processes, the highest Poisson utilisation, a steady state."""
    return steady(spread_over_processes(busiest(trials)))


def standings(trials: pd.DataFrame) -> list[Standing]:
    """Return how the arrangements stand with new connections, the best first.

    The best has the lowest median of those with blocks enough for an interval, if any has.
    """
    top = compared(trials)
    excess = by_block(top[~top["keepalive"]], "excess")
    found = {str(name): over_blocks(excess[name]) for name in excess}
    if not found:
        return []
    order = sorted(found, key=lambda name: (not found[name].is_interval, found[name].value))
    return [Standing(name, found[name], over_blocks(excess[name] / excess[order[0]])) for name in order]


def answer(trials: pd.DataFrame) -> str:
    """Say which arrangement to choose, as far as the trials can tell."""
    found = standings(trials)
    if len(found) < 2:
        return "**Answer.** There is no choice: fewer than two arrangements were measured in a steady state."
    best, *rest = found
    worse = [s for s in rest if exceeds(s.over_best)]
    alike = [s.name for s in rest if exceeds(s.over_best) is False]
    if worse:
        told = f"Requests take longer with {listed([f'{s.name} ({_ratio(s.over_best)})' for s in worse])}"
        told = f"**{told} than with {best.name}.**"
    elif len(alike) == len(rest):
        told = f"**No arrangement is slower than {best.name} by {units.percent(MATTERS - 1)} or more.**"
    else:
        told = "**These trials cannot tell which arrangement is best.**"
    alike_told = f" As good as {best.name}: {listed(alike)}." if worse and alike else ""
    return (
        f"**Answer.** {told}{alike_told} That is mean latency over an ideal queue's, with random arrivals"
        f" at a utilisation of {own_utilisation(trials)}, paired over"
        f" {units.counted(best.excess.trials, 'block')}."
    )


def standings_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put the standings in a table, with how many trials had no steady state and are left out."""
    top = spread_over_processes(busiest(trials))
    top = top[~top["keepalive"]]
    left_out = top["server"].value_counts() - steady(top)["server"].value_counts().reindex(
        top["server"].unique(), fill_value=0
    )
    words = {True: "longer", False: "as long", None: "cannot be told"}
    return pd.DataFrame(
        {
            "arrangement": s.name,
            "blocks": s.excess.trials,
            "left out": int(left_out[s.name]),
            "mean latency over ideal": _ratio(s.excess),
            "over the best": "" if number == 0 else _ratio(s.over_best),
            "requests take": "the best" if number == 0 else words[exceeds(s.over_best)],
        }
        for number, s in enumerate(standings(trials))
    )


def kept_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put in a table how many times as long requests take with kept connections as with new ones."""
    top = compared(trials)
    kept, new = (by_block(top[top["keepalive"] == keeps], "excess") for keeps in (True, False))
    ratios = {str(name): over_blocks(kept[name] / new[name]) for name in kept if name in new}
    return pd.DataFrame(
        {"arrangement": name, "blocks": ratio.trials, "kept over new connections": _ratio(ratio)}
        for name, ratio in ratios.items()
        if ratio.trials
    )


def threads_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put in a table what threads are worth to a loop that holds the GIL, and to one that does not."""
    threads = trials[trials["topology"].eq("offload") & trials["pool"].eq("thread") & ~trials["keepalive"]]
    medians = busiest(threads).groupby("server", sort=False).median(numeric_only=True)
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
        for name, row in medians.iterrows()
    )


def verdict(trials: pd.DataFrame) -> Verdict:
    """Judge claim 4: turns balance well, and a shared socket does not always.

    Turns do if the busiest worker answers at most `MATTERS` times its fair share; the socket is worse if,
    against turns, its busiest worker answers more or its requests take longer by as much as matters.
    """
    top = compared(trials)
    among = top["topology"].eq("cluster") & top["dispatch"].isin(["round-robin", "shared"])
    return weighed(top[among & ~top["keepalive"]], _balance)


def _balance(top: pd.DataFrame) -> Verdict:
    if top["dispatch"].nunique() < 2:
        return Verdict(4, CLAIM)
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
    return Verdict(4, CLAIM, evidence, _judged(exceeds(turns), exceeds(uneven), exceeds(longer)))


def _judged(turns_uneven: bool | None, shared_uneven: bool | None, shared_longer: bool | None) -> Word:
    if turns_uneven:
        return Word.NOT_HERE
    shared = (shared_uneven, shared_longer)
    worse = True if True in shared else None if None in shared else False
    return of_parts(None if turns_uneven is None else True, worse)


def own_utilisation(trials: pd.DataFrame) -> str:
    """Write the utilisations that the trials of the comparison had by their own service times."""
    own = compared(trials)["utilisation"]
    return " to ".join(dict.fromkeys([units.percent(own.min()), units.percent(own.max())]))


def _ratio(ratio: Estimate) -> str:
    if math.isnan(ratio.value):
        return "–"
    return f"{ratio.value:.2f}" + (f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.trials > 1 else "")


def listed(words: list[str]) -> str:
    """Join words as a sentence does: a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
