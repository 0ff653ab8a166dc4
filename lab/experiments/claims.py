"""The article's claims, each with what was measured about it here and the verdict that follows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import pandas as pd

CLAIMS = {
    1: "One process uses one core, however many the machine has",
    2: "Under the article's load one process falls far behind, and the cluster keeps up",
    3: "Clustering multiplies the rate that is answered, by less than the number of workers",
    4: "Taking turns and accepting from one shared socket: the first balances well, the second not always",
    5: "A request that blocks its worker blocks only that one; others go on",
    6: "A worker that dies is replaced, and the service goes on",
    7: "Workers can be recycled one at a time with minimal or no downtime",
    8: "Given less than one core, clustering makes no difference",
    9: "A process manager does the same, and a load balancer before several machines goes further",
}
"""The article's claims by number, in our words."""


class Word(StrEnum):
    """What a verdict says."""

    HOLDS = "holds"
    IN_PART = "holds in part"
    NOT_HERE = "does not hold here"
    UNTOLD = "cannot be told here"

    @staticmethod
    def of(*parts: bool | None) -> "Word":
        """Return the word for a claim whose parts hold or not; None is a part that cannot be told."""
        if None in parts:
            return Word.UNTOLD
        return Word.HOLDS if all(parts) else Word.IN_PART if any(parts) else Word.NOT_HERE


@dataclass(frozen=True)
class Verdict:
    """A claim by its number in `CLAIMS`, what was measured about it, and the verdict.

    `evidence` is numbers with their intervals, "" if nothing was measured. `trials` is how many trials it
    comes from, and `flagged` how many of them are flagged. `about` names what it was judged for, if not all,
    `experiment` whose trials these are, where verdicts of several stand together.
    """

    number: int
    evidence: str = ""
    word: Word = Word.UNTOLD
    about: str = ""
    trials: int = 0
    flagged: int = 0
    experiment: str = ""

    @property
    def claim(self) -> str:
        """The claim in words, and what it was judged for."""
        return f"{CLAIMS[self.number]} ({self.about})" if self.about else CLAIMS[self.number]


def weighed(trials: pd.DataFrame, judge: Callable[[pd.DataFrame], Verdict]) -> Verdict:
    """Judge by all of these trials: flags mark, but a verdict that hangs on flagged trials cannot be told.

    It does if the trials without a flag say otherwise, are less than half, or lack what is judged. That they
    alone are too few blocks for an interval does not count against it.
    """
    verdict = judge(trials)
    if not verdict.evidence:
        return verdict
    sound = trials[trials["valid"]]
    without = judge(sound)
    enough = bool(without.evidence) and 2 * len(sound) >= len(trials)
    agree = enough and without.word in (verdict.word, Word.UNTOLD)
    word = verdict.word if agree else Word.UNTOLD
    return replace(verdict, word=word, trials=len(trials), flagged=len(trials) - len(sound))


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Put verdicts in a table, one per row."""
    return pd.DataFrame(
        {
            "": [verdict.number for verdict in verdicts],
            "claim": [verdict.claim for verdict in verdicts],
            "measured here": [verdict.evidence or "nothing" for verdict in verdicts],
            "flagged trials": [
                f"{verdict.flagged} of {verdict.trials}" if verdict.trials else "" for verdict in verdicts
            ],
            "verdict": [verdict.word.value for verdict in verdicts],
        }
    )
