"""Other load generators beside ours: who agrees, from tables made by hand; and ours as one tool of many."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lab.experiments.instrument import figure as figures
from lab.experiments.instrument import peers as peer_tools
from lab.load import attack, peers
from lab.load.peers import Tool, reports
from lab.load.peers.tools import Job
from lab.load.reference_server import known_server
from lab.study.run import open_run


def row(tool: str, schedule: str = "paced", **changes: Any) -> dict[str, Any]:
    """Make what a tool says that did all as asked: 1,000 requests at 500/s, p50 11 and p90 15 ms.

    Its start costs .4 s of CPU time, a request .1 ms.
    """
    return {
        "tool": tool,
        "schedule": schedule,
        "resolution_s": 0.0,
        "requests": 1000.0,
        "throughput_rps": 500.0,
        "p50_s": 11e-3,
        "p90_s": 15e-3,
        "p99_s": 16e-3,
        "cpu_s": 0.5,
        "server_count": 1000.0,
        "few_requests": 20.0,
        "few_cpu_s": 0.402,
        "failure": "",
        "doubts": "",
    } | changes


OURS = row("lab attack", "open")
NOTHING = {
    name: np.nan for name, value in OURS.items() if isinstance(value, float) and name != "resolution_s"
}


def seen(*others: dict[str, Any], **ours: Any) -> pd.DataFrame:
    return pd.DataFrame([OURS | ours, *others])


def reading(*others: dict[str, Any], **ours: Any) -> list[str]:
    return peer_tools.reading(seen(*others, **ours), 500).splitlines()


def test_without_others_only_known_answers_judge() -> None:
    known, alone, counts, absent = reading()
    assert known.endswith(
        "waits before each answer, p50 11.0 ms and p90 15.0 ms; ours reads 11.0 ms and 15.0 ms."
    )
    assert "No other tool that keeps to a rate is here" in alone
    assert counts == "- Every tool's count of requests is the server's."
    assert absent == "- Not on this machine: vegeta, wrk, hey, ab, autocannon, loadtest, locust, k6, oha."
    assert figures.peer_tools(seen(), "a title") is None


def test_tools_that_agree_are_named() -> None:
    _, agreement, *_ = reading(
        row("vegeta", "open"), row("hey", p50_s=13e-3), row("wrk", "closed", p50_s=1.0)
    )
    assert agreement.startswith(
        "- Of those that can keep to a rate, 2 of 2 other tools agree with ours on p50 and"
    )
    assert agreement.endswith(": vegeta, hey.")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([row("hey")], "At 500/s 1 of 1 other tool agrees with ours"),
        ([row("hey", p50_s=1.0), row("k6", "open")], "At 500/s 1 of 2 other tools agrees with ours"),
        ([row("hey"), row("k6", "open"), row("ab", "closed")], "At 500/s 2 of 2 other tools agree with ours"),
        ([row("ab", "closed")], "No other tool that keeps to a rate is here"),
    ],
)
def test_the_title_counts_those_that_agree(others: list[dict[str, Any]], words: str) -> None:
    assert peer_tools.title(seen(*others), 500).startswith(words)


@pytest.mark.parametrize(("p50_s", "said"), [(13.3e-3, "13.3 ms"), (9.1e-3, "9.10 ms")])
def test_one_that_disagrees_is_told_with_both_numbers(p50_s: float, said: str) -> None:
    _, agreement, *_ = reading(row("hey", p50_s=p50_s), row("oha"))
    assert "1 of 2 other tools agrees" in agreement
    assert f": oha. **hey** does not: p50 {said}, ours 11.0 ms." in agreement


def test_what_a_tool_rounds_away_is_no_disagreement() -> None:
    coarse: dict[str, Any] = {"p50_s": 14e-3, "p90_s": 18e-3}
    assert "**loadtest** does not" in reading(row("loadtest", **coarse))[1]
    assert reading(row("loadtest", resolution_s=1e-3, **coarse))[1].endswith(": loadtest.")


def test_a_tool_that_rounds_to_more_than_a_tenth_cannot_tell() -> None:
    quick: dict[str, Any] = {"p50_s": 200e-6, "p90_s": 300e-6}
    others = row("loadtest", resolution_s=1e-3, p50_s=0.0, p90_s=1e-3), row("hey", **quick)
    agreement = reading(*others, **quick)[1]
    assert "1 of 2 other tools agrees" in agreement
    assert "**loadtest** cannot tell: it rounds to 1.00 ms, over a tenth of our p50." in agreement
    assert peer_tools.title(seen(*others, **quick), 500).endswith("agrees with ours, 1 cannot tell")


def test_a_tool_without_quantiles_cannot_tell() -> None:
    assert (
        "**k6** cannot tell: it gave no p50 and no p90." in reading(row("k6", p50_s=np.nan, p90_s=np.nan))[1]
    )
    assert "**k6** cannot tell: it gave no p90." in reading(row("k6", p90_s=np.nan))[1]


def test_nobody_agrees_with_ours_when_it_gave_no_numbers() -> None:
    title = peer_tools.title(seen(row("hey"), **NOTHING, failure="it crashed"), 500)
    assert title == "At 500/s ours gave no numbers to compare others with"


@pytest.mark.parametrize(
    ("cpu_s", "start", "per_thousand"),
    [
        (0.5, "400 ms", "100 ms ± 40.8 ms"),
        (0.412, "402 ms", "under 82.0 ms"),
        (0.39, "402 ms", "under 82.1 ms"),
    ],
)
def test_starting_a_tool_and_sending_are_told_apart(cpu_s: float, start: str, per_thousand: str) -> None:
    table = peer_tools.table(seen(row("hey", cpu_s=cpu_s)))
    assert table["CPU to start and end"].tolist() == ["400 ms", start]
    assert table["CPU per 1,000 requests"].tolist() == ["100 ms ± 40.8 ms", per_thousand]


def test_the_start_of_a_tool_is_no_disagreement() -> None:
    assert "does not" not in reading(row("locust", p99_s=0.2))[1]


def test_rates_and_counts_that_are_off_are_told() -> None:
    off = (
        row("autocannon", throughput_rps=530.0),
        row("wrk", "closed", throughput_rps=9e4, requests=258_898.0),
    )
    _, _, rates, counts, _ = reading(*off)
    assert rates == "- Asked for 500/s, autocannon got 530/s."
    assert counts == ("- Counts that are not the server's: wrk counts 258,898 and the server 1,000."), (
        "to the last request: three digits would hide what differs"
    )


def test_a_tool_that_fails_is_a_finding_and_not_an_end() -> None:
    failed = row("k6", "open", failure="k6 failed with status 107: no such flag") | NOTHING
    _, agreement, counts, _ = reading(failed, row("hey"))
    assert "**k6** cannot tell: it gave no numbers (k6 failed with status 107: no such flag)." in agreement
    assert "Every tool's count" in counts
    table = peer_tools.table(seen(failed))
    assert table[""].tolist() == ["", "k6 failed with status 107: no such flag"]
    assert table["CPU per 1,000 requests"].tolist() == ["100 ms ± 40.8 ms", "–"]
    assert table["its count"].tolist() == ["1,000", "–"]


def test_ours_is_judged_like_all_others() -> None:
    assert reading(doubts="it fell behind")[0].endswith(
        "**Ours does not believe itself here**: it fell behind."
    )
    assert peer_tools.table(seen(doubts="it fell behind"))[""].tolist() == ["it fell behind"]
    lines = reading(row("hey"), **NOTHING, failure="it crashed")
    assert lines[0] == "- **Ours cannot be compared**: it gave no numbers (it crashed)."
    assert not any("agree with ours" in line for line in lines)


def test_the_figure_marks_three_quantiles_of_each_and_what_is_rounded_away() -> None:
    table = seen(row("autocannon", resolution_s=1e-3, p50_s=0.0), row("wrk", "closed"), row("k6") | NOTHING)
    figure = figures.peer_tools(table, "a title")
    assert figure is not None
    (axes,) = figure.axes
    labels = [label.get_text().partition(",")[0] for label in axes.get_yticklabels()]
    assert labels == ["lab attack", "autocannon", "wrk"]
    assert axes.get_legend_handles_labels()[1] == ["p50", "p90", "p99"]
    drawn = np.concatenate([np.asarray(line.get_xdata(), float) for line in axes.lines])
    assert (drawn > 0).all(), "nothing is lost on a logarithmic axis"
    figure.canvas.draw()


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Let there be one other tool, which asks nothing and cannot be read."""
    program = tmp_path / "mute"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)
    tool = Tool("mute", "open", lambda _: [str(program)], lambda out, _: reports.k6(out))
    monkeypatch.setattr(peers, "present", lambda: [tool])
    return tool


