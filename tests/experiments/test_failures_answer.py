"""What failures cost: sums over blocks, the trial that is drawn, verdicts and their doubts."""

from dataclasses import replace

import pytest
from helpers.failure_scenes import blocked, crashed, killed, recycled, scaled
from matplotlib.figure import Figure

from lab.experiments.claims import Verdict, Word
from lab.experiments.failures import answer as words
from lab.experiments.failures import figure as failure_figures
from lab.experiments.failures import trials as failures
from lab.experiments.failures.facts import Scene
from lab.flags import Flag
from lab.study.plan import Event

ALL = [killed(), recycled(), scaled(), blocked(), crashed()]
BLOCKS = [killed(block=n, back_s=back_s, late=n) for n, back_s in ((1, 0.9), (2, 0.4), (3, 0.5))]


def plain(text: object) -> str:
    return str(text).replace("\u00a0", " ")


def verdict(scene: Scene, *others: Scene) -> Verdict:
    (found,) = [judged for judged in words.verdicts([scene, *others]) if judged.evidence]
    return found


def test_a_table_has_a_row_per_server_over_all_blocks() -> None:
    other = killed(dispatch="reuseport", keepalive=True)
    table = words.table([*BLOCKS, other], failures.KILL).map(plain)
    assert table["dispatch"].tolist() == ["round-robin", "reuseport"]
    assert table["connections"].tolist() == ["new", "kept"]
    assert table["lost"].tolist() == ["3 of 15", "1 of 6"]
    assert table["a new worker accepts after"].tolist() == ["500 ms (400 ms to 900 ms)", "500 ms"]


def test_what_did_not_come_to_pass_in_some_block_is_said() -> None:
    never = killed(block=4, back_s=None)
    (accepts,) = words.table([*BLOCKS, never], failures.KILL)["a new worker accepts after"].map(plain)
    assert accepts == "500 ms (400 ms to 900 ms); not within 1 of 4 trials"
    assert words.table([never], failures.KILL)["a new worker accepts after"].tolist() == [
        "not within the trial"
    ]


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
    ("lost", "of", "word"),
    [
        (0, 200, Word.HOLDS),
        (0, 20, Word.UNTOLD),
        (2, 200, Word.UNTOLD),
        (20, 200, Word.NOT_HERE),
        (1, 1, Word.NOT_HERE),
    ],
)
def test_claim_7_is_judged_by_what_was_lost_as_far_as_the_counts_tell(lost: int, of: int, word: Word) -> None:
    assert verdict(recycled(lost=lost, of=of)).word is word


def test_a_verdict_takes_all_blocks_and_connections_of_a_dispatch_together() -> None:
    kept = [recycled(of=50, keepalive=True, block=block) for block in (1, 2)]
    assert verdict(recycled(of=50)).word is Word.UNTOLD
    judged = verdict(recycled(of=50), *kept)
    assert judged.word is Word.HOLDS
    assert judged.claim.endswith("(round-robin)")
    assert judged.evidence.endswith("answered of those open meanwhile: 150 of 150 (98 % to 100 %; bar 98 %)")


CONTENTION = (Flag("others_cpu", 0.38, 0.1), Flag("steal", 0.03, 0.02))
STALLED = (Flag("stall", 0.3, 0.1),)


def test_a_verdict_does_not_rest_on_trials_whose_counts_are_in_doubt() -> None:
    late = recycled(of=200, flags=(Flag("send_lag", 0.002, 0.001), Flag("loop_drift", 0.2, 0.15)))
    assert (verdict(late).word, verdict(late).flagged, verdict(late).trials) == (Word.HOLDS, 1, 1)
    stalled = recycled(of=200, block=2, flags=STALLED)
    assert verdict(stalled).word is Word.UNTOLD
    assert (verdict(late, stalled).word, verdict(late, stalled).flagged) == (Word.HOLDS, 2)


@pytest.mark.parametrize("made", [killed(late=300), recycled(of=200)], ids=["claim 6", "claim 7"])
def test_what_holds_in_spite_of_contention_holds_but_not_in_spite_of_a_stalled_generator(made: Scene) -> None:
    assert verdict(replace(made, flags=CONTENTION)).word is Word.HOLDS
    assert verdict(replace(made, flags=CONTENTION + STALLED)).word is Word.UNTOLD


