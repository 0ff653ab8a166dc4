"""Failures: what is planned and done, and what is read off events made by hand."""

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.failure_plans import conditions
from helpers.html_page import unlinked
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.experiments.claims import Verdict, Word
from lab.experiments.failures import answer as words
from lab.experiments.failures import trials as study
from lab.figures import rendered, title_of
from lab.flags import Flag
from lab.models.statistics import Interval
from lab.study.estimates import table_of
from lab.study.plan import Event

Request = tuple[float, float, int | str]
"""When it was due, when it ended, and the worker that answered it, or how it was lost."""


def read(requests: list[Request], acts: list[tuple[str, float, float, str]], **changes: Any) -> pd.DataFrame:
    """Return the events of one trial; acts are (kind, begun, ended, detail), failed ones begin with "!"."""
    about: dict[str, Any] = {"trial_id": "t", "block": 1, "dispatch": "round-robin", "keepalive": False}
    row = about | {"topology": "cluster", "workers": 2, "flags": (), "place": 0} | changes
    frame = framed(requests).assign(trial_id=row["trial_id"])
    log = [(0.0, Event.WORKERS, 2, "")]
    for kind, begun_s, ended_s, detail in acts:
        end = Event.FAILED if detail.startswith("!") else Event.DONE
        log += [(begun_s, Event.BEGUN, 2, kind), (begun_s + 0.01, Event.WORKERS, 1, "")]
        log += [(ended_s, end, 2, detail.removeprefix("!"))]
    noted = pd.DataFrame(log, columns=["at_s", "event", "workers", "detail"]).assign(trial_id=row["trial_id"])
    return study.events(pd.DataFrame([row]), frame, noted)


def framed(requests: list[Request]) -> pd.DataFrame:
    rows = [
        (due_s, end_s, math.nan, who) if isinstance(who, str) else (due_s, end_s, who, "ok")
        for due_s, end_s, who in requests
    ]
    frame = pd.DataFrame(rows, columns=["due_s", "end_s", "worker", "outcome"])
    return frame.assign(latency_s=frame["end_s"] - frame["due_s"], service_s=0.05)


KILLED: list[Request] = [
    (0.5, 0.6, 7),
    (1.9, 2.02, "reset"),
    (1.95, 2.1, 8),
    (2.1, 2.3, 8),
    (2.2, 2.2, "refused"),
    (2.6, 2.7, 9),
    (3.9, 4.01, "reset"),
    (4.5, 4.6, 8),
]
KILLS = [("kill", 2.0, 2.4, "9"), ("kill", 4.0, 4.4, "10")]


def test_every_request_belongs_to_the_event_that_decided_on_it() -> None:
    calm, first, second = read(KILLED, KILLS).to_dict("records")
    assert [event["kind"] for event in (calm, first, second)] == ["calm", "kill", "kill"]
    assert (calm["met"], calm["lost"]) == (1, 0)
    assert (first["met"], first["lost"], first["refused"]) == (5, 2, 1), "what died with the worker counts"
    assert (second["met"], second["lost"], second["refused"]) == (2, 1, 0)


def test_a_kill_is_timed_until_all_serve_and_until_the_next_good_answer() -> None:
    _, first, second = read(KILLED, KILLS).to_dict("records")
    assert (first["took_s"], first["next_s"]) == pytest.approx((0.4, 0.3))
    assert second["next_s"] == pytest.approx(0.6)
    assert (first["due"], first["detail"]) == (2, "9")
    assert first["latency_s"] == pytest.approx(0.2)
    assert first["loops"] == pytest.approx(4)


def test_who_waited_in_vain_belongs_to_the_event_before_it_was_due() -> None:
    late: list[Request] = [(2.5, 12.5, "timeout"), (3.0, math.nan, "unfinished")]
    _, first, second = read(KILLED + late, KILLS)["lost"]
    assert (first, second) == (4, 1)


def test_a_worker_that_is_not_replaced_has_no_time() -> None:
    (_, event) = read(KILLED, [("kill", 2.0, 7.0, "!worker 7 was not replaced")]).to_dict("records")
    assert math.isnan(event["took_s"])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 10),
            st.floats(0, 3),
            st.sampled_from(["ok", "reset", "refused", "timeout", "dropped"]),
        ),
        max_size=40,
    ),
    st.lists(st.floats(0.1, 9), max_size=6, unique=True),
)
def test_every_request_is_answered_or_lost_in_one_event(
    sent: list[tuple[float, float, str]], begins: list[float]
) -> None:
    rows: list[Request] = [
        (due, due + took, 7 if outcome == "ok" else outcome) for due, took, outcome in sent
    ]
    events = read([(0, 0.1, 7), *rows], [("kill", at, at + 0.01, "8") for at in sorted(begins)])
    outcomes = [outcome for _, _, outcome in sent]
    assert len(events) == len(begins) + 1
    assert events["met"].sum() == len(sent) + 1
    assert events["lost"].sum() == len(sent) - outcomes.count("ok")
    assert events["refused"].sum() == outcomes.count("refused")
    assert (events["lost"] <= events["met"]).all()


