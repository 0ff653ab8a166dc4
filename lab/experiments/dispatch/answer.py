"""Which arrangement to choose, as far as the trials can tell: tables, answer, verdict.

The first planned arrangement is the reference. Latency is compared raw, as ratios to it that are paired
within blocks; beside that as ratios to an ideal queue of the same arrivals and loops, which takes out that
machines change their speed between trials. Nothing is told that the whole interval does not say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab import units
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.common import mainly, worded
from lab.experiments.dispatch.trials import EXPERIMENT, by_arrangement, compared
from lab.models.statistics import Estimate, estimate, paired_ratio, pairing_gain
from lab.study.estimates import Stated, linked, stated

LATENCY_MATTERS = 1.05
"""Latencies within this factor of each other count as equal: no choice hangs on them."""

SHARE_MATTERS = 1.1
"""Workers whose busiest one answers at most this times its fair share count as balanced."""

Told = Literal["more", "alike", "less"]


def told(ratio: Estimate, matters: float = LATENCY_MATTERS) -> Told | None:
    """Say what the whole interval of a ratio says; None if it says several things, or is no interval."""
    if not ratio.is_interval:
        return None
    if ratio.low > matters:
        return "more"
    if ratio.high < 1 / matters:
        return "less"
    return "alike" if 1 / matters <= ratio.low and ratio.high <= matters else None


@dataclass(frozen=True)
class Comparison:
    """An arrangement over the reference: mean latency, its tail, the mean over ideal; what pairing gained.

    `each` is the ratio of mean latencies in each block, of which `mean` is the median. `sources` are the ids
    of the trials that were paired.
    """

    name: str
    trials: pd.DataFrame
    each: list[float]
    mean: Estimate
    tail: Estimate
    over_ideal: Estimate
    pairing: float
    sources: tuple[str, ...]


def comparisons(trials: pd.DataFrame) -> list[Comparison]:
    """Return the compared arrangements, the reference first; fewer than two leave nothing to compare.

    One is left out if it has no block with the reference in which both sent anything.
    """
    groups = by_arrangement(compared(trials).dropna(subset="latency_mean_s"))
    found = (_compare(name, mine, groups[0][1]) for name, mine in groups)
    return [one for one in found if one]


def _compare(name: str, mine: pd.DataFrame, reference: pd.DataFrame) -> Comparison | None:
    pairs = mine.merge(reference, on="block", suffixes=("", "_reference"))
    if pairs.empty:
        return None
    mean, tail, over_ideal = (
        (list(pairs[column]), list(pairs[f"{column}_reference"]))
        for column in ("latency_mean_s", "tail_s", "over_ideal")
    )
    return Comparison(
        name=name,
        trials=mine,
        each=[over / under for over, under in zip(*mean, strict=True)],
        mean=paired_ratio(*mean),
        tail=paired_ratio(*tail),
        over_ideal=paired_ratio(*over_ideal),
        pairing=pairing_gain(*mean),
        sources=(*pairs["trial_id"], *pairs["trial_id_reference"]),
    )


def by_word(ratios: Mapping[str, Estimate]) -> dict[Told | None, list[str]]:
    """Sort arrangements by what can be told of their ratios to the reference."""
    words: tuple[Told | None, ...] = ("more", "less", "alike", None)
    return {word: [name for name, found in ratios.items() if told(found) == word] for word in words}


QUANTITIES = "mean latency", "mean latency over ideal"
"""What is stated of an arrangement, over the reference's."""


def answer(trials: pd.DataFrame) -> str:
    """Say which arrangements are slower or faster than the reference, as far as the trials can tell."""
    found = comparisons(trials)
    if len(found) < 2:
        return "**Answer.** Nothing to compare: fewer than two arrangements of several workers were measured."
    raw, over_ideal = ({one.name: getattr(one, how) for one in found[1:]} for how in ("mean", "over_ideal"))
    raw_name, over_name = (f"{quantity} over {found[0].name}'s" for quantity in QUANTITIES)
    blocks = dict.fromkeys(units.counted(one.mean.trials, "block") for one in found[1:])
    measured, steadied = _told_of(raw, raw_name, "requests"), _told_of(over_ideal, over_name, "they")
    same = measured == steadied  # of none can anything be told
    also = ", even with" if same else f", {measured}. With"
    return (
        f"**Answer.** Compared with {found[0].name}{also} the speed of the loops taken out, {steadied}. These"
        f" are ratios of mean latency, paired over {' or '.join(blocks)}, under random arrivals at a"
        f" utilisation of {_span(compared(trials)['utilisation'])}."
    )


_TAKE = {"more": "longer", "less": "less time", "alike": "as long", None: "cannot be told"}


