"""What the notebooks share: names of servers, flags, and the number of workers."""

import pandas as pd
import pytest
from trial_rows import trials

from lab.cpus import available_cpus
from lab.experiments import common


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


def test_an_interval_where_there_is_one_else_the_range() -> None:
    values = pd.Series([3.0, 1.0, 2.0])
    assert common.whole_or_range((1.5, 2.5), values) == (1.5, 2.5)
    assert common.whole_or_range(None, values) == (1.0, 3.0)


def test_flagged_trials_are_counted_each_reason_once() -> None:
    assert "All 2 trials" in common.flagged(trials({}, {}))
    spoilt = [{"valid": False, "invalid_because": reason} for reason in ("late", "stolen", "late")]
    text = common.flagged(trials({}, *spoilt))
    assert "3 of 4 trials flagged" in text
    assert text.count("late") == text.count("stolen") == 1