def blocked(waiting: int, of: int, **changes: Any) -> pd.DataFrame:
    """Block worker 7 for two seconds: so many of the requests due meanwhile wait for it."""
    due: list[Request] = [
        (2.1 + n / 100, 4.1 if n < waiting else 3.9, 7 if n < waiting else 8) for n in range(of)
    ]
    return read([(0, 0.1, 7), *due, (4.5, 4.6, 7)], [("block", 2.0, 4.0, "7")], **changes)


def test_only_what_the_blocked_worker_got_waited_for_it() -> None:
    event = blocked(waiting=3, of=20).iloc[1]
    assert (event["due"], event["waited"], event["lost"]) == (20, 3, 0)


def test_nobody_waits_for_a_process_of_a_pool() -> None:
    """It has runs of other requests between those of the slow one."""
    event = blocked(waiting=3, of=20, topology="offload").iloc[1]
    assert (event["due"], event["waited"], event["lost"]) == (20, 0, 0)


def test_what_was_lost_while_a_worker_was_blocked_counts_as_waiting() -> None:
    lost: list[Request] = [(2.5, 2.6, "reset"), (2.6, 2.7, 8)]
    assert read([(0, 0.1, 7), *lost], [("block", 2.0, 4.0, "7")])["waited"].iloc[1] == 1


def test_a_long_request_that_was_not_answered_tells_no_share() -> None:
    due: list[Request] = [(2.5, 2.6, 8)]
    events = read([(0, 0.1, 7), *due], [("block", 2.0, 9.0, "!it was not answered: ReadTimeout")])
    assert verdict(pd.concat([events] * 20), 5).word is Word.NOT_HERE
    assert words.table(events, study.BLOCK).iloc[2, 1] == "not within the trial"


def verdict(events: pd.DataFrame, number: int) -> Verdict:
    (found,) = [judged for judged in words.verdicts(events) if judged.number == number]
    return found


def happened(kind: str, good: int, of: int, **bad: Any) -> pd.DataFrame:
    """Return so many events of a kind, all but the good ones with these values."""
    usual: dict[str, Any] = {
        "trial_id": "t", "block": 1, "dispatch": "round-robin", "keepalive": False, "workers": 4, "flags": (),
        "kind": kind, "took_s": 0.5, "detail": "9", "met": 40, "lost": 0, "refused": 0, "next_s": 0.01,
        "due": 30, "waited": 1, "loops": 1.5, "latency_s": 0.01,
    }  # fmt: skip
    return pd.DataFrame([usual | (bad if n >= good else {}) for n in range(of)])


@pytest.mark.parametrize(
    ("good", "of", "word"),
    [
        (20, 20, Word.HOLDS),
        (18, 20, Word.HOLDS),
        (17, 20, Word.UNTOLD),
        (9, 20, Word.UNTOLD),
        (8, 20, Word.NOT_HERE),
        (10, 10, Word.HOLDS),
        (5, 5, Word.UNTOLD),
    ],
)
@pytest.mark.parametrize(
    ("number", "kind", "bad"),
    [
        (5, study.BLOCK, {"waited": 4}),
        (7, study.RECYCLE, {"lost": 1}),
        (7, study.RECYCLE, {"next_s": 1.1}),
        (7, study.RECYCLE, {"took_s": math.nan}),
    ],
)
def test_a_claim_is_judged_by_the_share_of_events(
    number: int, kind: str, bad: dict[str, Any], good: int, of: int, word: Word
) -> None:
    judged = verdict(happened(kind, good, of, **bad), number)
    assert judged.word is word
    assert f"{good} of {of} (" in judged.evidence


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"lost": 1}, Word.HOLDS),
        ({"lost": 2}, Word.IN_PART),
        ({"next_s": 1.5}, Word.IN_PART),
        ({"took_s": math.nan}, Word.IN_PART),
        ({"took_s": math.nan, "next_s": math.nan}, Word.NOT_HERE),
    ],
)
def test_claim_6_has_two_parts(bad: dict[str, Any], word: Word) -> None:
    assert verdict(happened(study.KILL, 0, 20, **bad), 6).word is word


