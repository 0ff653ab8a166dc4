"""The rules, each with the question behind it and its bar; what may be set; and the table of verdicts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from lab.checks import Count, Positive, Seconds, Whole
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.common import Workers, spread, worded
from lab.experiments.dispatch.answer import tail_name
from lab.experiments.dispatch.trials import TAILS, Utilisation
from lab.hotloop import MOST_TIMES, KernelName
from lab.models.simulation import waits
from lab.models.statistics import Estimate, samples_needed
from lab.servers.spec import DispatchName
from lab.study.estimates import linked, unlinked
from lab.study.parameters import DistinctOf, ListOf, RunToAddTo
from lab.study.parameters import Parameters as _Parameters
from lab.units import Number, counted, digits, percent, plain

EXPERIMENT = "folk-rules"

Name = Literal["workers", "counts", "replicas", "slow", "pool", "memory", "quota"]

MATTERS = 1.1
"""Throughputs, and amounts of memory, that differ by less than a tenth count as equal."""

TAIL_MATTERS = 1.25
"""A tail is longer if it is longer by a quarter: it rests on the few slowest requests of a trial."""

HELD_UP = 2.0
"""Others are held up if their tail is twice as long, or a request if it takes twice as long."""

MOST_SHOWN = 3.0
"""Times the largest median: what lies further out leaves the panel, so that medians can still be compared."""

MOST_SLOW = 0.01
"""If more than so many requests are held up, the p99 is: one of a hundred may be."""

FAR = 0.6
"""A quota is far from used up if loops use no more of it than this: two fifths are planned."""


@dataclass(frozen=True)
class Rule:
    """A rule that people give each other.

    question: what they ask. says: the rule, as a sentence that holds or does not. bar: when it does, which is
    said before anything is measured.
    """

    question: str
    says: str
    bar: str


RULES: dict[Name, Rule] = {
    "workers": Rule(
        "How many workers: 2 n + 1?",
        "Twice as many workers as CPUs, and one more, do better than one for each CPU",
        f"they do more work by a tenth, and the tail of one for each CPU is {TAIL_MATTERS:g} times theirs",
    ),
    "counts": Rule(
        "Why does my container start so many workers?",
        "The number of CPUs that a program is told is no more than what it can use",
        "under every quota, an API says no more than the CPUs that loops got steadily, rounded up",
    ),
    "replicas": Rule(
        "More workers, or more replicas?",
        "Replicas of one worker are as good as one server with as many workers",
        f"their tail over an ideal queue's is at most {TAIL_MATTERS:g} times as long, whoever chooses",
    ),
    "slow": Rule(
        "Why is my request queued while workers are idle?",
        "One slow request holds up no other, as long as another worker is free",
        "in two thirds of the events, at most a tenth of the requests due meanwhile wait, by each dispatch",
    ),
    "pool": Rule(
        "One CPU-heavy request blocks all others: thread or pool?",
        "A CPU-heavy request holds up the others more in the event loop or in a thread than in a pool",
        f"the others' tail is {HELD_UP:g} times that beside the pool",
    ),
    "memory": Rule(
        "Do workers have to be recycled?",
        "Workers grow with the requests that they answer",
        "the largest worker is a tenth larger afterwards than when it was warm, after a hundred requests",
    ),
    "quota": Rule(
        "Why is my p99 bad, with the CPU idle for most of the time?",
        "A quota makes the p99 bad long before it is used up",
        f"with at most {percent(FAR)} of it used, the share of requests that take {HELD_UP:g} times as long"
        f" as in one ideal queue is higher than without it, by more than {percent(MOST_SLOW)}",
    ),
}
"""The rules by name, in the order of the notebook."""


class Parameters(_Parameters):
    """What notebook 12 lets its reader set."""

    run: RunToAddTo
    rules: Annotated[ListOf[Name], Field(min_length=1)]
    workers: Workers
    overload_s: Seconds
    load: Utilisation
    tail_s: Seconds
    quotas: DistinctOf[Positive]
    dispatches: Annotated[ListOf[DispatchName], Field(min_length=1)]
    slow_s: Annotated[Seconds, Field(ge=2.5)]
    slow: Annotated[Count, Field(le=MOST_TIMES)]
    quick_s: Seconds
    requests: Annotated[Count, Field(le=10_000_000)]
    quota: Positive
    quota_s: Seconds
    quota_iterations: Count
    kernel: KernelName
    iterations: Count
    timeout_s: Seconds
    blocks: Count
    seed: Whole

    def asks(self, *names: Name) -> bool:
        """Say whether any of these rules is to be measured."""
        return not set(names).isdisjoint(self.rules)


@dataclass(frozen=True)
class Ruling:
    """What became of a rule here: an answer in a sentence, and a verdict, whose number is of `RULES`.

    `source` says whose trials it rests on, if not on this notebook's own. `number` is the one that says most.
    Numbers in texts are links to their estimates.
    """

    name: Name
    answer: str
    verdict: Verdict
    source: str = ""
    number: str = ""

    @property
    def rule(self) -> Rule:
        """The rule itself."""
        return RULES[self.name]

    @property
    def markdown(self) -> str:
        """The answer under its rule, for where it is measured."""
        source = f" {self.source}" if self.source else ""
        return f"**{self.rule.says}: {self.verdict.word}.** {self.answer}{source}"


def nothing(name: Name, why: str = "it was not measured") -> Ruling:
    """Return what becomes of a rule that could not be measured."""
    return Ruling(name, f"Cannot be told here: {why}.", Verdict(_number(name)))


def verdict(name: Name, parts: Iterable[bool | None], evidence: str) -> Verdict:
    """Return the verdict on a rule whose parts hold or not; without any part, nothing is known."""
    known = list(parts)
    return Verdict(_number(name), evidence, Word.of(*known)) if known else Verdict(_number(name))


_SPEED = {"loop_ratio", "loop_drift"}
"""Flags of the machine's speed, which is not in what is given in CPU times of the trial's own loops."""


def at_any_speed(trials: pd.DataFrame) -> pd.DataFrame:
    """Mark trials as valid that are flagged for nothing but the machine's speed."""
    sound = [not {flag.code for flag in flags} - _SPEED for flags in trials["flags"]]
    return trials.assign(valid=sound)