def test_a_tool_that_sends_nothing_in_the_short_run_is_still_compared(
    only: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: str, job: Job) -> reports.Numbers:
        if job.rate_rps < 100:
            raise ValueError("no request")
        return reports.Numbers(100, 100, 100.0, 0.011, 0.011, 0.015, 0.016, 0.017)

    monkeypatch.setattr(peers, "present", lambda: [replace(only, read=read)])
    table = peer_tools.compare(open_run(), 100, 1)
    assert table["failure"].tolist() == ["", ""]
    assert peer_tools.table(table)["CPU per 1,000 requests"].iloc[1] == "–"


@pytest.mark.usefixtures("only")
def test_ours_runs_as_the_command_it_is_and_one_that_fails_leaves_the_rest() -> None:
    run = open_run()
    table = peer_tools.compare(run, 100, 1)
    ours, mute = table.to_dict("records")
    assert ours["requests"] == ours["server_count"] == 100
    assert ours["failure"] == ""
    with known_server() as server:
        sending_s = attack(server.url, rate=500, duration=0.2).summary["generator"]["cpu_s"]
    assert ours["cpu_s"] > 2 * sending_s, "a whole process, its start included, costs more than 100 requests"
    assert 0 < ours["few_requests"] < 100
    assert ours["p50_s"] > 6e-3, "the server waits"
    assert mute["failure"].startswith("cannot read what mute says")
    pd.testing.assert_frame_equal(peer_tools.compare(run, 100, 1), table)