def test_each_dispatch_is_judged_on_its_own_with_all_its_connections() -> None:
    kept = happened(study.RECYCLE, 8, 8).assign(keepalive=True, trial_id="u")
    other = happened(study.RECYCLE, 0, 20, lost=3).assign(dispatch="shared", trial_id="v")
    found = [v for v in words.verdicts(pd.concat([happened(study.RECYCLE, 8, 8), kept, other])) if v.evidence]
    assert [(v.about, v.word, v.trials) for v in found] == [
        ("round-robin", Word.HOLDS, 2),
        ("shared", Word.NOT_HERE, 1),
    ]


def test_an_event_that_no_request_met_says_nothing() -> None:
    assert verdict(happened(study.BLOCK, 0, 20, due=0, waited=0), 5) == Verdict(5)


@pytest.mark.parametrize("lost", [0, 1], ids=["it holds", "it does not"])
def test_contention_does_not_speak_against_what_holds_in_spite_of_it(lost: int) -> None:
    events = happened(study.RECYCLE, 0, 20, lost=lost)
    for code, holds, fails in (
        ("others_cpu", Word.HOLDS, Word.UNTOLD),
        ("send_lag", Word.HOLDS, Word.NOT_HERE),
        ("stalled", Word.UNTOLD, Word.UNTOLD),
    ):
        judged = verdict(events.assign(flags=pd.Series([(Flag(code, 0.5, 0.1),)] * 20)), 7)
        assert judged.word is (fails if lost else holds)
        assert judged.flagged == 1


def test_what_was_not_measured_has_no_verdict_table_figure_or_estimate() -> None:
    nothing = pd.DataFrame()
    assert words.verdicts(nothing) == [Verdict(5), Verdict(6), Verdict(7)]
    assert words.table(nothing, study.KILL).iloc[0, 0] == "not measured in this run"
    assert words.figure(nothing, nothing, study.KILL) is None
    assert words.estimates(nothing) == []
    assert words.answer(nothing) == "**Answer.** No failure was measured."


def test_a_table_has_a_column_for_each_server_and_intervals_over_events() -> None:
    calm = happened(study.CALM, 1, 1)
    kept = happened(study.KILL, 2, 3, lost=2, took_s=math.nan).assign(keepalive=True)
    table = words.table(pd.concat([calm, happened(study.KILL, 15, 20, lost=2), kept]), study.KILL)
    assert list(table.columns) == ["", "round-robin, new connections", "round-robin, kept connections"]
    new, old = (dict(zip(table[""], table[column], strict=True)) for column in table.columns[1:])
    assert new["requests of these, lost, refused"] == "800 / 10 / 0"
    assert new["requests lost per event, on average"] == "0.500: 10 in 20 events, at most 2 in one"
    assert old["requests lost per event, on average"] == "0.667: 2 in 3 events, at most 2 in one"
    assert new["share of events that lost a request"] == "25 % (8.7 % to 49.1 %)"
    assert (
        old["until all workers served again"]
        == "500 ms (500 ms to 500 ms, the range); not within 1 of 3 events"
    )
    assert new["latency before the first, in loop times"] == "1.50"


def test_estimates_are_the_numbers_of_the_tables() -> None:
    stated = table_of(words.estimates(happened(study.KILL, 15, 20, lost=2))).set_index("quantity")
    losing = stated.loc["kill: share of events that lost a request"]
    assert (losing["value"], losing["n"], losing["unit"]) == (0.25, 20, "")
    assert stated.loc["kill: until all workers served again", "unit"] == "s"
    assert set(stated["factors"]) == {"connections=new, dispatch=round-robin"}
    lost = stated.loc["kill: requests lost per event, on average"]
    assert (lost["value"], lost["low"], lost["high"], lost["interval"]) == (0.5, 0, 2, Interval.EXTREMES)


@pytest.mark.parametrize("bursts", [0.3, 5.0], ids=["in bursts", "one by one"])
def test_intervals_of_losses_cover_the_truth_though_losses_come_in_bursts(bursts: float) -> None:
    random = np.random.default_rng(9)
    drawn = random.negative_binomial(bursts, bursts / (bursts + 1.0), (400, 20))
    losing = (random.negative_binomial(bursts, bursts / (bursts + 1.0), 100_000) > 0).mean()
    share = words.MEASURES[study.KILL][1]
    found = [share.found(pd.DataFrame({"lost": lost})) for lost in drawn]
    covered = [one is not None and one.low <= losing <= one.high for one in found]
    assert np.mean(covered) >= 0.94