def _told_of(ratios: Mapping[str, Estimate], quantity: str, they: str) -> str:
    """Write what can be told with its numbers, by links, and of how many others it cannot be told."""
    found = by_word(ratios)
    parts = [
        f"**{_TAKE[word]}** with "
        + ", ".join(f"{name} {_leading(ratios[name], quantity, name)}" for name in names)
        for word, names in found.items()
        if word and names
    ]
    told_of = [f"{they} take {'; '.join(parts)}"] if parts else []
    if untold := found[None]:
        one = len(untold) == 1
        which = f"{untold[0]} cannot" if one else f"none of the other {len(untold)} can"
        told_of.append(f"{which} be told to be faster or slower")
    return "; ".join(told_of)


def _leading(found: Estimate, quantity: str, name: str) -> str:
    written = ratio(found)
    return f"{linked(written.digits, quantity, arrangement=name)} ({written.spread})"


def comparison_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the comparisons, each with the smallest difference that it would have shown."""
    tail = tail_name(trials)
    rows = [
        {
            "arrangement": one.name,
            "blocks": one.mean.trials,
            "own utilisation": _span(one.trials["utilisation"]),
            "mean latency": ratio(one.mean) if number else "1",
            f"{tail} latency": ratio(one.tail) if number else "1",
            "mean over ideal": f"{ratio(one.over_ideal)}: {_TAKE[told(one.over_ideal)]}" if number else "1",
            "smallest difference to be seen": _percent(one.mean.smallest_told) if number else "",
            "pairing gained": units.plain(one.pairing) if number else "",
            "requests take": _TAKE[told(one.mean)] if number else "the reference",
        }
        for number, one in enumerate(comparisons(trials))
    ]
    table = pd.DataFrame(rows or [{"": "Nothing of several workers was measured."}])
    return mainly(table, "arrangement", "blocks", "mean latency", "mean over ideal", "requests take")


def tail_name(trials: pd.DataFrame) -> str:
    """Return the name of the percentile for which these trials have enough samples: p99, p95, p90 or p50."""
    return f"p{100 * trials['tail_share'].iloc[0]:.0f}"


@dataclass(frozen=True)
class Share:
    """The busiest worker's answers over its fair share, and the medians that fair coins would give."""

    found: Estimate
    coins: NDArray[np.float64]

    @property
    def by_chance(self) -> tuple[float, float]:
        """The median of what coins give, and what they exceed once in twenty times."""
        return float(np.median(self.coins)), float(np.quantile(self.coins, 0.95))

    @property
    def than_coins(self) -> Told | None:
        """Whether this is more or less than coins give nineteen times in twenty; None with too few blocks."""
        if not self.found.is_interval:
            return None
        low, high = np.quantile(self.coins, [0.05, 0.95])
        return "more" if self.found.value > high else "less" if self.found.value < low else "alike"


def share(trials: pd.DataFrame) -> Share | None:
    """Return how evenly one arrangement shared its answers; None if there were none."""
    answered = _answered(trials)
    if answered.empty:
        return None
    busiest = estimate(list(answered["busiest"]), within=(1, float(answered["workers"].max())))
    return Share(busiest, np.median(np.stack(list(answered["coins"])), axis=0))


