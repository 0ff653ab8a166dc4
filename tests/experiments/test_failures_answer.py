"""Failures in words and figures: sums over blocks, the trial that is drawn, verdicts and their doubts."""

from dataclasses import replace

import pytest
from helpers.failure_scenes import blocked, crashed, killed, recycled, scaled
from matplotlib.figure import Figure

from lab.experiments.claims import Verdict
from lab.experiments.failures import answer as failure_verdicts
from lab.experiments.failures import answer as words
from lab.experiments.failures import figure as failure_figures
from lab.experiments.failures import trials as failures
from lab.experiments.failures.facts import Scene
from lab.flags import Flag

ALL = [killed(), recycled(), scaled(), blocked(), crashed()]
BLOCKS = [killed(block=n, back_s=back_s, late=n) for n, back_s in ((1, 0.9), (2, 0.4), (3, 0.5))]


def plain(text: object) -> str:
    return str(text).replace("\u00a0", " ")


def verdict(scene: Scene, *others: Scene) -> Verdict:
    (found,) = [judged for judged in failure_verdicts.verdicts([scene, *others]) if judged.evidence]
    return found


def test_a_table_has_a_row_per_server_over_all_blocks() -> None:
    other = killed(dispatch="reuseport", keepalive=True)
    table = words.kill_table([*BLOCKS, other]).map(plain)
    assert table["dispatch"].tolist() == ["round-robin", "reuseport"]
    assert table["connections"].tolist() == ["new", "kept"]
    assert table["lost"].tolist() == ["3 of 15", "1 of 6"]
    assert table["a new worker accepts after"].tolist() == ["500 ms (400 ms to 900 ms)", "500 ms"]


def test_what_did_not_come_to_pass_in_some_block_is_said() -> None:
    never = killed(block=4, back_s=None)
    (accepts,) = words.kill_table([*BLOCKS, never])["a new worker accepts after"].map(plain)
    assert accepts == "500 ms (400 ms to 900 ms); not within 1 of 4 trials"
    assert words.kill_table([never])["a new worker accepts after"].tolist() == ["not within the trial"]


def test_captions_say_over_how_many_blocks_a_table_is_and_which_of_them_a_figure_shows() -> None:
    assert words.blocks_said(BLOCKS[:1], "Killed") == "Killed"
    assert "over 3 blocks" in words.blocks_said(BLOCKS, "Killed")
    assert failure_figures.caption(BLOCKS[:1], failures.KILL, "It.").endswith("a connection per request.")
    several = failure_figures.caption([*BLOCKS, killed(keepalive=True)], failures.KILL, "It.")
    assert "block 3 of 3, chosen by the median time until full strength" in several
    assert several.endswith("Lost in all 3 blocks: 3 of 15.")
    assert "block 2 of 2, chosen by the lower median" in failure_figures.caption(
        BLOCKS[:2], failures.KILL, ""
    )


def test_the_trial_that_is_drawn_is_the_median_one_of_the_first_dispatch_with_new_connections() -> None:
    others = [killed(keepalive=True, back_s=0.01), killed(dispatch="reuseport", back_s=0.02)]
    never = killed(block=4, back_s=None)
    assert failure_figures.typical([*BLOCKS, never, *others], failures.KILL) is BLOCKS[2]
    assert failure_figures.typical(BLOCKS, failures.CRASH) is None
    assert failure_figures.figure(BLOCKS, failures.CRASH) is None


@pytest.mark.parametrize("scene", ALL, ids=failures.SCENARIOS)
def test_every_scenario_has_a_figure_whose_title_says_what_was_lost(scene: Scene) -> None:
    figure = failure_figures.figure([scene], scene.scenario)
    assert figure is not None
    lost = f"{scene.lost} of {len(scene.requests)} requests lost" if scene.lost else "nothing lost"
    assert figure.get_suptitle().endswith(lost)
    assert legend(figure).get(f"lost: {scene.lost}", 0) == scene.lost
    figure.canvas.draw()


def legend(figure: Figure | None) -> dict[str, int]:
    """Return each entry of a timeline's legend and how many marks it has."""
    assert figure is not None
    marks, labels = figure.axes[0].get_legend_handles_labels()
    return {label: len(mark.get_xdata()) for mark, label in zip(marks, labels, strict=True)}  # type: ignore[attr-defined]


def test_answers_are_told_apart_by_who_gave_them() -> None:
    assert legend(failure_figures.figure([killed(late=5)], failures.KILL)) == {
        "answered by a worker from the start": 5,
        "answered by one that came later": 2,
        "lost: 1": 1,
    }
    assert legend(failure_figures.figure([blocked()], failures.BLOCK)) == {
        "answered by another worker": 4,
        "answered by the blocked worker": 3,
    }


def test_a_trial_without_a_single_answer_is_drawn() -> None:
    scene = crashed()
    scene.requests["outcome"] = "refused"
    figure = failure_figures.figure([scene], failures.CRASH)
    assert figure is not None
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("lost", "of", "holds"), [(0, 200, True), (0, 20, None), (2, 200, None), (20, 200, False), (1, 1, False)]
)
def test_claim_7_is_judged_by_what_was_lost_as_far_as_the_counts_tell(
    lost: int, of: int, holds: bool | None
) -> None:
    assert verdict(recycled(lost=lost, of=of)).holds is holds


