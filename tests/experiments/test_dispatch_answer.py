"""What is said of the arrangements: as much as the blocks can tell, and no more."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab import units
from lab.experiments.claims import Word
from lab.experiments.dispatch import answer as words
from lab.experiments.dispatch import figure as views
from lab.experiments.dispatch.theory import queue_of

NEVER_ALIKE = (0.97, 1.03, 1.0, 0.99, 1.02, 1.01)
"""What each block does to a trial by itself."""


def measured(*arrangements: dict[str, Any], blocks: int = 6, **common: Any) -> pd.DataFrame:
    """Make a trial per arrangement and block whose mean latency is `excess` times ideal, or nearly."""
    defaults = {"arrivals": "poisson", "load": 0.6, "workers": 2, "topology": "cluster", "pool": "process"}
    rows = [
        {"block": block, "place": place, "worker_max_share": 0.5, "utilisation": 0.65, **factors}
        | {"trial_id": f"{place}.{block}", "excess": factors["excess"] * NEVER_ALIKE[(block + place) % 6]}
        for place, factors in enumerate(arrangements)
        for block in range(1, blocks + 1)
    ]
    made = trials(
        *rows, **defaults | {"keepalive": False, "tail_share": 0.9, "tail": 2.0, "p50": 1.0} | common
    )
    theory = {
        "mean_theory_s": 0.08,
        "mean_ideal_s": 0.07,
        "tail_s": 0.2,
        "tail_theory_s": 0.2,
        "cost_s": 0.1,
        "overhead_s": 0.001,
    }
    queues = [queue_of(factors) for factors in made.to_dict("records")]
    made["queue"] = pd.Series(queues, made.index, dtype=object)
    return made.assign(**theory)


ALL = [
    {"dispatch": name, "excess": excess}
    for name, excess in {"shared": 1.6, "reuseport": 2.4, "round-robin": 1.22, "least-busy": 1.2}.items()
]


def test_the_answer_names_what_is_worse_and_what_is_as_good() -> None:
    text = words.answer(measured(*ALL))
    assert "**Requests take longer with shared (1.33 (1.3" in text
    assert "than with least-busy.**" in text
    assert "They take as long with round-robin." in text
    assert text.endswith(f"at a utilisation of {units.percent(0.65)}, paired over 6 blocks.")


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_too_few_blocks_name_no_winner_however_far_apart_they_are(blocks: int) -> None:
    made = measured(*ALL, blocks=blocks)
    assert "**These trials cannot tell which arrangement is best.**" in words.answer(made)
    assert set(words.standings_table(made)["requests take"]) == {"the best", "cannot be told"}


def test_an_interval_that_reaches_what_does_not_matter_tells_nothing() -> None:
    noisy = measured(ALL[0] | {"excess": 1.2}, ALL[3])
    noisy.loc[noisy["dispatch"] == "shared", "excess"] *= [0.7, 1.5, 0.8, 1.4, 0.9, 1.6]
    assert words.standings_table(noisy)["requests take"].tolist() == ["the best", "cannot be told"]


def test_where_nothing_is_slower_that_is_said() -> None:
    assert "**No arrangement is slower than least-busy by 10 % or more.**" in words.answer(measured(*ALL[2:]))


def test_a_trial_without_a_steady_state_is_left_out_and_counted() -> None:
    made = measured(*ALL)
    made.loc[(made["dispatch"] == "shared") & (made["block"] == 2), ["utilisation", "excess"]] = [1.0, 99.0]
    table = words.standings_table(made).set_index("arrangement")
    assert table["left out"].to_dict() == {name: int(name == "shared") for name in table.index}
    assert (table.loc["shared", "blocks"], table.loc["shared", "requests take"]) == (5, "cannot be told")
    (shared,) = [s for s in words.standings(made) if s.name == "shared"]
    assert shared.excess.high < 2


@pytest.mark.parametrize("left", [{"workers": 1}, {"utilisation": 1.2}, {"topology": "single"}])
def test_nothing_to_choose_is_said(left: dict[str, Any]) -> None:
    made = measured(*({**factors, **left} for factors in ALL))
    assert "Nothing to compare" in words.answer(made)
    table = words.standings_table(made)
    assert set(table.get("blocks", ())) <= {0}
    assert set(table.get("requests take", ())) <= {"cannot be told"}
    assert views.ranking_figure(made, pd.DataFrame()) is None
    assert words.verdict(made).evidence == ""


def test_one_arrangement_alone_leaves_no_choice() -> None:
    assert "Nothing to compare" in words.answer(measured(ALL[3]))
    assert words.verdict(measured(ALL[3])).evidence == ""


def test_kept_connections_are_compared_with_new_ones_of_the_same_arrangement() -> None:
    kept = ALL[2] | {"excess": 2.44, "keepalive": True}
    (row,) = words.kept_table(measured(*ALL, kept)).to_dict("records")
    assert (row["arrangement"], row["blocks"]) == ("round-robin", 6)
    assert str(row["kept over new connections"]).startswith("2.0")
    assert words.kept_table(measured(*ALL)).empty


@pytest.mark.parametrize(
    ("turns", "shared", "word"),
    [
        ({}, {"excess": 1.6}, Word.HOLDS),
        ({}, {"worker_max_share": 0.7}, Word.HOLDS),
        ({}, {}, Word.IN_PART),
        ({"worker_max_share": 0.9}, {"excess": 1.6}, Word.IN_PART),
        ({"worker_max_share": 0.9}, {"worker_max_share": 0.9}, Word.NOT_HERE),
    ],
)
def test_claim_4_is_judged_by_shares_and_waits(
    turns: dict[str, Any], shared: dict[str, Any], word: Word
) -> None:
    rows = (ALL[2] | {"excess": 1.2, **turns}, ALL[0] | {"excess": 1.2, **shared})
    assert words.verdict(measured(*rows)).word is word
    flagged = measured(*rows)
    flagged.loc[0, "valid"] = False  # five blocks are left, too few
    assert words.verdict(flagged).word is Word.UNTOLD
    assert words.verdict(measured(*rows, blocks=5)).word is Word.UNTOLD


def test_theory_has_a_row_for_each_arrangement_and_load_constant_rates_last() -> None:
    made = measured(*({**factors, "load": load} for load in (0.8, 0.3) for factors in ALL))
    both = pd.concat([made.assign(arrivals="constant"), made])
    table = views.theory_table(both)
    assert table["planned"].drop_duplicates().tolist() == [
        f"{arrivals}, {units.percent(load)}" for arrivals in ("poisson", "constant") for load in (0.3, 0.8)
    ]
    assert len(table) == 4 * len(ALL)
    assert set(table["trials"]) == {6}
    assert set(table["ratio"]) == {units.digits(0.1 / 0.08)}


def test_threads_beyond_what_the_gil_leaves_have_no_latency_to_compare() -> None:
    threads = {"topology": "offload", "pool": "thread", "excess": 1.0, "latency_mean_s": 0.3}
    numba, python = {**threads, "kernel": "numba"}, {**threads, "utilisation": 0.99}
    table = words.threads_table(measured(numba, python)).set_index("pool")
    assert table["mean latency, service times"].to_dict() == {
        "threads, numba": "3.00",
        "threads, python": "–",
    }


def test_what_every_arrangement_suffers_in_a_block_cancels() -> None:
    made = measured(*ALL[:2], ALL[3])
    calm = words.standings(made)
    made["excess"] *= made["block"].map(dict(enumerate([1, 9, 2, 5, 3, 7], start=1)))
    disturbed = words.standings(made)
    assert [s.name for s in disturbed] == ["least-busy", "shared", "reuseport"]
    assert [s.over_best.value for s in disturbed] == pytest.approx([s.over_best.value for s in calm])
    assert disturbed[0].excess.high > 3 * calm[0].excess.high


def test_shares_are_ranked_within_a_trial_and_failures_count_for_nobody() -> None:
    requests = pd.DataFrame({"trial_id": "t", "worker": [7.0, 7.0, 7.0, 8.0, np.nan]})
    assert views.shares(requests).tolist() == [0.75, 0.25]
    other = requests.assign(trial_id="u", worker=[8.0, 8.0, 8.0, 8.0, 7.0])
    assert views.shares(pd.concat([requests, other])).tolist() == pytest.approx([0.775, 0.225])


def test_figures_say_in_their_titles_what_the_trials_can_tell() -> None:
    made = measured(*ALL)
    requests = pd.DataFrame(
        {"trial_id": name, "worker": worker} for name in made["trial_id"] for worker in (7.0, 8.0)
    )
    told, not_told = (views.ranking_figure(chosen, requests) for chosen in (made, made[made["block"] < 4]))
    assert told
    assert not_told
    assert told.get_suptitle() == "Random arrivals: requests take longer with shared and reuseport"
    assert "longer with" not in not_told.get_suptitle()
    latency = views.latency_figure(made, "poisson")
    assert latency
    assert "mean latency is 1.25 times theory's" in latency.get_suptitle()
    assert views.latency_figure(made, "constant") is None


def test_a_machine_that_is_far_too_busy_is_drawn_with_few_ticks() -> None:
    made = measured(*ALL).assign(utilisation=123.0)
    figure = views.latency_figure(made, "poisson")
    assert figure
    assert len(figure.axes[0].get_xticks()) < 10