@pytest.mark.parametrize(
    ("dispatch", "keepalive", "share"),
    [
        ("round-robin", False, "3.3 %"),
        ("shared", False, "0 %"),
        ("least-busy", False, "0 %"),
        ("reuseport", False, "25 % (chance alone: 10 % to 40 % of a block)"),
        ("reuseport", True, "–"),
    ],
)
def test_what_should_wait_depends_on_the_dispatch(dispatch: str, keepalive: bool, share: str) -> None:
    assert (
        words.expected(happened(study.BLOCK, 20, 20).assign(dispatch=dispatch, keepalive=keepalive)) == share
    )


def test_the_answer_gives_each_cost_with_its_interval() -> None:
    events = pd.concat([happened(study.KILL, 15, 20, lost=2), happened(study.RECYCLE, 10, 10)])
    text = unlinked(words.answer(pd.concat([events, happened(study.BLOCK, 20, 20)])))
    assert "20 kills lost 10 requests of 800, at most 2 in one; time until all workers served again" in text
    assert "10 recycles lost 0 requests of 400." in text
    assert text.endswith("this share had to wait for it: 3.3 % (3.3 % to 3.3 %).")


@pytest.mark.parametrize("kind", [study.KILL, study.RECYCLE, study.BLOCK, study.SCALE])
def test_a_figure_shows_as_many_losses_as_its_title_counts(kind: str) -> None:
    acts = [(kind, begun_s, ended_s, detail) for _, begun_s, ended_s, detail in KILLS]
    requests = framed(KILLED).assign(trial_id="t")
    figure = words.figure(read(KILLED, acts), requests, kind)
    assert figure is not None
    (lost,) = [line for line in figure.axes[0].lines if line.get_label() == "lost"]
    assert len(np.asarray(lost.get_xdata())) == 3
    assert "lost: 3" in [text.get_text() for text in figure.axes[0].texts]
    assert ("lost 3 requests" in title_of(figure)) == (kind != study.BLOCK)
    figure.canvas.draw()


def test_the_latency_before_is_in_the_figure_however_slow_all_answers_after_it_are() -> None:
    requests: list[Request] = [(0.5, 0.51, 7), (2.1, 3.1, 8), (2.2, 4.2, 8)]
    events = read(requests, [(study.KILL, 2.0, 3.0, "9")])
    figure = words.figure(events, framed(requests).assign(trial_id="t"), study.KILL)
    assert figure is not None
    lowest, highest = figure.axes[0].get_ylim()
    assert lowest < 0.01 < 2.0 < highest
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rendered(figure, "svg")


def test_a_trial_without_a_single_answer_is_drawn() -> None:
    requests: list[Request] = [(0.5, 0.5, "refused"), (2.1, 2.1, "refused")]
    events = read(requests, [("kill", 2.0, 7.0, "!not replaced")])
    figure = words.figure(events, framed(requests).assign(trial_id="t"), study.KILL)
    assert figure is not None
    figure.canvas.draw()


def test_each_dispatch_is_planned_with_new_connections_and_with_kept_ones_if_asked() -> None:
    found = [(c.dispatch, c.keepalive) for c in conditions(kept=True, dispatches=["shared", "least-busy"])]
    assert found == [("shared", False), ("shared", True), ("least-busy", False)]
    assert [(c.dispatch, c.keepalive) for c in conditions()] == [("round-robin", False), ("reuseport", False)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", 1), ("turns", []), ("turns", ["explode"]), ("dispatches", []), ("blocking", 0)],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"parameter {name}"):
        conditions(**{name: value})


def test_an_event_that_the_trial_did_not_outlive_is_one_that_was_not_done() -> None:
    requests: list[Request] = [(due_s, due_s + 0.1, 11) for due_s in (0.0, 1.0, 2.0, 3.0)]
    noted = pd.DataFrame(
        [(0.0, Event.WORKERS, 2, ""), (1.5, Event.BEGUN, 2, "kill")],
        columns=["at_s", "event", "workers", "detail"],
    ).assign(trial_id="t")
    row = {"trial_id": "t", "block": 1, "dispatch": "shared", "keepalive": False, "workers": 2, "flags": ()}
    found = study.events(
        pd.DataFrame([row | {"topology": "cluster", "place": 0}]),
        framed(requests).assign(trial_id="t"),
        noted,
    )
    assert found["kind"].tolist()[-1] == "kill"
    assert math.isnan(found["took_s"].iloc[-1])
