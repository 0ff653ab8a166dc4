"""The article's claims, each with what was measured about it here and the verdict that follows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd


@dataclass(frozen=True)
class Verdict:
    """A claim by its number in the article, in our words; the evidence; whether it holds.

    `holds` is None where the evidence cannot tell, or there is none. `trials` says how many trials the
    evidence is from, and `flagged` how many of them are flagged; `rests_on_flagged`, that without those the
    verdict would be another one.
    """

    number: int
    claim: str
    evidence: str = ""
    holds: bool | None = None
    trials: int = 0
    flagged: int = 0
    rests_on_flagged: bool = False

    @property
    def word(self) -> str:
        """What a table says of it."""
        if self.rests_on_flagged:
            return "cannot be told: rests on flagged trials"
        if self.holds is None:
            return "cannot be told" if self.evidence else "not measured"
        return "holds" if self.holds else "does not hold here"


def weighed(trials: pd.DataFrame, judge: Callable[[pd.DataFrame], Verdict]) -> Verdict:
    """Judge by all of these trials, and see whether those that are not flagged say the same by themselves."""
    verdict = judge(trials)
    if not verdict.evidence:
        return verdict
    sound = trials[trials["valid"]]
    rests = len(sound) < len(trials) and verdict.holds is not None and judge(sound).holds is not verdict.holds
    return replace(verdict, trials=len(trials), flagged=len(trials) - len(sound), rests_on_flagged=rests)


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Put verdicts in a table, a row each."""
    return pd.DataFrame(
        {
            "": [verdict.number for verdict in verdicts],
            "claim": [verdict.claim for verdict in verdicts],
            "measured here": [verdict.evidence for verdict in verdicts],
            "flagged trials": [
                f"{verdict.flagged} of {verdict.trials}" if verdict.evidence else "" for verdict in verdicts
            ],
            "verdict": [verdict.word for verdict in verdicts],
        }
    )