def by_trials(
    name: Name, trials: pd.DataFrame, judge: Callable[[pd.DataFrame], tuple[list[bool | None], str]]
) -> Verdict:
    """Judge by all of these trials, unless that hangs on flagged ones (`claims.weighed`).

    `judge` returns the parts of the rule, and the numbers behind them.
    """
    return weighed(trials, lambda mine: verdict(name, *judge(mine)))


def _number(name: Name) -> int:
    return get_args(Name).index(name) + 1


def exceeds(found: Estimate | None, bar: float) -> bool | None:
    """Say whether an estimate is above a bar, by its whole interval; None if that does not tell."""
    if found is None or not found.is_interval or found.low <= bar <= found.high:
        return None
    return found.low > bar


def with_tail(trials: pd.DataFrame) -> pd.DataFrame:
    """Add the rarest percentile of latency for which each of these trials has enough requests.

    tail_share: which it is, p50 if there are too few for any other. tail_s: its value. tail_loops: in CPU
    times of the trial's own loops, in which no machine's speed is; nan where there is none.
    """
    share = next((share for share in TAILS if samples_needed(share) <= trials["sent"].min()), 0.5)
    tail_s = trials[f"latency_p{share * 100:.0f}_s"].astype(float)
    loops = tail_s / trials["service_cpu_mean_s"].astype(float)
    return trials.assign(tail_share=share, tail_s=tail_s, tail_loops=loops)


def loops_s(requests: pd.DataFrame) -> NDArray[np.float64]:
    """Return the CPU time of each request's loop; the mean where it is unknown, nan if none was answered."""
    told_s = requests["service_cpu_s"].to_numpy(np.float64)
    known_s = told_s[np.isfinite(told_s)]
    return np.where(np.isfinite(told_s), told_s, known_s.mean() if len(known_s) else np.nan)


