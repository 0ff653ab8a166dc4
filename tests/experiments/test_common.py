"""What the notebooks share: names of servers, flags, and the number of workers."""

import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab.errors import UsageError
from lab.experiments import common
from lab.flags import Flag
from lab.machine import available_cpus


def test_servers_are_named_by_what_tells_them_apart() -> None:
    rows = trials(
        {}, {"topology": "cluster", "workers": 1}, {"topology": "cluster", "workers": 2, "dispatch": "shared"}
    )
    named = common.with_server_names(rows)
    assert named["server"].tolist() == ["one process", "1 worker, round-robin", "2 workers, shared"]
    assert "server" not in rows, "the trials themselves stay as they were"


def test_cpus_means_a_worker_for_each() -> None:
    assert common.resolve("cpus") == available_cpus() >= 1
    assert common.resolve(3) == 3


@pytest.mark.parametrize(
    ("blocks", "words"),
    [(1, "range over 1 block,"), (5, "too few"), (6, "95 % bootstrap interval over 6 blocks")],
)
def test_a_bar_is_named_for_what_it_is(blocks: int, words: str) -> None:
    assert words in common.spread_is(blocks)


def _spoilt(*flags: tuple[Flag, ...]) -> list[dict[str, object]]:
    return [{"valid": False, "flags": found} for found in flags]


def test_flagged_trials_are_counted_by_kind_with_the_range_of_their_figures() -> None:
    assert common.flagged(trials({}, {})).startswith("None of the 2 trials is flagged")
    stolen = [Flag("steal", share, 0.02) for share in (0.09, 0.11)]
    drifted = [Flag("loop_drift", change, 0.15) for change in (-0.25, 0.2)]
    late = Flag("earlier_version")
    rows = _spoilt((late, stolen[0]), (stolen[1],), (drifted[0],), (drifted[1],), (late,))
    said = common.flagged(trials({}, *rows))
    assert said.startswith("**5 of 6 trials flagged** and kept: ")
    assert "hypervisor took 9 % to 11 % (2 trials)" in said
    assert "by -25% to +20% (2 trials)" in said
    assert "which kept no codes (2 trials)" in said


def _total(rows: pd.DataFrame) -> str:
    if rows.empty:
        raise UsageError("nothing to add up")
    return f"**Answer.** At most {rows['rate'].max():g}."


@pytest.mark.parametrize(
    ("rates", "flagged_rates", "text"),
    [
        ([1, 3], [], "**Answer.** At most 3."),
        ([1, 3], [2], "**Answer.** At most 3. Without the 1 flagged trial it is the same."),
        ([1], [2, 3], "**Answer.** At most 3. *Without the 2 flagged trials:* At most 1."),
        ([], [2], "**Answer.** At most 2. Without the 1 flagged trial there is too little to answer from."),
    ],
)
def test_an_answer_says_what_it_is_without_flagged_trials(
    rates: list[int], flagged_rates: list[int], text: str
) -> None:
    rows = [*({"rate": rate} for rate in rates), *({"rate": rate, "valid": False} for rate in flagged_rates)]
    assert common.both_ways(trials(*rows), _total) == text