@pytest.mark.parametrize(
    ("lossy", "word"),
    [
        (killed(late=200, late_lost=20), Word.IN_PART),
        (killed(late=300, back_s=None), Word.IN_PART),
        (recycled(of=200, lost=20), Word.NOT_HERE),
    ],
    ids=["lost", "not replaced", "lost when recycled"],
)
def test_contention_may_be_why_a_claim_does_not_hold(lossy: Scene, word: Word) -> None:
    assert verdict(lossy).word is word
    crowded = replace(lossy, flags=CONTENTION)
    assert verdict(crowded).word is Word.UNTOLD
    assert verdict(crowded, replace(lossy, block=2)).word is word


def test_contention_voids_who_had_to_wait() -> None:
    assert verdict(blocked(waiting=1, going_on=30, flags=CONTENTION)).word is Word.UNTOLD


def test_workers_that_could_not_be_replaced_refute_claim_7() -> None:
    judged = verdict(recycled(of=200, ends=Event.FAILED))
    assert judged.word is Word.NOT_HERE
    assert "all replaced: not within the trial" in judged.evidence


@pytest.mark.parametrize(
    ("duration_s", "back_s", "word"),
    [(10.0, 0.5, Word.HOLDS), (10.0, None, Word.IN_PART), (3.0, None, Word.UNTOLD)],
)
def test_claim_6_needs_the_worker_back_or_time_enough_to_miss_it(
    duration_s: float, back_s: float | None, word: Word
) -> None:
    assert verdict(killed(back_s=back_s, late=300, duration_s=duration_s)).word is word


def test_a_service_that_does_not_go_on_refutes_claim_6() -> None:
    assert verdict(killed(late=200, late_lost=50)).word is Word.IN_PART
    assert verdict(killed(late=200, late_lost=50, back_s=None)).word is Word.NOT_HERE
    assert verdict(killed(late=200, late_lost=50, back_s=None, duration_s=3.0)).word is Word.UNTOLD


@pytest.mark.parametrize(
    ("waiting", "going_on", "word"),
    [
        (1, 30, Word.HOLDS),
        (15, 15, Word.IN_PART),
        (59, 49, Word.IN_PART),
        (30, 0, Word.NOT_HERE),
        (3, 1, Word.UNTOLD),
        (3, 10, Word.UNTOLD),
    ],
)
def test_claim_5_is_judged_by_who_was_answered_meanwhile(waiting: int, going_on: int, word: Word) -> None:
    assert verdict(blocked(waiting=waiting, going_on=going_on)).word is word


def test_what_hash_makes_wait_is_the_blocked_workers_part_whatever_their_number() -> None:
    for workers in (2, 4, 8):
        waiting = 800 // workers
        made = blocked(waiting=waiting, going_on=800 - waiting, workers=workers)
        assert verdict(made).word is Word.IN_PART
    assert [words.bars(workers) for workers in (2, 4)] == [(0.75, 0.25), (0.875, 0.625)]


def test_what_was_not_measured_has_no_verdict_and_no_evidence() -> None:
    assert [(v.number, v.evidence, v.word) for v in words.verdicts([])] == [
        (5, "", Word.UNTOLD), (6, "", Word.UNTOLD), (7, "", Word.UNTOLD),
    ]  # fmt: skip


def test_the_answer_sums_the_failures_up() -> None:
    text = plain(words.answer(ALL))
    assert "A killed worker is **replaced after 500 ms**, and 1 of 6 requests are lost." in text
    assert "**not replaced within the trial**" in plain(words.answer([killed(back_s=None)]))
    assert "this many requests wait for it: 1 of 4 with round-robin." in text
    assert words.answer([]) == "**Answer.** No failure was measured."


def test_the_end_of_a_crash_loop_is_quoted() -> None:
    (row,) = words.table([crashed()], failures.CRASH).map(plain).to_dict("records")
    assert (row["given up after"], row["answered until then"]) == ("4.00 s", "1 of 2")
    assert row["the reason it gave"] == "gave up, because ..."
