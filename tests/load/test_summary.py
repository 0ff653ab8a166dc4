"""Numbers against numpy's and against hand-made records; the report of a fixed record, to the letter."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.load_rows import GENERATOR, any_rows, rows
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.flags import Flag
from lab.load.attack import summarized
from lab.load.log import OUTCOMES, Outcome
from lab.load.report import Slo, histogram, report
from lab.load.summary import distribution, flags_against

URL = "http://127.0.0.1:8000/"


def numbers(requests: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "url": URL,
        "arrivals": "constant",
        "rate": 10.0,
        "duration_s": 1.0,
        "generator": GENERATOR,
        "warmup_errors": {},
    }
    return summarized(requests, **(asked | changes)).summary


@given(any_rows)
def test_planned_is_the_sum_and_json_holds_it(requests: pd.DataFrame) -> None:
    summary = numbers(requests)
    assert summary["planned"] == sum(summary["outcomes"].values()) == len(requests)
    assert summary["warmup"]["planned"] == 0
    assert summary["planned"] >= summary["sent"] >= summary["requests"] >= summary["ok"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@given(st.lists(st.floats(0, 1e4), min_size=1))
def test_quantiles_are_numpys_and_in_order(values: list[float]) -> None:
    found = distribution(np.array(values), (50, 90, 99))
    in_order = [found[name] for name in ("min", "p50", "p90", "p99", "max")]
    assert in_order == np.quantile(values, [0, 0.5, 0.9, 0.99, 1], method="linear").tolist()
    assert (np.diff(np.array(in_order, float)) >= 0).all()


def test_quantiles_of_a_hand_checked_case() -> None:
    found = distribution(np.array([4.0, 1.0, 3.0, 2.0]), (50, 99))
    assert found == {"min": 1, "mean": 2.5, "p50": 2.5, "p99": pytest.approx(3.97), "max": 4}


def test_fifteen_hundred_at_fifty_read_fifty() -> None:
    summary = numbers(rows([0.02] * 1500, interval_s=0.02), rate=50.0, duration_s=30.0)
    assert summary["throughput"] == pytest.approx(50)
    assert summary["sent_rate"] == 50
    assert "1500, 50.00, 50.00" in report(summary)
    assert "1500, 50.00\n" in report(summary)


@pytest.mark.parametrize(
    ("changes", "sent", "lag_s", "sent_rate"),
    [
        ({"stopped_s": 10.013}, 501, 0.0, 50.0),  # until the next would have been due, at 10.02 s
        ({"stopped_s": 10.0}, 100, 0.0, 10.0),  # the generator stood still from 2 s on
        ({"stopped_s": 40.0}, 1500, 0.0, 50.0),  # all was sent, and answers were waited for
        ({"stopped_s": -0.5}, 0, 0.0, 0.0),  # in the warm-up
        ({}, 1500, 15.02, 1500 / 45),  # the last left 15 s after the end of the plan
        ({}, 1500, 0.001, 50.0),
        ({}, 3, 0.0, 0.1),  # the others never got a slot
        ({"arrivals": "poisson", "duration_s": 32.0}, 1500, 0.0, 1500 / 32),
        ({"arrivals": "constant", "duration_s": 29.99}, 1500, 0.0, 50.0),  # 1,499.5 are 1,500
    ],
)
def test_the_rate_that_was_sent_is_not_the_rate_that_was_asked(
    changes: dict[str, Any], sent: int, lag_s: float, sent_rate: float
) -> None:
    outcomes = [Outcome.OK] * sent + [Outcome.DROPPED] * (1500 - sent)
    requests = rows([20.0] * 1500, outcomes, interval_s=0.02, lag_s=lag_s)
    summary = numbers(requests, **({"rate": 50.0, "duration_s": 30.0} | changes))
    assert summary["rate"] == 50
    assert summary["sent_rate"] == pytest.approx(sent_rate)


def test_what_is_answered_until_a_calm_interrupt_is_the_rate_that_was_sent() -> None:
    outcomes = [Outcome.OK] * 501 + [Outcome.DROPPED] * 999
    requests = rows([0.001] * 1500, outcomes, interval_s=0.02)
    summary = numbers(requests, rate=50.0, duration_s=30.0, stopped_s=10.013)
    assert summary["throughput"] == summary["sent_rate"] == pytest.approx(50)


def test_the_warm_up_is_counted_apart() -> None:
    outcomes = [Outcome.RESET, Outcome.OK, Outcome.OK, Outcome.HTTP_ERROR]
    requests = rows([0.1] * 4, outcomes)
    early = requests.assign(**{name: requests[name] - 0.2 for name in ("due_s", "sent_s", "end_s")})
    summary = numbers(early, errors={"503": 1}, warmup_errors={"gone": 1})
    assert (summary["planned"], summary["ok"], summary["errors"]) == (2, 1, {"503": 1})
    warmup = summary["warmup"]
    assert (warmup["planned"], warmup["sent"], warmup["errors"]) == (2, 2, {"gone": 1})
    assert warmup["outcomes"] == dict.fromkeys(OUTCOMES, 0) | {"ok": 1, "reset": 1}
    assert "ok:1, reset:1; 1 gone" in report(summary)


def test_failures_count_into_latency_and_not_into_throughput() -> None:
    outcomes = [Outcome.OK, Outcome.OK, Outcome.TIMEOUT, Outcome.DROPPED, Outcome.UNFINISHED]
    summary = numbers(rows([0.1, 0.1, 5.0, 0.0, 0.0], outcomes))
    assert (summary["planned"], summary["sent"], summary["requests"], summary["ok"]) == (5, 4, 3, 2)
    assert summary["latency_s"]["max"] == pytest.approx(5)
    assert summary["latency_ok_s"]["max"] == pytest.approx(0.1)
    assert summary["success"] == pytest.approx(2 / 5)
    assert summary["throughput"] == pytest.approx(2 / 5.2)


def test_nothing_is_null_not_a_number() -> None:
    summary = numbers(rows([0.0] * 3, [Outcome.DROPPED] * 3))
    assert set(summary["latency_s"].values()) == {None}
    assert summary["throughput"] == 0
    assert "-" in report(summary)


REPORT = """\
Requests      [planned, rate, throughput]       4, 10.00, 7.32
Sent          [count, rate]                     4, 10.00
Duration      [attack, total]                   1.00 s, 410 ms
Latencies     [min, mean, 50, 90, 95, 99, max]  20.0 ms, 72.5 ms, 75.0 ms, 117 ms, 118 ms, 120 ms, 120 ms
  of ok       [min, mean, 50, 90, 95, 99, max]  20.0 ms, 56.7 ms, 40.0 ms, 96.0 ms, 103 ms, 109 ms, 110 ms
