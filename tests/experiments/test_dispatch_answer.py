"""What is said of the arrangements: as much as the blocks can tell, and no more."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.html_page import unlinked
from helpers.trial_rows import trials

from lab import units
from lab.experiments.claims import Word
from lab.experiments.dispatch import answer as words
from lab.experiments.dispatch import figure as views
from lab.experiments.dispatch.trials import queue_of
from lab.figures import title_of
from lab.models.statistics import busiest_by_chance, estimate

NEVER_ALIKE = (0.99, 1.01, 1.0, 0.995, 1.005, 1.002)
"""What each block does to a trial by itself."""


def measured(*arrangements: dict[str, Any], blocks: int = 6, **common: Any) -> pd.DataFrame:
    """Make a trial per arrangement and block, whose mean latency is `times` .1 s, or nearly."""
    defaults = {"arrivals": "poisson", "load": 0.6, "workers": 2, "topology": "cluster", "pool": "process"}
    rows = [
        {"block": block, "place": place, "busiest": 1.0, "utilisation": 0.65, **factors}
        | {"latency_mean_s": 0.1 * factors["times"] * NEVER_ALIKE[(block + place) % 6]}
        for place, factors in enumerate(arrangements)
        for block in range(1, blocks + 1)
    ]
    made = trials(*rows, **defaults | {"keepalive": False, "tail_share": 0.9, "connections": 60} | common)
    queues = [queue_of(factors) for factors in made.to_dict("records")]
    coins = [2 * busiest_by_chance([1] * 60, 2, seed=block) for block in made["block"]]
    return made.assign(
        queue=pd.Series(queues, made.index, dtype=object),
        coins=pd.Series(coins, made.index),
        own_s=0.1,
        tail_s=2 * made["latency_mean_s"],
        theory_s=0.08,
        theory_tail_s=0.2,
        over_ideal=made["latency_mean_s"] / 0.1,
        extra_s=0.001,
    )


ALL = [
    {"dispatch": name, "times": times}
    for name, times in {"round-robin": 1.2, "shared": 1.6, "least-busy": 1.0, "reuseport": 1.2}.items()
]


def test_the_answer_names_what_takes_longer_less_and_as_long_as_the_reference() -> None:
    text = unlinked(words.answer(measured(*ALL)))
    raw, over_ideal = text.split("With the speed of the loops taken out")
    for part in (raw, over_ideal):
        assert "**longer** with shared 1.33 (1.3" in part
        assert "**less time** with least-busy 0.8" in part
        assert "**as long** with reuseport 1.00 (0.9" in part
    assert raw.startswith("**Answer.** Compared with round-robin, requests take ")
    assert "be told" not in text
    assert text.endswith(
        f"paired over 6 blocks, under random arrivals at a utilisation of {units.percent(0.65)}."
    )


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_too_few_blocks_tell_nothing_however_far_apart_they_are(blocks: int) -> None:
    made = measured(*ALL, blocks=blocks)
    assert words.answer(made).count("none of the other 3 can be told to be faster or slower.") == 1
    alone = words.answer(measured(*ALL[:2], blocks=blocks))
    assert alone.count("shared cannot be told to be faster or slower.") == 1
    assert "longer" not in words.answer(made)
    assert set(words.comparison_table(made)["requests take"]) == {"the reference", "cannot be told"}
    assert set(words.shares_table(made)["uneven, compared with coins"]) == {"cannot be told"}


def test_an_interval_that_reaches_what_does_not_matter_tells_nothing() -> None:
    noisy = measured(*ALL[:2])
    noisy.loc[noisy["dispatch"] == "shared", "latency_mean_s"] *= [0.77, 1.5, 0.8, 1.4, 0.9, 1.6]
    row = words.comparison_table(noisy).iloc[1]
    assert row["requests take"] == "cannot be told"
    assert float(row["smallest difference to be seen"].removesuffix(" %")) > 30


def test_what_does_not_matter_is_seldom_told_and_what_matters_twice_is_told_often() -> None:
    random = np.random.default_rng(8)

    def told(ratio: float) -> list[str | None]:
        return [words.told(estimate(ratio * np.exp(random.normal(0, 0.1, 6)))) for _ in range(400)]

    assert told(words.LATENCY_MATTERS).count("more") <= 0.05 * 400
    assert told(1 / words.LATENCY_MATTERS).count("less") <= 0.05 * 400
    assert told(1.4).count("more") >= 0.9 * 400


def test_no_trial_is_left_out_for_what_came_of_it() -> None:
    made = measured(*ALL)
    made.loc[(made["dispatch"] == "shared") & (made["block"] == 2), ["utilisation", "valid"]] = [1.4, False]
    table = words.comparison_table(made).set_index("arrangement")
    assert set(table["blocks"]) == {6}
    assert table.loc["shared", "own utilisation"] == f"{units.percent(0.65)} to {units.percent(1.4)}"


@pytest.mark.parametrize("left", [{"workers": 1}, {"topology": "single"}, {"arrivals": "constant"}])
def test_nothing_to_choose_is_said(left: dict[str, Any]) -> None:
    made = measured(*({**factors, **left} for factors in ALL))
    assert "Nothing to compare" in words.answer(made)
    for table in (words.comparison_table(made), words.shares_table(made), words.threads_table(made)):
        assert len(table) == 1
    assert views.comparison_figure(made) is None
    assert words.verdict(made).evidence == ""


def test_one_arrangement_alone_leaves_no_choice() -> None:
    assert "Nothing to compare" in words.answer(measured(ALL[0]))
    assert words.verdict(measured(ALL[0])).evidence == ""
    assert views.comparison_figure(measured(ALL[0])) is None


def test_what_has_no_block_with_the_reference_is_not_compared() -> None:
    made = measured(*ALL)
    alone = made[(made["dispatch"] == "shared") != (made["block"] < 4)]
    assert "shared" not in words.answer(alone)
    assert words.verdict(alone).evidence == ""
    assert "Nothing to compare" in words.answer(made.assign(latency_mean_s=np.nan))


def test_what_is_stated_is_what_the_tables_say() -> None:
    found = {(one.quantity, one.factors): one for one in words.estimates(measured(*ALL))}
    assert len(found) == 2 * 3 + 4
    ratio = found["mean latency over round-robin's", "arrangement=shared"]
    assert ratio.compares
    assert (ratio.value, ratio.n) == (words.comparisons(measured(*ALL))[1].mean.value, 6)
    assert found["busiest worker over its fair share", "arrangement=round-robin"].value == 1


def test_kept_connections_are_one_more_arrangement() -> None:
    kept = ALL[0] | {"times": 2.4, "keepalive": True}
    table = words.comparison_table(measured(*ALL, kept)).set_index("arrangement")
    assert table.loc["round-robin (kept)", "requests take"] == "longer"
    assert str(table.loc["round-robin (kept)", "mean latency"]).startswith("1.99 (1.9")


def test_what_every_arrangement_suffers_in_a_block_cancels_and_pairing_is_worth_it() -> None:
    made = measured(*ALL[:2])
    (_, calm), pairing = words.comparisons(made), words.comparisons(made)[1].pairing
    made["latency_mean_s"] *= made["block"].map(dict(enumerate([1, 9, 2, 5, 3, 7], start=1)))
    _, disturbed = words.comparisons(made)
    assert disturbed.each == pytest.approx(calm.each)
    assert disturbed.pairing > 1000 > pairing


def test_shares_stand_beside_what_coins_give() -> None:
    made = measured(ALL[0], ALL[1] | {"busiest": 1.4}, ALL[2] | {"busiest": 1.1})
    table = words.shares_table(made).set_index("arrangement")["uneven, compared with coins"]
    assert table.to_dict() == {"round-robin": "less", "shared": "more", "least-busy": "as much"}


def test_coins_seldom_find_themselves_uneven() -> None:
    random, made = np.random.default_rng(5), measured(ALL[0])
    found = []
    for _ in range(60):
        made["busiest"] = random.binomial(60, 0.5, 6) / 30
        made["busiest"] = made["busiest"].where(made["busiest"] >= 1, 2 - made["busiest"])
        share = words.share(made)
        assert share
        found.append(share.than_coins)
    assert found.count("more") <= 8


@pytest.mark.parametrize(
    ("turns", "shared", "word"),
    [
        ({}, {"times": 1.6}, Word.HOLDS),
        ({}, {"busiest": 1.4}, Word.HOLDS),
        ({}, {}, Word.IN_PART),
        ({}, {"busiest": 1.12}, Word.UNTOLD),  # uneven, as coins are
        ({"busiest": 1.8}, {"times": 1.6}, Word.IN_PART),
        ({"busiest": 1.8}, {}, Word.NOT_HERE),
    ],
)
def test_claim_4_is_judged_by_shares_and_latency(
    turns: dict[str, Any], shared: dict[str, Any], word: Word
) -> None:
    rows = (ALL[0] | {"times": 1.2, **turns}, ALL[1] | {"times": 1.2, **shared})
    assert words.verdict(measured(*rows)).word is word
    flagged = measured(*rows)
    flagged.loc[0, "valid"] = False  # the five blocks that are left are too few to say otherwise
    assert words.verdict(flagged).word is word
    flagged["valid"] = flagged["block"] < 3
    assert words.verdict(flagged).word is Word.UNTOLD
    assert words.verdict(measured(*rows, blocks=5)).word is Word.UNTOLD


def test_theory_has_a_row_for_each_arrangement_and_load_constant_rates_last() -> None:
    made = measured(*({**factors, "load": load} for load in (0.8, 0.3) for factors in ALL))
    both = pd.concat([made.assign(arrivals="constant"), made])
    table = words.theory_table(both)
    assert table["planned"].drop_duplicates().tolist() == [
        f"{arrivals}, {units.percent(load)}" for arrivals in ("poisson", "constant") for load in (0.3, 0.8)
    ]
    assert len(table) == 4 * len(ALL)
    assert set(table["trials"]) == {6}
    assert str(table["measured over theory"].iloc[0]).startswith("1.50 (1.4")


def test_threads_are_tabled_by_the_loop_they_run() -> None:
    threads = {"topology": "offload", "pool": "thread", "times": 1.0}
    table = words.threads_table(measured(*ALL, {**threads, "kernel": "numba"}, {**threads, "times": 3.0}))
    assert table["pool"].tolist() == ["threads, numba", "threads, python"]
    assert table["mean latency"].tolist() == ["100 ms", "300 ms"]


def test_figures_say_in_their_titles_what_the_trials_can_tell() -> None:
    made = measured(*ALL)
    told, not_told = (views.comparison_figure(chosen) for chosen in (made, made[made["block"] < 4]))
    assert told
    assert not_told
    assert title_of(told) == "Random arrivals: requests take longer with shared than with round-robin"
    assert title_of(not_told).endswith("?")
    latency = views.latency_figure(made, "poisson")
    assert latency
    assert [axes.get_title("left") for axes in latency.axes if axes.axison] == [
        one["dispatch"] for one in ALL
    ]
    assert views.latency_figure(made, "constant") is None


def test_a_machine_that_is_far_too_busy_is_drawn_with_few_ticks() -> None:
    made = measured(*ALL).assign(utilisation=123.0)
    figure = views.latency_figure(made, "poisson")
    assert figure
    assert len(figure.axes[0].get_xticks()) < 10


def test_a_ratio_of_few_blocks_is_a_range_and_says_so() -> None:
    assert words.ratio(estimate([1.0, 1.02, 1.1])) == "1.02 (range of 3 blocks: 1.00 to 1.10)"
    assert words.ratio(estimate([1.0, 1.02, 1.02, 1.02, 1.02, 1.1])) == "1.02 (0.99 to 1.10)"
