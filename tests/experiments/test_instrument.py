"""The instrument's verdict: from stalls and ceilings made by hand, whose answers are known."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lab.errors import UsageError
from lab.experiments.instrument import answer as words
from lab.experiments.instrument import figure as figures
from lab.experiments.instrument import trials as study
from lab.load.log import OUTCOMES

NEW, KEPT = "a connection per request", "kept connections"
BUSY = "the generator used 95% of a core: it was the bottleneck"


def trial(rate_rps: float, *, held: bool = True, connections: str = NEW, **changes: Any) -> dict[str, Any]:
    """Make one trial of a rate, with a send lag that names it: p99 of rate / 1e6 seconds."""
    return {
        "connections": connections,
        "rate_rps": rate_rps,
        "held": held,
        "reasons": "" if held else BUSY,
        "lag_p50_s": 1e-5,
        "lag_p99_s": rate_rps / 1e6,
        "cpu_per_request_s": 1e-4,
        "reconciled": True,
    } | changes


def lags(*trials: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(trials)


HOLDS = lags(trial(100), trial(200), *3 * [trial(400, held=False)], trial(100, connections=KEPT))


def stalled(
    rate: float = 10.0, open_off_s: float = 0.0, doubts: str = "", uncounted: int = 0
) -> pd.DataFrame:
    """Make what both loops see of a server that stalls from 0.4 s to 0.9 s: the closed one, one slow request.

    The open loop's latencies are the known ones and `open_off_s`.
    """
    due_s = np.arange(round(2 * rate)) / rate
    known_s = np.where((due_s >= 0.4) & (due_s < 0.9), 0.9 - due_s, 0.0)
    silent = (due_s > 0.4) & (due_s < 0.9)
    service_s = np.where(due_s == 0.4, 0.5, 0.0)
    open_loop = pd.DataFrame({"loop": study.OPEN, "due_s": due_s, "latency_s": known_s + open_off_s})
    closed = open_loop[~silent].assign(loop=study.CLOSED)
    frame = pd.concat([open_loop.assign(service_s=service_s, doubts=doubts), closed.assign(doubts="")])
    frame["sent_s"] = frame["due_s"]
    frame["end_s"] = frame["due_s"] + frame["latency_s"]
    frame["outcome"] = pd.Categorical(["ok"] * len(frame), categories=OUTCOMES)
    frame["server_count"] = frame.groupby("loop")["due_s"].transform("size") - uncounted
    return frame.assign(rate=rate, stall_at_s=0.4, stall_s=0.5)


def answer(trials: pd.DataFrame = HOLDS, stalls: pd.DataFrame | None = None) -> str:
    stalls = stalled() if stalls is None else stalls
    return words.answer(study.known_answers(stalls), trials, stalls)


def test_known_answers_are_those_of_the_sawtooth() -> None:
    """20 requests; those due at .4 to .8 s wait .5 to .1 s: p50 0, p90 .31, p99 .481, slowest .5 s."""
    known = study.known_answers(stalled())
    assert known["quantile"].tolist() == ["p50", "p90", "p99", "slowest"]
    assert known["known_s"].tolist() == pytest.approx([0, 0.31, 0.481, 0.5])
    assert known["open_s"].tolist() == pytest.approx(known["known_s"].tolist())
    assert known["closed_s"].tolist() == pytest.approx([0, 0, 0.425, 0.5])
    assert known["service_s"].tolist() == pytest.approx([0, 0, 0.405, 0.5])


def test_the_answer_says_up_to_which_rate_and_how_often_it_was_tried() -> None:
    lead = answer().splitlines()[0]
    assert lead == (
        f"**Answer.** On this machine the instrument can be believed up to **200/s** with {NEW} "
        f"(held in 1 of 1 trial; 400/s: held in 0 of 3 trials); up to **100/s** with {KEPT} "
        "(held in 1 of 1 trial; no higher rate was tried)."
    )


def test_a_rate_that_held_once_in_three_trials_is_told_as_such() -> None:
    flaky = lags(trial(100), trial(200, held=False), trial(200, held=False), trial(200))
    assert "up to **200/s**" in answer(flaky)
    assert "(held in 1 of 3 trials; no higher" in answer(flaky)
    assert words.lag_table(flaky)["held"].str.replace("\N{NO-BREAK SPACE}", " ").tolist() == [
        "1 of 1",
        "1 of 3",
    ]


def test_a_generator_that_never_holds_is_not_believed_at_any_rate() -> None:
    never = lags(*3 * [trial(50, held=False)])
    assert f"at **no rate** with {NEW} (not even 50.0/s, held in 0 of 3 trials: {BUSY})" in answer(never)
    assert "up to" not in answer(never).splitlines()[0]
    assert words.lag_title(never) == "The generator is believed at no rate"
    assert study.ceilings(never) == {NEW: 0.0}


def test_the_title_names_the_lower_ceiling() -> None:
    assert study.ceilings(HOLDS) == {NEW: 200.0, KEPT: 100.0}
    assert "up to 100/s at least" in words.lag_title(HOLDS)


def test_the_title_names_the_kind_of_connections_that_never_held() -> None:
    one = lags(trial(100, held=False), trial(100, connections=KEPT))
    assert words.lag_title(one) == f"The generator is believed up to 100/s with {KEPT}, at no rate with {NEW}"


def test_what_a_closed_loop_omits_is_counted_and_not_assumed() -> None:
    """At 10/s five requests are due in the stall of .5 s, at 1/s one, which the closed loop has too."""
    assert words.omitted(stalled()) == (
        "At 10.0/s, 5 requests of the open loop and 1 of the closed one took over 50.0 ms: the closed loop "
        "omits the others, and so its percentiles understate the stall."
    )
    seldom = stalled(1.0).assign(latency_s=0.5)
    assert "and 2 of the closed one" in words.omitted(seldom)
    assert words.omitted(seldom).endswith("it omits nothing.")


@pytest.mark.parametrize("name", ["stall_rates", "rates"])
def test_a_rate_given_twice_is_refused(name: str) -> None:
    given = {"run": "", "stall_rates": [50], "stall_s": 1, "stall_duration_s": 3, "rates": [50], "step_s": 1}
    given |= {"tool_rate": 500, "tool_duration_s": 2}
    assert study.Parameters.from_notebook(given)
    with pytest.raises(UsageError, match=rf"^parameter {name} must list each rate once, got "):
        study.Parameters.from_notebook(given | {name: [50, 200, 50.0]})


def test_the_answer_says_how_far_off_known_latencies_each_loop_is() -> None:
    assert "it is off by 2.00 ms at most, a closed loop by up to 308 ms." in answer(
        stalls=stalled(open_off_s=0.002)
    )


def test_attacks_that_do_not_believe_themselves_are_counted() -> None:
    stalls = pd.concat([stalled(), stalled(20.0, doubts=BUSY)])
    assert f"(but in 1 of 2 attacks it did not believe itself: {BUSY})" in answer(stalls=stalls)


@pytest.mark.parametrize(
    ("trials", "uncounted", "sentence"),
    [
        (HOLDS, 0, "In all 8 attacks the server read as many requests as were sent."),
        (HOLDS, 1, "In 2 of 8 attacks the server did not read as many"),
        (
            lags(trial(100, held=False, reconciled=False, reasons="")),
            0,
            "In 1 of 3 attacks the server did not",
        ),
    ],
)
def test_counts_are_held_against_the_servers(trials: pd.DataFrame, uncounted: int, sentence: str) -> None:
    assert sentence in answer(trials, stalled(uncounted=uncounted))


def test_a_trial_that_only_miscounted_says_why_it_did_not_hold() -> None:
    miscounted = lags(trial(100, held=False, reconciled=False, reasons=""), trial(100))
    (row,) = words.lag_table(miscounted).to_dict("records")
    assert row["why one did not hold"] == "the server's count differs"
    assert row["counts agree"] == "no"


def test_the_lag_of_several_trials_is_a_range() -> None:
    several = lags(trial(100, held=False, lag_p99_s=0.002), trial(100, lag_p99_s=0.0005), trial(200))
    assert words.lag_table(several)["send lag, p99"].tolist() == ["500 µs to 2.00 ms", "200 µs"]


def test_the_stall_over_time_is_that_of_the_open_loop_at_the_highest_rate() -> None:
    moments = study.stall_over_time(pd.concat([stalled(10.0), stalled(50.0)]))
    assert moments["due"].sum() == moments["ok"].sum() == 100
    assert moments["start_s"].diff().iloc[1] == pytest.approx(0.1), "a fifth of the stall"
    assert moments["in_flight"].max() == 25
    assert moments.loc[moments["start_s"].between(0.45, 0.75), "ok"].sum() == 0
    assert words.over_time_title(moments) == "A stall makes 25 requests wait at once; 100 of 100 are answered"


def test_a_long_attack_is_not_cut_finer_than_a_reader_can_see() -> None:
    stalls = stalled(50.0).assign(stall_s=0.001)
    assert len(study.stall_over_time(stalls)) <= 62


def test_the_figure_crosses_out_trials_that_did_not_hold_and_counts_those_that_did() -> None:
    (axes,) = figures.send_lag(HOLDS, 0.001, "a title").axes
    assert "0 of 3 held" in {text.get_text() for text in axes.texts}
    assert f"{NEW}: did not hold (p99)" in axes.get_legend_handles_labels()[1]
    assert f"{KEPT}: did not hold (p99)" not in axes.get_legend_handles_labels()[1]


def test_the_stall_is_drawn_over_its_known_answer() -> None:
    (axes,) = figures.stall(study.first_rate(stalled()), "a title").axes
    assert axes.get_legend_handles_labels()[1] == [study.OPEN, study.CLOSED, "known answer"]
    known = np.asarray(axes.lines[-1].get_ydata())
    assert known.max() == pytest.approx(0.5)
