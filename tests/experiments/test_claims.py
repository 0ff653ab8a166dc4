"""Verdicts in words, and what flagged trials take from them."""

import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab.experiments.claims import CLAIMS, Verdict, Word, table, weighed

SOUND, SPOILT = {"throughput_rps": 20.0}, {"throughput_rps": 5.0, "valid": False}


def _fast(rows: pd.DataFrame) -> Verdict:
    if rows.empty:
        return Verdict(1)
    rate = rows["throughput_rps"].median()
    return Verdict(1, f"{rate:g}/s", Word.of(None if rate == 10 else bool(rate > 10)))


@pytest.mark.parametrize(
    ("rows", "word", "flagged"),
    [
        ([SOUND, SOUND], "holds", "0 of 2"),
        ([SOUND, SOUND, SPOILT], "holds", "1 of 3"),
        ([SPOILT, SPOILT, SOUND], "cannot be told here", "2 of 3"),
        ([SPOILT, SPOILT], "cannot be told here", "2 of 2"),
        ([SPOILT, {"throughput_rps": 4.0}], "does not hold here", "1 of 2"),
        ([SPOILT, SPOILT, {"throughput_rps": 4.0}], "cannot be told here", "2 of 3"),
        ([{"throughput_rps": 10.0}, SOUND, SOUND | {"valid": False}], "holds", "1 of 3"),
        (
            [{"throughput_rps": 10.0}, {"throughput_rps": 10.0, "valid": False}],
            "cannot be told here",
            "1 of 2",
        ),
    ],
)
def test_a_verdict_stands_unless_the_trials_that_are_not_flagged_say_otherwise_or_are_few(
    rows: list[dict[str, object]], word: str, flagged: str
) -> None:
    verdict = weighed(trials(*rows), _fast)
    assert verdict.word.value == word
    assert table([verdict])["flagged trials"].tolist() == [flagged]
    assert verdict.evidence == _fast(trials(*rows)).evidence, "all trials stay in the evidence"


def test_what_was_not_measured_has_no_trials_and_no_verdict() -> None:
    verdict = weighed(trials(SOUND).head(0), _fast)
    (row,) = table([verdict]).to_dict("records")
    assert row == {
        "": 1,
        "claim": CLAIMS[1],
        "measured here": "nothing",
        "flagged trials": "",
        "verdict": "cannot be told here",
    }


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ((True, True), Word.HOLDS),
        ((True, False), Word.IN_PART),
        ((True, None), Word.UNTOLD),
        ((None, None), Word.UNTOLD),
        ((False, None), Word.UNTOLD),
        ((False, False), Word.NOT_HERE),
    ],
)
def test_a_claim_of_several_parts_may_hold_in_part(parts: tuple[bool | None, ...], word: Word) -> None:
    assert Word.of(*parts) is Word.of(*reversed(parts)) is word