Service       [min, mean, 50, 90, 95, 99, max]  20.0 ms, 20.0 ms, 20.0 ms, 20.0 ms, 20.0 ms, 20.0 ms, 20.0 ms
  of CPU      [min, mean, 50, 90, 95, 99, max]  10.0 ms, 10.0 ms, 10.0 ms, 10.0 ms, 10.0 ms, 10.0 ms, 10.0 ms
Send Lag      [50, 99, max]                     500 µs, 500 µs, 500 µs
Bytes In      [total, mean]                     136, 34.00
Success       [ratio]                           75.00%
Outcomes      [kind:count]                      ok:3, http_error:1
Status Codes  [code:count]                      200:3, 503:1
Workers       [pid:count]                       11:2, 12:2
Generator     [cpu, longest stall]              250 ms, 2.00 ms
              [real-time priority]              no
Valid         [yes or why not]                  yes
Error Set:
      1  503 Service Unavailable"""


def test_the_report_to_the_letter() -> None:
    outcomes = [Outcome.OK, Outcome.OK, Outcome.HTTP_ERROR, Outcome.OK]
    requests = rows([0.02, 0.04, 0.08, 0.11], outcomes, lag_s=0.0005)
    requests.loc[2, "end_s"] = 0.32
    summary = numbers(requests, errors={"503 Service Unavailable": 1})
    assert report(summary) == REPORT


def test_the_histogram_counts_every_request_that_ended() -> None:
    lines = histogram(
        rows([0.003, 0.004, 0.015, 0.02, 9.0], [*[Outcome.OK] * 4, Outcome.TIMEOUT])
    ).splitlines()
    assert [int(line.split()[5]) for line in lines] == [2, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert lines[0].split()[:5] == ["2.00", "ms", "to", "5.00", "ms"]
    assert histogram(rows([0.0], [Outcome.DROPPED])) == "no request ended"


@pytest.mark.parametrize(
    ("text", "missed"),
    [
        ("p99=250ms", None),
        ("p99=50ms", "p99 is 99.1 ms, over 50.0 ms"),
        ("max=100 ms", None),
        ("p99=99.2 ms", None),
        ("success=75%", None),
        ("success=99.9 %", "success is 75 %, under 99.9 %"),
        ("success=0.8", "success is 75 %, under 80 %"),
    ],
)
def test_objectives_are_met_or_say_how_they_are_not(text: str, missed: str | None) -> None:
    outcomes = [Outcome.OK, Outcome.OK, Outcome.RESET, Outcome.OK]
    assert Slo.parse(text).missed(numbers(rows([0.07, 0.02, 0.04, 0.1], outcomes))) == missed


def test_fast_failures_do_not_meet_an_objective_of_latency() -> None:
    failed = numbers(rows([0.001] * 100, [Outcome.HTTP_ERROR] * 100))
    latency, success = Slo.parse_all(["p99=250ms"])
    assert latency.missed(failed) is None
    assert success.missed(failed) == "success is 0 %, under 99 %, which a latency SLO implies"
    assert success.to_dict(failed) == {
        "name": "success", "limit": 0.99, "implied": True, "value": 0.0, "met": False,
    }  # fmt: skip
    assert "[success >= 99 %, implied]" in report(failed, [latency, success])
    assert Slo.parse_all(["p99=250ms", "success=50%"])[1].limit == 0.5
    assert Slo.parse_all([]) == []


@pytest.mark.parametrize("text", ["p99=250", "max=0.1", "mean=3."])
def test_a_latency_without_a_unit_is_refused_with_the_spelling(text: str) -> None:
    with pytest.raises(UsageError, match=r"say the unit, \w+=[\d.]+ms or \w+=[\d.]+s$"):
        Slo.parse(text)


def test_without_errors_there_is_no_heading_of_them() -> None:
    assert "Error" not in report(numbers(rows([0.1])))


def test_errors_are_harmless_to_a_terminal_and_the_rare_ones_are_summed_up() -> None:
    errors = {f"503 \x1b[31m{number}": 1000 - number for number in range(1000)}
    said = report(numbers(rows([0.1], [Outcome.HTTP_ERROR]), errors=errors))
    assert "\x1b" not in said
    lines = said.partition("Error Set:\n")[2].splitlines()
    assert lines[0].split(maxsplit=1) == ["1000", r"503 \x1b[31m0"]
    assert lines[-1].split(maxsplit=1) == ["490545", "990 other errors, see --format json"]
    assert len(lines) == 11


def test_a_loop_time_that_is_no_number_is_in_no_summary() -> None:
    summary = numbers(rows([0.1, 0.1]).assign(service_s=[np.inf, 0.02]))
    assert summary["service_s"]["max"] == 0.02
    json.dumps(summary, allow_nan=False)


def test_an_objective_is_not_met_by_silence() -> None:
    nothing = numbers(rows([0.0], [Outcome.DROPPED]))
    assert Slo.parse("p50=1s").missed(nothing) == "p50 is unknown: no request ended"


@pytest.mark.parametrize(
    "text", ["p99", "p99=", "p99=fast", "p98=1s", "=1s", "success=101%", "success=x", "success=0", ""]
)
def test_malformed_objectives_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="malformed"):
        Slo.parse(text)


@pytest.mark.parametrize(
    ("latency_p50_s", "generator", "flags"),
    [
        (0.0005, {"lag_p99_s": 0.0009}, []),
        (0.0005, {"lag_p99_s": 0.002}, [Flag("send_lag", 0.002, 0.001)]),
        (0.1, {"lag_p99_s": 0.002}, []),
        (0.1, {"lag_p99_s": 0.02}, [Flag("send_lag", 0.02, 0.01)]),
        (2.0, {"lag_p99_s": 0.05}, [Flag("send_lag", 0.05, 0.01)]),
        (0.1, {"lag_p99_s": 0.02, "waited": 5}, [Flag("send_lag", 0.02, 0.01)]),
        (0.1, {"lag_p99_s": None, "waited": 5}, []),
        (0.1, {"stall_longest_s": 0.2}, [Flag("stall", 0.2, 0.1)]),
        (0.1, {"stalled_share": 0.05}, [Flag("stalled", 0.05, 0.01)]),
        (0.1, {"cpu_share": 0.97}, [Flag("generator_cpu", 0.97, 0.9)]),
        (
            0.1,
            {"lag_p99_s": 0.5, "cpu_share": 0.97},
            [Flag("send_lag", 0.5, 0.01), Flag("generator_cpu", 0.97, 0.9)],
        ),
        (0.1, {"cpu_share": 0.5, "cpu_share_of_all": 0.95}, [Flag("generators_cpu", 0.95, 0.9)]),
        (None, {}, []),
    ],
)
def test_what_spoils_a_result_is_flagged_with_its_value_and_limit(
    latency_p50_s: float | None, generator: dict[str, float | None], flags: list[Flag]
) -> None:
    assert flags_against(latency_p50_s, generator) == flags


def test_failures_of_the_client_itself_spoil_a_result() -> None:
    outcomes = [Outcome.OK] * 998 + [Outcome.CLIENT_ERROR] * 2
    assert numbers(rows([0.01] * 1000, outcomes))["flags"] == [Flag("client_errors", 0.002, 0.001).to_dict()]
    assert numbers(rows([0.01] * 1000, [Outcome.OK] * 999 + [Outcome.CLIENT_ERROR]))["valid"]


def test_flags_become_words_where_they_are_shown() -> None:
    (why,) = numbers(rows([0.1]), generator=GENERATOR | {"lag_p99_s": 0.02})["invalid_because"]
    assert why == "the generator fell behind: send lag p99 20.0 ms (limit 10.0 ms)"


def test_a_flag_of_a_later_version_keeps_its_code() -> None:
    later = Flag("p99_drift", 12.5, 10.0)
    assert Flag.from_dict(later.to_dict()) == later
    assert str(later) == "flagged by a later version: p99_drift 12.5 (limit 10)"
