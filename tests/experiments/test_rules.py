"""The twelve rules: kept only by what the run shows, and never by a run that shows nothing."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from helpers.trial_rows import trials
from matplotlib.figure import Figure

from lab.experiments import rules
from lab.experiments.rules import Evidence, table
from lab.figures import canvas
from lab.models.statistics import Estimate, Interval, estimate, proportion
from lab.study.estimates import Stated, stated, table_of
from lab.study.manifest import Manifest, new_manifest

MANIFEST = new_manifest("judged", profile="", notebooks=(), parameters={}).model_copy(
    update={"git_commit": "0123456789abcdef", "git_dirty": False, "packages": {"numpy": "2.0"}}
)
MANIFEST = MANIFEST.model_copy(
    update={"machine": MANIFEST.machine.model_copy(update={"available_cpus": 2, "host_cpus": 2})}
)
SIX, THREE = estimate([0.9, 1.0, 1.1, 1.2, 1.3, 1.5]), estimate([0.9, 1.0, 1.1])
SEVEN = estimate([0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6])
GAIN = stated("scaling", "speed-up over one worker", SIX, compares=True, workers=2)
BASE = stated("scaling", "highest throughput", SIX, "requests/s", workers=1)


def kept(
    *rows: Stated,
    measured: pd.DataFrame | None = None,
    manifest: Manifest = MANIFEST,
    figures: Any = (),
) -> dict[int, tuple[str, str]]:
    """Return, for each rule, whether it is kept, and the evidence."""
    found = {} if measured is None else {"scaling": measured}
    judged = table(Evidence(table_of(rows), found, manifest, figures))
    return {row[""]: (row["kept"], row["evidence"]) for row in judged.to_dict("records")}


def test_a_run_that_shows_nothing_keeps_no_rule() -> None:
    judged = kept()
    assert list(judged) == list(range(1, 13))
    assert {word for word, _ in judged.values()} == {"no"}
    assert all(evidence for _, evidence in judged.values())
    assert len(rules.RULES) == 12


def test_a_speedup_needs_its_base() -> None:
    assert kept(GAIN)[1][0] == "no"
    many = stated("scaling", "highest throughput", Estimate(280, 270, 290, 6), "requests/s", workers=16)
    word, evidence = kept(GAIN, BASE, many)[1]
    assert word == "yes"
    assert "1 speed-up over one worker, which answers 1.15/s" in evidence
    assert "280" not in evidence


@pytest.mark.parametrize(
    ("workers", "host", "word"), [(2, 2, "yes"), (4, 2, "yes"), (2, 8, "in part"), (1, 2, "no")]
)
def test_the_whole_machine_is_used_or_not(workers: int, host: int, word: str) -> None:
    machine = MANIFEST.machine.model_copy(update={"host_cpus": host})
    judged = kept(
        measured=trials({"workers": workers}), manifest=MANIFEST.model_copy(update={"machine": machine})
    )
    assert judged[2][0] == word


def test_a_mean_of_rates_and_a_median_of_ratios_break_rules() -> None:
    """The median of six is the arithmetic mean of two; that of seven is one of them."""
    of_seven = stated("scaling", "highest throughput", SEVEN, "requests/s", workers=1)
    assert kept(of_seven)[3][0] == "yes"
    assert kept(BASE)[3] == ("no", "arithmetic means: 1 of 1 rate")
    assert kept(of_seven, BASE)[3][0] == "in part"
    assert kept(stated("scaling", "mean throughput", SEVEN, "requests/s"))[3][0] == "no"
    bounds = stated("sustained", "rate", Estimate(9, 9, 10, 12, Interval.SEARCH), "requests/s")
    assert kept(of_seven, bounds)[3][0] == "yes", "a bound of a search is no mean"
    assert kept(bounds)[3] == ("no", "no rate")
    assert kept(BASE, GAIN)[4][0] == "no"


def test_intervals_are_counted_and_ranges_are_none() -> None:
    few = stated("scaling", "speed-up of few", THREE, compares=True)
    bounds = stated("sustained", "rate", Estimate(9, 9, 10, 12, Interval.SEARCH), "requests/s")
    assert kept(BASE, GAIN, bounds)[5] == ("yes", "with a 95 % interval: 2 of 2 estimates")
    assert kept(GAIN, few)[5][0] == kept(GAIN, few)[7][0] == "in part"
    assert kept(few)[5][0] == kept(few)[7][0] == "no"
    assert kept(few)[6][0] == "no"
    assert kept(GAIN, stated("failures", "lost", proportion(1, 20)))[6][0] == "yes"


def test_intervals_as_of_normal_theory_break_a_rule_by_their_name_or_by_their_shape() -> None:
    symmetric = stated("scaling", "gain", Estimate(1.0, 0.9, 1.1, 6, Interval.MEDIAN), compares=True)
    assert kept(GAIN)[6][0] == "yes"
    assert kept(symmetric)[6][0] == "no"
    assert kept(GAIN, symmetric)[6][0] == "yes", "one may be symmetric by chance"
    assert kept(GAIN, symmetric, symmetric)[6][0] == "in part"
    named = table_of([GAIN]).assign(interval="mean plus or minus 1.96 standard errors")
    judged = table(Evidence(named, {}, MANIFEST)).set_index("")
    assert judged.loc[6, "kept"] == "no"
    assert judged.loc[5, "kept"] == "no"


def test_comparisons_say_what_they_would_have_shown() -> None:
    assert "would have shown: 30.5 % to 30.5 %" in kept(GAIN)[7][1]


@pytest.mark.parametrize(("planned", "word"), [([300, 400], "yes"), ([300, 30], "in part")])
def test_a_p99_takes_its_requests(planned: list[int], word: str) -> None:
    p99 = stated("sweep", "latency, p99", SIX, "s")
    measured = trials(*({"planned": number} for number in planned))
    assert kept(p99, measured=measured)[8][0] == word
    assert kept(measured=measured)[8][0] == "no", "no percentile is stated"


def test_the_setup_is_on_record_only_for_a_known_commit() -> None:
    measured = trials({})
    assert kept(measured=measured)[9][0] == "yes"
    for change in ({"git_dirty": True}, {"git_commit": None}):
        word, evidence = kept(measured=measured, manifest=MANIFEST.model_copy(update=change))[9]
        assert word == "in part"
        assert "or something near it" in evidence


def test_timing_is_told_by_lag_and_flags() -> None:
    measured = trials({"send_lag_p99_s": 0.002}, {"send_lag_p99_s": 0.001, "valid": False})
    word, evidence = kept(measured=measured)[10]
    assert word == "yes"
    assert "at most 2.00 ms" in evidence
    assert evidence.endswith("1 of 2 trials")
    assert kept(measured=trials({"send_lag_p99_s": float("nan")}))[10][0] == "in part"


def test_a_limit_stands_beside_what_was_measured() -> None:
    limit = stated("sustained", "sustained rate, of the own limit", SIX)
    assert "1 share of what" in kept(limit)[11][1]
    assert "1.15 on 2 CPUs" in kept(GAIN)[11][1]


def drawn(
    x: Sequence[float], *, dots: bool = True, names: Sequence[str] = (), xlabel: str = "workers"
) -> Figure:
    """Draw a line over these places, with measurements beside it, in a panel that names what it shows."""
    with canvas("Is it in order?") as (figure, (axes,)):
        if dots:
            axes.plot([1, 2, 3], [1, 2, 3], "o")
        axes.plot(x, [1, 2, 3], "-")
        axes.axhline(2)
        if names:
            axes.set_xticks([1, 2, 3], names)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("requests/s")
    return figure


def test_lines_join_only_what_has_an_order() -> None:
    assert kept(figures=[drawn([1, 2, 3])])[12][0] == "yes"
    assert kept(figures=[drawn([1, 2, 3], names=["1", "2", "4"])])[12][0] == "yes"
    word, evidence = kept(figures=[drawn([1, 3, 2])])[12]
    assert word == "no"
    assert "no order: 1;" in evidence
    by_name = drawn([1, 2, 3], names=["shared", "reuseport", "round-robin"])
    assert kept(figures=[by_name])[12][0] == "no", "no dispatch is between two others"


def test_a_figure_names_its_axes_and_shows_what_its_lines_are_made_of() -> None:
    sound = drawn([1, 2, 3])
    word, evidence = kept(figures=[sound, drawn([1, 2, 3], xlabel="")])[12]
    assert word == "in part"
    assert "names: 1," in evidence
    word, evidence = kept(figures=[sound, drawn([1, 2, 3], dots=False)])[12]
    assert word == "in part"
    assert "lines alone: 1" in evidence


def test_the_caps_of_bars_are_no_measurements() -> None:
    with canvas("What are they?") as (figure, (axes,)):
        axes.errorbar([1, 2, 3], [1, 2, 3], yerr=[1, 1, 1], capsize=4)
        axes.set_xlabel("workers")
        axes.set_ylabel("requests/s")
    word, evidence = kept(figures=[figure, drawn([1, 2, 3])])[12]
    assert (word, "3 measurements and 2 lines" in evidence) == ("yes", True)
