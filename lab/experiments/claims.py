"""The article's claims, each with what was measured about it here and the verdict that follows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import pandas as pd


class Word(StrEnum):
    """What a verdict says."""

    HOLDS = "holds"
    IN_PART = "holds in part"
    NOT_HERE = "does not hold here"
    UNTOLD = "cannot be told here"


def told(holds: bool | None) -> Word:
    """Return the word for a claim of one part; None is what the evidence cannot tell."""
    return Word.UNTOLD if holds is None else Word.HOLDS if holds else Word.NOT_HERE


def of_parts(*parts: bool | None) -> Word:
    """Return the word for a claim of several parts: it holds in part if some hold and some do not."""
    if False in parts:
        return Word.IN_PART if True in parts else Word.NOT_HERE
    return told(None if None in parts else True)


@dataclass(frozen=True)
class Verdict:
    """A claim by its number in the article, in our words; what was measured about it; the verdict.

    `evidence` is numbers with their intervals, "" if nothing was measured. `trials` says how many trials it
    is from, and `flagged` how many of them are flagged.
    """

    number: int
    claim: str
    evidence: str = ""
    word: Word = Word.UNTOLD
    trials: int = 0
    flagged: int = 0


def weighed(trials: pd.DataFrame, judge: Callable[[pd.DataFrame], Verdict]) -> Verdict:
    """Judge by all of these trials; a verdict that those without a flag would not give cannot be told."""
    verdict = judge(trials)
    if not verdict.evidence:
        return verdict
    sound = trials[trials["valid"]]
    word = verdict.word if judge(sound).word is verdict.word else Word.UNTOLD
    return replace(verdict, word=word, trials=len(trials), flagged=len(trials) - len(sound))


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Put verdicts in a table, a row each."""
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