def _answered(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[trials["connections"] > 0]


_UNEVEN = {"more": "more", "less": "less", "alike": "as much", None: "cannot be told"}


def shares_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put the busiest worker's share beside what fair coins give with as many answers and connections."""
    rows = []
    for name, mine in by_arrangement(compared(trials)):
        if found := share(mine):
            usual, most = found.by_chance
            rows.append(
                {
                    "arrangement": name,
                    "blocks": found.found.trials,
                    "answers of a trial": f"{mine['ok'].median():.0f}",
                    "connections": f"{mine['connections'].median():.0f}",
                    "busiest worker, over its fair share": ratio(found.found),
                    "fair coins, median": f"{usual:.2f}",
                    "fair coins, 95 %": f"{most:.2f}",
                    "uneven, compared with coins": _UNEVEN[found.than_coins],
                }
            )
    return pd.DataFrame(rows or [{"": "No answers of several workers were measured."}])


def theory_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Put measured latency beside that of the same arrivals in each queue; new connections only."""
    tail, rows = tail_name(trials), []
    of_new = trials[~trials["keepalive"]].sort_values(["arrivals", "load"], ascending=[False, True])
    for _, at_load in of_new.groupby(["arrivals", "load"], sort=False):
        for name, mine in by_arrangement(at_load):
            row = mine.median(numeric_only=True)
            over = (mine["latency_mean_s"] / mine["theory_s"]).dropna()
            rows.append(
                {
                    "arrangement": name,
                    "planned": f"{mine['arrivals'].iloc[0]}, {units.percent(row['load'])}",
                    "trials": len(mine),
                    "own utilisation": _span(mine["utilisation"]),
                    "mean, measured": units.in_seconds(row["latency_mean_s"]),
                    "mean, theory": units.in_seconds(row["theory_s"]),
                    "measured over theory": ratio(estimate(list(over))) if len(over) else "–",
                    f"{tail}, measured": units.in_seconds(row["tail_s"]),
                    f"{tail}, theory": units.in_seconds(row["theory_tail_s"]),
                    "least on top of a loop": units.in_seconds(row["extra_s"]),
                }
            )
    means = ("mean, measured", "mean, theory", "measured over theory")
    return mainly(pd.DataFrame(rows), "arrangement", "planned", *means)


def threads_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what threads are worth to a loop that holds the GIL, and to one that does not: medians."""
    threads = trials["topology"].eq("offload") & trials["pool"].eq("thread")
    mine = trials[threads & (trials["arrivals"] == "poisson")]
    rows = [
        {
            "threads": int(row["workers"]),
            "pool": name,
            "trials": len(group),
            "offered": units.in_requests(row["rate"]),
            "answered": units.in_requests(row["throughput_rps"]),
            "own utilisation": units.in_percent(row["utilisation"]),
            "mean latency": units.in_seconds(row["latency_mean_s"]),
        }
        for name, group in by_arrangement(mine[mine["load"] == mine["load"].max()])
        for row in [group.median(numeric_only=True)]
    ]
    return pd.DataFrame(rows or [{"": "No pool of threads was measured."}])


def estimates(trials: pd.DataFrame) -> list[Stated]:
    """State how each arrangement compares with the reference, and its busiest worker's share."""
    found = comparisons(trials)
    ratios = [
        stated(
            EXPERIMENT, f"{quantity} over {found[0].name}'s", each, compares=True, sources=one.sources,
            arrangement=one.name,
        )
        for one in found[1:]
        for quantity, each in zip(QUANTITIES, (one.mean, one.over_ideal), strict=True)
    ]  # fmt: skip
    shares = [
        stated(
            EXPERIMENT, "busiest worker over its fair share", shared.found, arrangement=one.name,
            sources=_answered(one.trials)["trial_id"],
        )
        for one in found
        if (shared := share(one.trials))
    ]  # fmt: skip
    return ratios + shares


def verdict(trials: pd.DataFrame) -> Verdict:
    """Judge claim 4: turns balance well, and a shared socket does not always.

    Turns do if the whole interval of the busiest worker's share is within `SHARE_MATTERS` of the fair one.
    The socket is worse if that interval is beyond it, and more than fair coins give; or if requests take
    longer than with turns.
    """
    top = compared(trials)
    among = top["topology"].eq("cluster") & top["dispatch"].isin(["round-robin", "shared"])
    return weighed(top[among & ~top["keepalive"]], _balance)


def _balance(top: pd.DataFrame) -> Verdict:
    of = {name: top[top["dispatch"] == name] for name in ("round-robin", "shared")}
    turns, socket = (share(mine) for mine in of.values())
    beside = _compare("shared", of["shared"], of["round-robin"])
    if turns is None or socket is None or beside is None:
        return Verdict(4)
    longer = beside.mean
    shares = (
        f"{name} {ratio(one.found)}, fair coins {one.by_chance[0]:.2f} to {one.by_chance[1]:.2f}"
        for name, one in (("round-robin", turns), ("shared", socket))
    )
    evidence = (
        f"busiest worker over its fair share: {'; '.join(shares)}; "
        f"mean latency, shared over round-robin: {ratio(longer)}"
    )
    uneven = _beyond(socket.found, SHARE_MATTERS)
    if uneven and socket.than_coins != "more":
        uneven = None
    worse = _either(uneven, _beyond(longer, LATENCY_MATTERS))
    even = _beyond(turns.found, SHARE_MATTERS)
    return Verdict(4, evidence, Word.of(None if even is None else not even, worse))


def _beyond(found: Estimate, bar: float) -> bool | None:
    """Say whether a whole interval is above a bar; None if the bar is inside it, or it is no interval."""
    if not found.is_interval:
        return None
    return True if found.low > bar else False if found.high <= bar else None


def _either(one: bool | None, other: bool | None) -> bool | None:
    return True if True in (one, other) else None if None in (one, other) else False


def ratio(found: Estimate) -> units.Number:
    """Return a ratio with its interval, or of how many blocks it has only a range."""
    return worded(found, "{:.2f}".format)


def _span(shares: "pd.Series[float]") -> str:
    return " to ".join(dict.fromkeys([units.percent(shares.min()), units.percent(shares.max())]))


def _percent(difference: float | None) -> str:
    return "cannot be told" if difference is None else units.percent(difference)