def test_a_verdict_takes_all_blocks_and_connections_of_a_dispatch_together() -> None:
    kept = [recycled(of=50, keepalive=True, block=block) for block in (1, 2)]
    assert verdict(recycled(of=50)).holds is None
    judged = verdict(recycled(of=50), *kept)
    assert judged.holds
    assert judged.claim.endswith("(round-robin)")
    assert plain(judged.evidence).startswith("150 of 150 (98 % to 100 %) open meanwhile were answered")


CONTENTION = (Flag("others_cpu", 0.38, 0.1), Flag("steal", 0.03, 0.02))
STALLED = (Flag("stall", 0.3, 0.1),)


def test_a_verdict_does_not_rest_on_trials_whose_counts_are_in_doubt() -> None:
    late = recycled(of=200, flags=(Flag("send_lag", 0.002, 0.001), Flag("loop_drift", 0.2, 0.15)))
    assert (verdict(late).word, verdict(late).flagged, verdict(late).trials) == ("holds", 1, 1)
    stalled = recycled(of=200, block=2, flags=STALLED)
    assert verdict(stalled).word == "cannot be told: rests on flagged trials"
    assert (verdict(late, stalled).word, verdict(late, stalled).flagged) == ("holds", 2)


@pytest.mark.parametrize("made", [killed(late=200), recycled(of=200)], ids=["claim 6", "claim 7"])
def test_what_holds_in_spite_of_contention_holds_but_not_in_spite_of_a_stalled_generator(made: Scene) -> None:
    assert verdict(replace(made, flags=CONTENTION)).word == "holds"
    assert verdict(replace(made, flags=CONTENTION + STALLED)).rests_on_flagged


@pytest.mark.parametrize(
    "lossy",
    [killed(late=200, late_lost=20), killed(late=200, back_s=None), recycled(of=200, lost=20)],
    ids=["lost", "not replaced", "lost when recycled"],
)
def test_contention_may_be_why_a_claim_does_not_hold(lossy: Scene) -> None:
    assert verdict(lossy).holds is False
    crowded = replace(lossy, flags=CONTENTION)
    assert verdict(crowded).word == "cannot be told: rests on flagged trials"
    assert verdict(crowded, replace(lossy, block=2)).word == "does not hold here"


def test_contention_voids_who_had_to_wait() -> None:
    assert verdict(blocked(waiting=1, going_on=30, flags=CONTENTION)).rests_on_flagged


def test_workers_that_could_not_be_replaced_refute_claim_7() -> None:
    judged = verdict(recycled(of=200, said="worker 7 did not start"))
    assert judged.holds is False
    assert "not every worker could be replaced" in judged.evidence


@pytest.mark.parametrize(
    ("duration_s", "back_s", "holds"), [(10.0, 0.5, True), (10.0, None, False), (3.0, None, None)]
)
def test_claim_6_needs_the_worker_back_or_time_enough_to_miss_it(
    duration_s: float, back_s: float | None, holds: bool | None
) -> None:
    assert verdict(killed(back_s=back_s, late=200, duration_s=duration_s)).holds is holds


def test_a_service_that_does_not_go_on_refutes_claim_6() -> None:
    assert verdict(killed(late=200, late_lost=50)).holds is False
    assert verdict(killed(late=200, late_lost=50, back_s=None, duration_s=3.0)).holds is False


@pytest.mark.parametrize(
    ("waiting", "going_on", "holds"), [(1, 30, True), (15, 15, True), (30, 0, False), (3, 1, None)]
)
def test_claim_5_is_judged_by_who_was_answered_meanwhile(
    waiting: int, going_on: int, holds: bool | None
) -> None:
    assert verdict(blocked(waiting=waiting, going_on=going_on)).holds is holds


def test_half_the_answers_are_enough_of_two_workers_and_too_few_of_many() -> None:
    assert verdict(blocked(waiting=50, going_on=50, workers=2)).holds is True
    assert verdict(blocked(waiting=50, going_on=50, workers=8)).holds is False
    assert "**25 %**" in plain(failure_verdicts.rules(2))
    assert "**62.5 %**" in plain(failure_verdicts.rules(4))


def test_what_was_not_measured_has_no_verdict_and_no_evidence() -> None:
    assert [(v.number, v.evidence, v.holds) for v in failure_verdicts.verdicts([])] == [
        (5, "", None), (6, "", None), (7, "", None),
    ]  # fmt: skip


def test_the_answer_sums_each_failure_up() -> None:
    text = plain(words.answer([*ALL, recycled(lost=2, dispatch="reuseport", keepalive=True)]))
    assert "until its place is taken: **500 ms** with round-robin; lost: **1 of 6** with round-robin" in text
    assert "lost: **nothing** with round-robin; **2 of 6** with reuseport on kept connections" in text
    assert "wait for it: **1 of 4** with round-robin" in text
    assert "until given up: 4.00 s" in text
    assert len(text.splitlines()) == 2 + len(failures.SCENARIOS)


def test_the_ending_of_a_crash_loop_is_quoted() -> None:
    text = plain(words.ending([crashed()]))
    assert "given up: 4.00 s, in which 1 of 2 requests were answered" in text
    assert "“gave up, because ...”. Requests due after it: 1 refused." in text