def ideal_s(requests: pd.DataFrame, workers: int, overhead_s: float = 0.0) -> NDArray[np.float64]:
    """Return how long each request would take in one ideal queue of so many workers, in seconds.

    It meets the same arrivals, and each request takes a worker for the CPU time of its loop, and for this
    overhead; so neither chance nor the machine's speed can explain a difference. All are infinite if none was
    answered.
    """
    takes_s = loops_s(requests) + overhead_s
    if not np.isfinite(takes_s).all():
        return np.full(len(requests), np.inf)
    return waits(requests["due_s"].to_numpy(float), takes_s, workers) + takes_s


def written(found: Estimate | None, write: Callable[[float], Number | str] = plain) -> Number:
    """Return an estimate with where it may lie: 1.93 (1.88 to 1.97); a dash for none."""
    return worded(found, write) if found else Number("–")


def times(found: Estimate | None, quantity: str = "", /, **of: object) -> str:
    """Write a ratio with where it may lie: 1.02 times (0.98 to 1.05); of a quantity, as a link to it."""
    if found is None:
        return "an unknown multiple of"
    value = lead(found, quantity, **of) if quantity else digits(found.value)
    return f"{value} times ({spread(found)})"


def lead(
    found: Estimate | None, quantity: str, write: Callable[[float], Number | str] = digits, /, **of: object
) -> str:
    """Write the value of an estimate alone, as a link to it; a dash for none."""
    return linked(str(write(found.value)), quantity, **of) if found else "–"


def told(
    found: Estimate | None, quantity: str, write: Callable[[float], Number | str] = digits, /, **of: object
) -> str:
    """Write an estimate with where it may lie, its value as a link to it; a dash for none."""
    return f"{lead(found, quantity, write, **of)} ({spread(found, write)})" if found else "–"


def tail_over(trials: pd.DataFrame) -> str:
    """Name the ratio of tails under random arrivals, as an estimate."""
    return f"{tail_name(trials)} at one rate, over another server's"


def table(rulings: Sequence[Ruling]) -> pd.DataFrame:
    """Put what became of the rules in a table, one per row."""
    return pd.DataFrame(
        {
            "people ask": [ruling.rule.question for ruling in rulings],
            "the rule": [ruling.rule.says for ruling in rulings],
            "verdict": [ruling.verdict.word.value for ruling in rulings],
            "measured here": [unlinked(ruling.answer) for ruling in rulings],
            "flagged trials": [
                f"{ruling.verdict.flagged} of {ruling.verdict.trials}" if ruling.verdict.trials else ""
                for ruling in rulings
            ],
        }
    )


def bars(p: Parameters) -> pd.DataFrame:
    """Put the rules that are asked for in a table, each with its bar."""
    asked = [rule for name, rule in RULES.items() if p.asks(name)]
    return pd.DataFrame({"the rule": [r.says for r in asked], "it holds if": [r.bar for r in asked]})


def answer(rulings: Sequence[Ruling]) -> str:
    """Say how many of the rules hold, and which, each with the number that says most."""
    by_word = {word: [r for r in rulings if r.verdict.word is word] for word in Word}
    found = [f"**{_WHICH[word]}**: {'; '.join(map(_said, mine))}." for word, mine in by_word.items() if mine]
    held = len(by_word[Word.HOLDS])
    return f"**Answer.** Of {counted(len(rulings), 'rule')}, {held} {_holds(held)}. {' '.join(found)}"


def _said(ruling: Ruling) -> str:
    return f"{ruling.rule.says} ({ruling.number})" if ruling.number else ruling.rule.says


def _holds(count: int) -> str:
    return "holds as it stands" if count == 1 else "hold as they stand"


_WHICH = {
    Word.HOLDS: "Holds here",
    Word.IN_PART: "Holds in part",
    Word.NOT_HERE: "Does not hold here",
    Word.UNTOLD: "Cannot be told here",
}


def measured(*groups: pd.DataFrame) -> pd.DataFrame:
    """Put the trials of several rules below each other; those of rules that were not asked for are none."""
    known = [group for group in groups if len(group)]
    return pd.concat(known, ignore_index=True) if known else pd.DataFrame({"flags": []})
