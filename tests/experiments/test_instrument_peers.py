"""Other load generators beside ours: who agrees, from tables made by hand; and ours as one tool of many."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lab.experiments.instrument import peers as peer_tools
from lab.figures import title_of
from lab.flags import Flag
from lab.load import peers
from lab.load.attack import attack
from lab.load.peers import Job, Numbers, Tool
from lab.load.reference_server import reference_server
from lab.study.runs import open_run


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
        "flags": (),
    } | changes


OURS = row("lab attack", "open")
NOTHING = {
    name: np.nan for name, value in OURS.items() if isinstance(value, float) and name != "resolution_s"
}


def seen(*others: dict[str, Any], **ours: Any) -> pd.DataFrame:
    return pd.DataFrame([OURS | ours, *others])


def verdicts(*others: dict[str, Any], **ours: Any) -> list[peer_tools.Verdict]:
    """Return what is said of the others."""
    mine, *found = peer_tools.verdicts(seen(*others, **ours))
    assert mine == ""
    return found


def test_without_others_there_is_nothing_to_compare() -> None:
    assert verdicts() == []
    assert peer_tools.figure(seen(), 500) is None


def test_tools_that_keep_to_a_rate_agree_on_p50_and_p90() -> None:
    assert verdicts(row("vegeta", "open"), row("hey", p50_s=13e-3)) == ["agrees", "agrees"]
    assert verdicts(row("hey", p50_s=13.3e-3), row("loadtest", p50_s=9.1e-3)) == ["differs", "differs"]
    assert verdicts(row("hey", p90_s=19e-3)) == ["differs"]


def test_a_closed_loop_was_told_no_rate_and_is_not_judged() -> None:
    assert verdicts(row("wrk", "closed", p50_s=1.0)) == [""]


@pytest.mark.parametrize(
    ("others", "title"),
    [
        ([row("hey")], "At 500/s ours agrees with 1 of 1 other tool that keep to a rate"),
        ([row("hey", p50_s=1.0), row("locust", "open")], "At 500/s ours agrees with 1 of 2 other tools"),
        ([row("hey"), row("ab", "closed")], "At 500/s ours agrees with 1 of 1 other tool"),
    ],
)
def test_the_title_counts_those_that_agree(others: list[dict[str, Any]], title: str) -> None:
    figure = peer_tools.figure(seen(*others), 500)
    assert figure is not None
    assert title_of(figure).startswith(title)


def test_what_a_tool_rounds_away_is_no_disagreement() -> None:
    coarse: dict[str, Any] = {"p50_s": 14e-3, "p90_s": 18e-3}
    assert verdicts(row("loadtest", **coarse)) == ["differs"]
    assert verdicts(row("loadtest", resolution_s=1e-3, **coarse)) == ["agrees"]


def test_a_tool_that_rounds_to_more_than_a_tenth_cannot_tell() -> None:
    quick: dict[str, Any] = {"p50_s": 200e-6, "p90_s": 300e-6}
    others = row("loadtest", resolution_s=1e-3, p50_s=0.0, p90_s=1e-3), row("hey", **quick)
    assert verdicts(*others, **quick) == ["cannot tell", "agrees"]


def test_a_tool_without_quantiles_cannot_tell() -> None:
    assert (
        verdicts(row("locust", p50_s=np.nan, p90_s=np.nan), row("locust", p90_s=np.nan))
        == ["cannot tell"] * 2
    )


def test_nobody_agrees_with_ours_when_it_gave_no_numbers() -> None:
    assert verdicts(row("hey"), **NOTHING, failure="it crashed") == ["cannot tell"]


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
    assert table["CPU to start and end"].tolist() == ["–", "400 ms", start]
    assert table["CPU per 1,000 requests"].tolist() == ["–", "100 ms ± 40.8 ms", per_thousand]


def test_the_start_of_a_tool_is_no_disagreement() -> None:
    assert verdicts(row("locust", p99_s=0.2)) == ["agrees"]


def test_the_table_begins_with_what_is_known_and_has_every_count_to_the_last_request() -> None:
    table = peer_tools.table(seen(row("wrk", "closed", throughput_rps=9e4, requests=258_898.0)))
    known = table.iloc[0]
    assert (known["p50"], known["p90"], known["p99"]) == ("11.0 ms", "15.0 ms", "15.9 ms")
    assert table["its count"].tolist() == ["–", "1,000", "258,898"]
    assert table["server's count"].tolist() == ["–", "1,000", "1,000"]
    assert table["with ours"].tolist() == ["", "", ""]


def test_a_tool_that_fails_is_a_finding_and_not_an_end() -> None:
    failed = row("locust", "open", failure="locust failed with status 107: no such flag") | NOTHING
    assert verdicts(failed, row("hey")) == ["cannot tell", "agrees"]
    table = peer_tools.table(seen(failed))
    assert table[""].tolist() == ["", "", "locust failed with status 107: no such flag"]
    assert table["its count"].tolist() == ["–", "1,000", "–"]


def test_ours_is_doubted_like_all_others() -> None:
    late = Flag("send_lag", 0.02, 0.001)
    assert peer_tools.table(seen(flags=(late,)))[""].tolist() == ["", str(late)]


def test_the_figure_marks_three_quantiles_of_each_and_what_is_rounded_away() -> None:
    table = seen(
        row("autocannon", resolution_s=1e-3, p50_s=0.0), row("wrk", "closed"), row("locust") | NOTHING
    )
    figure = peer_tools.figure(table, 500)
    assert figure is not None
    (axes,) = figure.axes
    labels = [label.get_text().partition(",")[0] for label in axes.get_yticklabels()]
    assert labels == ["lab attack", "autocannon", "wrk"]
    assert [text.get_text() for text in axes.texts] == ["p50", "p90", "p99"]
    drawn = np.concatenate([np.asarray(line.get_xdata(), float) for line in axes.lines])
    assert (drawn > 0).all(), "nothing is lost on a logarithmic axis"
    figure.canvas.draw()


def test_ours_runs_as_the_command_it_is_and_others_that_fail_or_send_too_little_leave_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two others that ask nothing, one cannot be read, and the other not in its short run."""
    program = tmp_path / "mute"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)

    def read(_: str, job: Job) -> Numbers:
        if job.rate_rps < 100:
            raise ValueError("no request")
        return Numbers(100, 100.0, 0.011, 0.015, 0.016)

    mute = Tool("mute", "open", lambda _: [str(program)], lambda out, _: peers.read_autocannon(out))
    monkeypatch.setattr(peers, "present", lambda: [mute, replace(mute, name="slow", read=read)])
    run = open_run()
    table = peer_tools.compare(run, 100, 1)
    ours, unread, slow = table.to_dict("records")
    assert ours["requests"] == ours["server_count"] == 100
    assert ours["failure"] == slow["failure"] == ""
    with reference_server() as server:
        sending_s = attack(server.url, rate=500, duration=0.2).summary["generator"]["cpu_s"]
    assert ours["cpu_s"] > 2 * sending_s, "a whole process, its start included, costs more than 100 requests"
    assert 0 < ours["few_requests"] < 100
    assert ours["p50_s"] > 6e-3, "the server waits"
    assert unread["failure"].startswith("cannot read what mute says")
    assert peer_tools.table(table)["CPU per 1,000 requests"].iloc[3] == "–"
    pd.testing.assert_frame_equal(peer_tools.compare(run, 100, 1), table)
