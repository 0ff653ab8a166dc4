"""What is said of ways to spread requests: as much as the blocks can tell, and no more."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab import units
from lab.experiments import common
from lab.experiments.dispatch import answer as words
from lab.experiments.dispatch import figure as views
from lab.experiments.dispatch import ranking as ranking
from lab.experiments.dispatch.trials import KEPT, NEW

NEVER_ALIKE = (0.97, 1.03, 1.0, 0.99, 1.02, 1.01)
"""What each block does to a trial by itself."""


def measured(*ways: dict[str, Any], blocks: int = 6, **common: Any) -> pd.DataFrame:
    """Make a trial per way and block whose mean latency is `excess` times ideal, give or take a little."""
    defaults = {"arrivals": "poisson", "load": 0.6, "workers": 2, "topology": "cluster", "pool": "process"}
    rows = [
        {"block": block, "place": place, "worker_max_share": 0.5, "utilisation": 0.65, **way}
        | {"trial_id": f"{place}.{block}", "excess": way["excess"] * NEVER_ALIKE[(block + place) % 6]}
        for place, way in enumerate(ways)
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
    return made.assign(**theory, connections=made["keepalive"].map({True: KEPT, False: NEW}))


WAYS = [
    {"server": "shared", "excess": 1.6},
    {"server": "reuseport", "excess": 2.4},
    {"server": "round-robin", "excess": 1.22},
    {"server": "least-busy", "excess": 1.2},
]


def test_the_answer_names_what_is_worse_what_is_as_good_and_the_simplest_of_that() -> None:
    text = words.answer(measured(*WAYS))
    assert "**Requests take longer with shared (1.33 times, 1.3" in text
    assert "and reuseport (1.96 times, 1.9" in text
    assert "than with least-busy.**" in text
    assert f"As good as least-busy, within {units.percent(0.1)}: round-robin." in text
    assert "Of those as good as each other, **round-robin** has the fewest parts." in text
    assert "95 % bootstrap interval over 6 blocks" in text
    assert f"at a utilisation of {units.percent(0.65)}" in text
    assert "cannot tell" not in text


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_too_few_blocks_name_no_winner_however_far_apart_the_ways_are(blocks: int) -> None:
    text = words.answer(measured(*WAYS, blocks=blocks))
    assert text.startswith(
        "**Answer.** **These trials cannot tell which way is best.** A comparison needs 6 "
    )
    assert "fewest parts" not in text
    assert "too few for a confidence interval" in text


def test_ways_whose_interval_reaches_one_are_not_told_apart() -> None:
    noisy = measured({"server": "shared", "excess": 1.2}, {"server": "least-busy", "excess": 1.2})
    noisy.loc[noisy["server"] == "shared", "excess"] *= [0.7, 1.5, 0.8, 1.4, 0.9, 1.6]
    text = words.answer(noisy)
    assert "cannot tell which way is best" in text
    assert "fewest parts" not in text
    assert "A comparison needs" not in text


def test_a_trial_without_a_steady_state_is_left_out_and_counted() -> None:
    made = measured(*WAYS)
    made.loc[(made["server"] == "shared") & (made["block"] == 2), ["utilisation", "excess"]] = [1.0, 99.0]
    (shared,) = [s for s in ranking.standings(made) if s.way == "shared"]
    assert shared.excess.blocks == 5
    assert shared.excess.high < 2
    text = words.answer(made)
    assert f"1 trial at a utilisation of {units.percent(1)} or more by its own" in text
    assert "Not told apart from least-busy: shared." in text
    assert "6 blocks with a steady state, and shared had fewer. Of those as good" in text
    assert "or the range where fewer, down to 5, had a steady state" in text


def test_what_every_way_suffers_in_a_block_cancels() -> None:
    made = measured(*WAYS[:2], WAYS[3])
    calm = ranking.standings(made)
    made["excess"] *= made["block"].map(dict(enumerate([1, 9, 2, 5, 3, 7], start=1)))
    disturbed = ranking.standings(made)
    assert [s.way for s in disturbed] == ["least-busy", "shared", "reuseport"]
    assert [s.over_best.value for s in disturbed] == pytest.approx([s.over_best.value for s in calm])
    assert disturbed[0].excess.high > 3 * calm[0].excess.high


@pytest.mark.parametrize("left", [{"workers": 1}, {"utilisation": 1.2}, {"topology": "single"}])
def test_nothing_to_choose_is_said(left: dict[str, Any]) -> None:
    made = measured(*({**way, **left} for way in WAYS))
    assert "No way was measured in a steady state with several workers" in words.answer(made)
    assert views.ranking_figure(made, pd.DataFrame()) is None
    assert views.ranking_caption(made).endswith("random arrivals.")


def test_one_way_alone_is_named() -> None:
    assert "Only least-busy was measured" in words.answer(measured(WAYS[3]))


@pytest.mark.parametrize(
    ("blocks", "excess", "said"),
    [
        (6, 2.4, "it is longer with round-robin."),
        (6, 1.2, ")."),
        (2, 2.4, "(2 blocks, too few to tell)."),
    ],
)
def test_kept_connections_are_compared_with_new_ones_of_the_same_way(
    blocks: int, excess: float, said: str
) -> None:
    kept = {"server": "round-robin", "excess": excess, "keepalive": True}
    text = words.on_kept(measured(*WAYS, kept, blocks=blocks))
    assert "as a multiple of that with new ones: round-robin " in text
    assert text.endswith(said)
    assert words.on_kept(measured(*WAYS)) == ""


@pytest.mark.parametrize(
    ("turns", "shared", "holds"),
    [
        ({}, {"excess": 1.6}, True),
        ({}, {"worker_max_share": 0.7}, True),
        ({}, {}, False),
        ({"worker_max_share": 0.9}, {"excess": 1.6}, False),
    ],
)
def test_claim_4_is_judged_by_shares_and_waits(
    turns: dict[str, Any], shared: dict[str, Any], holds: bool
) -> None:
    rows = ({"server": "round-robin", "excess": 1.2, **turns}, {"server": "shared", "excess": 1.2, **shared})
    assert words.verdict(measured(*rows)).holds is holds
    flagged = measured(*rows)
    flagged.loc[0, "valid"] = False
    assert words.verdict(flagged).word == "cannot be told: rests on flagged trials"
    undecided = words.verdict(measured(*rows, blocks=5))
    assert undecided.holds is None
    assert "range over 5 blocks" in undecided.evidence


@pytest.mark.parametrize("left", [{"workers": 1}, {"utilisation": 1.2}])
def test_a_claim_without_its_trials_has_no_evidence(left: dict[str, Any]) -> None:
    assert words.verdict(measured(WAYS[3])).evidence == ""
    assert words.verdict(measured(*WAYS)).evidence
    assert words.verdict(measured(*({**way, **left} for way in WAYS))).evidence == ""


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.99, "so p99 is shown."), (0.9, "so p90 is shown instead."), (0.5, "so only medians are shown.")],
)
def test_how_many_requests_a_percentile_has_and_needs_is_said(share: float, said: str) -> None:
    text = words.samples(measured(WAYS[0], {**WAYS[1], "sent": 40}, tail_share=share))
    assert text.startswith("A p99 needs 299 requests, and a trial here has 40 to 100, ")
    assert said in text


def test_the_answer_is_given_without_flagged_trials_too() -> None:
    made = measured(*WAYS)
    made.loc[(made["block"] == 2), "valid"] = False
    text = common.both_ways(made, words.answer)
    assert text.startswith("**Answer.** **Requests take longer with shared")
    assert "\n\n*Without the 4 flagged trials:* **These trials cannot tell which way is best.**" in text
    nothing = common.both_ways(made.assign(valid=False), words.answer)
    assert "*Without the 24 flagged trials:* No way was measured in a steady state" in nothing


def test_theory_has_a_row_for_each_way_and_load_constant_rates_last() -> None:
    made = measured(*({**way, "load": load} for load in (0.8, 0.3) for way in WAYS))
    both = pd.concat([made.assign(arrivals="constant"), made])
    table = views.theory_table(both)
    heads = table[["arrivals", "planned"]].drop_duplicates().to_numpy().tolist()
    shares = [units.percent(0.3), units.percent(0.8)]
    assert heads == [[arrivals, share] for arrivals in ("poisson", "constant") for share in shares]
    assert len(table) == 4 * len(WAYS)
    assert set(table["trials"]) == {6}


def test_the_reading_says_what_theory_counts_on_top_of_loops() -> None:
    assert words.reading(measured(*WAYS[:2])).endswith("alike: shared 1.00 ms and reuseport 1.00 ms.")


def test_threads_beyond_what_the_gil_leaves_have_no_latency_to_compare() -> None:
    threads = {"topology": "offload", "pool": "thread", "excess": 1.0, "latency_mean_s": 0.3}
    text = words.gil(
        measured(
            {**threads, "server": "threads, numba"},
            {**threads, "server": "threads, python", "utilisation": 0.99},
        )
    )
    numba, python = text.split("*threads, python*")
    assert numba.strip().endswith("the mean latency was 3.00 service times.")
    assert python.endswith("latency only tells how long the trial was.")
    assert "service times" not in python


def test_shares_are_ranked_within_a_trial_and_failures_count_for_nobody() -> None:
    requests = pd.DataFrame(
        {"trial_id": "t", "server": "shared", "keepalive": False, "worker": [7.0, 7.0, 7.0, 8.0, np.nan]}
    )
    found = views.shares(requests).set_index("rank")["share"]
    assert found.to_dict() == {1: 0.75, 2: 0.25}


def test_figures_say_in_their_titles_what_the_trials_can_tell() -> None:
    made = measured(*WAYS)
    requests = pd.DataFrame(
        {"trial_id": name, "server": server, "keepalive": False, "worker": worker}
        for name, server in zip(made["trial_id"], made["server"], strict=True)
        for worker in (7.0, 8.0)
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
