"""The instrument's answer: from stalls and ceilings made by hand, whose answers are known."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.controls import BUSY, FED
from helpers.html_page import unlinked

from lab.errors import UsageError
from lab.experiments import instrument as study
from lab.experiments.instrument import lags, stalls
from lab.flags import Flag
from lab.load.log import OUTCOMES
from lab.study.estimates import table_of
from lab.study.runs import open_run

PARAMETERS: dict[str, Any] = {
    "run": "", "stall_rates": [50.0], "stall_s": 0.5, "stall_duration_s": 1.0, "rates": [50.0], "step_s": 0.5,
    "tool_rate": 100, "tool_duration_s": 1, "control_workers": [], "control_iterations": [7**6],
}  # fmt: skip


def trial(rate_rps: float, *, held: bool = True, keepalive: bool = False, **changes: Any) -> dict[str, Any]:
    """Make one try of a rate, with a send lag that names it: p99 of rate / 1e6 seconds."""
    return {
        "keepalive": keepalive,
        "rate_rps": rate_rps,
        "held": held,
        "flags": () if held else (BUSY,),
        "errors": (),
        "lag_p50_s": 1e-5,
        "lag_p99_s": rate_rps / 1e6,
        "cpu_per_request_s": 1e-4,
        "reconciled": True,
    } | changes


def tries(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows)


HOLDS = tries(trial(100), trial(200), *3 * [trial(400, held=False)], trial(100, keepalive=True))
NEVER = tries(*3 * [trial(50, held=False)], trial(100, keepalive=True))


def stalled(
    rate: float = 10.0, open_off_s: float = 0.0, flags: tuple[Flag, ...] = (), uncounted: int = 0
) -> pd.DataFrame:
    """Make what both loops see of a server that stalls from 0.4 s to 0.9 s: the closed one, one slow request.

    The open loop's latencies are the known ones and `open_off_s`.
    """
    due_s = np.arange(round(2 * rate)) / rate
    known_s = np.where((due_s >= 0.4) & (due_s < 0.9), 0.9 - due_s, 0.0)
    silent = (due_s > 0.4) & (due_s < 0.9)
    service_s = np.where(due_s == 0.4, 0.5, 0.0)
    open_loop = pd.DataFrame({"loop": stalls.OPEN, "due_s": due_s, "latency_s": known_s + open_off_s})
    closed = open_loop[~silent].assign(loop=stalls.CLOSED)
    frame = pd.concat([open_loop.assign(service_s=service_s), closed], ignore_index=True)
    frame["flags"] = pd.Series([flags if loop == stalls.OPEN else () for loop in frame["loop"]], dtype=object)
    frame["sent_s"] = frame["due_s"]
    frame["end_s"] = frame["due_s"] + frame["latency_s"]
    frame["outcome"] = pd.Categorical(["ok"] * len(frame), categories=OUTCOMES)
    frame["server_count"] = frame.groupby("loop")["due_s"].transform("size") - uncounted
    return frame.assign(rate=rate, stall_at_s=0.4, stall_s=0.5)


def test_known_answers_are_those_of_the_sawtooth() -> None:
    """20 requests; those due at .4 to .8 s wait .5 to .1 s: p50 0, p90 .31, p99 .481, slowest .5 s."""
    known = stalls.known_answers(stalled())
    assert known["quantile"].tolist() == ["p50", "p90", "p99", "slowest"]
    assert known["known_s"].tolist() == pytest.approx([0, 0.31, 0.481, 0.5])
    assert known["open_s"].tolist() == pytest.approx(known["known_s"].tolist())
    assert known["closed_s"].tolist() == pytest.approx([0, 0, 0.425, 0.5])
    assert known["service_s"].tolist() == pytest.approx([0, 0, 0.405, 0.5])


def test_a_ceiling_is_the_highest_rate_that_held() -> None:
    assert lags.ceilings(HOLDS) == {False: 200.0, True: 100.0}
    assert lags.ceilings(NEVER) == {False: 0.0, True: 100.0}
    held, never = (unlinked(study.answer(stalled(), lagging, FED)) for lagging in (HOLDS, NEVER))
    assert "up to **200/s** with a connection per request" in held
    assert "**no rate**" in never
    fed = "the harness kept busy 4 with loops of 11.8 ms and 8 with loops of 82.4 ms"
    assert f"Of up to 16 sleeping workers, {fed}." in held


@pytest.mark.parametrize("lagging", [HOLDS, NEVER], ids=["held", "never held"])
def test_numbers_of_the_answer_lead_to_estimates_of_the_tables_that_hold_them(lagging: pd.DataFrame) -> None:
    run = open_run()
    run.table("stalls-1", stalled)
    run.table("ceilings-1", lambda: lagging)
    assert study.estimates(run) == [], "not of a part of it"
    run.table("control-1", lambda: FED)
    rows = table_of(study.estimates(run)).set_index("key")
    linked = re.findall("#estimate-([0-9a-f]{10})", study.answer(stalled(), lagging, FED))
    assert sorted(linked) == sorted(rows.index), "all of them, once each"
    assert len(linked) == (7 if lagging is HOLDS else 6)
    ceilings = rows[rows["quantity"] == lags.BELIEVED].set_index("factors")
    if lagging is HOLDS:
        new = ceilings.loc["connections=new"]
        assert (new["value"], new["low"], new["high"], new["n"]) == (200, 200, 400, 5)
    assert ceilings["high"].isna()["connections=kept"], "no higher rate was tried"
    counted = rows[rows["quantity"] == study.COUNTED].iloc[0]
    assert counted["value"] == 1
    assert counted["sources"] == ["stalls-1", "ceilings-1"]


def test_how_often_a_rate_held_is_told_with_the_reason_why_not() -> None:
    flaky = tries(trial(100), trial(200, held=False), trial(200, held=False, errors=("refused",)), trial(200))
    table = lags.lag_table(flaky)
    assert table["held"].str.replace("\N{NO-BREAK SPACE}", " ").tolist() == ["1 of 1", "1 of 3"]
    assert table["why one did not hold"].tolist() == ["", f"{BUSY}; refused"]


@pytest.mark.parametrize("name", ["stall_rates", "rates"])
def test_a_rate_given_twice_is_refused(name: str) -> None:
    assert study.Parameters.from_notebook(PARAMETERS)
    with pytest.raises(UsageError, match=rf"^parameter {name} must list each number once, got "):
        study.Parameters.from_notebook(PARAMETERS | {name: [50, 200, 50.0]})


def test_the_answer_says_how_far_off_known_latencies_each_loop_is() -> None:
    said = unlinked(study.answer(stalled(open_off_s=0.002), HOLDS, FED))
    assert "by up to 2.00 ms, a closed loop by up to 308 ms." in said


def test_each_attack_counts_what_met_the_stall_and_what_the_server_read() -> None:
    """At 10/s five requests are due in the stall of .5 s; the closed loop has one of them."""
    found = stalls.attacks(pd.concat([stalled(flags=(BUSY,)), stalled(20.0, uncounted=1)]))
    assert found["loop"].tolist() == [stalls.OPEN, stalls.CLOSED] * 2
    assert found["slow"].tolist() == [5, 1, 10, 1]
    assert (found["sent"] - found["server_count"]).tolist() == [0, 0, 1, 1]
    assert found["flags"].tolist() == [(BUSY,), (), (), ()]
    assert stalls.attack_table(stalled())["took over 50.0 ms"].tolist() == [5, 1]


@pytest.mark.parametrize(
    ("lagging", "uncounted", "agree"),
    [
        (HOLDS, 0, "8 of 8 attacks"),
        (HOLDS, 1, "6 of 8 attacks"),
        (tries(trial(100, held=False, reconciled=False), trial(9, keepalive=True)), 0, "3 of 4 attacks"),
    ],
)
def test_counts_are_held_against_the_servers(lagging: pd.DataFrame, uncounted: int, agree: str) -> None:
    assert agree in unlinked(study.answer(stalled(uncounted=uncounted), lagging, FED))


def test_a_try_that_only_miscounted_says_why_it_did_not_hold() -> None:
    miscounted = tries(trial(100, held=False, reconciled=False, flags=()), trial(100))
    (row,) = lags.lag_table(miscounted).to_dict("records")
    assert row["why one did not hold"] == "the server's count differs"
    assert row["counts agree"] == "no"


def test_the_lag_of_several_tries_is_a_range() -> None:
    several = tries(trial(100, held=False, lag_p99_s=0.002), trial(100, lag_p99_s=0.0005), trial(200))
    assert lags.lag_table(several)["send lag, p99"].tolist() == ["500 µs to 2.00 ms", "200 µs"]


def test_the_stall_over_time_is_that_of_the_open_loop_at_the_highest_rate() -> None:
    moments = stalls.stall_over_time(pd.concat([stalled(10.0), stalled(50.0)]))
    assert moments["due"].sum() == moments["ok"].sum() == 100
    assert moments["start_s"].diff().iloc[1] == pytest.approx(0.1), "a fifth of the stall"
    assert moments["in_flight"].max() == 25
    assert moments.loc[moments["start_s"].between(0.45, 0.75), "ok"].sum() == 0


def test_a_long_attack_is_not_cut_finer_than_a_reader_can_see() -> None:
    assert len(stalls.stall_over_time(stalled(50.0).assign(stall_s=0.001))) <= 62


def test_the_figure_crosses_out_tries_that_did_not_hold_and_counts_those_that_did() -> None:
    (axes,) = lags.figure(HOLDS).axes
    assert "0 of 3 held" in {text.get_text() for text in axes.texts}
    assert f"{lags.LABELS[False]}: did not hold (p99)" in axes.get_legend_handles_labels()[1]
    assert f"{lags.LABELS[True]}: did not hold (p99)" not in axes.get_legend_handles_labels()[1]


def test_the_stall_is_drawn_over_its_known_answer() -> None:
    (axes,) = stalls.figure(pd.concat([stalled(), stalled(50.0)])).axes
    assert axes.get_legend_handles_labels()[1] == [*stalls.LABELS.values(), "known answer"]
    known = np.asarray(axes.lines[-1].get_ydata())
    assert known.max() == pytest.approx(0.5)
    assert len(known) == 20, "the lowest rate"


def test_what_is_measured_is_kept_with_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "_measure", lambda *_: [stalled(flags=(BUSY,))])
    monkeypatch.setattr(lags, "_measure", lambda *_: HOLDS.to_dict("records"))
    run = open_run()
    for _ in ("measured", "kept"):
        assert stalls.measure(run, (10.0,), 0.5, 2.0)["flags"].iloc[0] == (BUSY,)
        assert lags.measure(run, (100.0,), 1.0)["flags"].tolist() == HOLDS["flags"].tolist()


@pytest.mark.parametrize("wrong", [[], [100_000], [0], [7**9]])
def test_the_control_takes_loops_that_one_server_can_run(wrong: list[int]) -> None:
    with pytest.raises(UsageError, match=r"parameter control_iterations(\[0\])? must"):
        study.Parameters.from_notebook(PARAMETERS | {"control_iterations": wrong})


@pytest.mark.parametrize("rate", [20.0, 400.0])
def test_few_and_many_requests_of_the_stalled_server_are_drawn_though_it_names_no_workers(
    rate: float,
) -> None:
    figure = stalls.over_time_figure(stalled(rate))
    assert len(figure.axes) == 3
    assert f"of {round(2 * rate):,} are answered" in figure.get_suptitle()
