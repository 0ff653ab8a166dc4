"""The article's claims, each with what was measured about it here and the verdict that follows."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Verdict:
    """A claim by its number in the article, in our words; the evidence; whether it holds (None: unknown)."""

    number: int
    claim: str
    evidence: str = ""
    holds: bool | None = None

    @property
    def word(self) -> str:
        """What a table says of it."""
        return {None: "not measured", True: "holds", False: "does not hold here"}[self.holds]


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Put verdicts in a table, a row each."""
    return pd.DataFrame(
        {
            "": [verdict.number for verdict in verdicts],
            "claim": [verdict.claim for verdict in verdicts],
            "measured here": [verdict.evidence for verdict in verdicts],
            "verdict": [verdict.word for verdict in verdicts],
        }
    )
