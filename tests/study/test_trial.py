"""A real trial: a server of our own, under a real attack; and what its reader sees of the progress."""

import os
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import pytest
import requests
from helpers.quotas import groups, needs_a_quota
from helpers.study_fakes import condition

from lab.errors import LabError
from lab.servers.peers import peer
from lab.study.runs import open_run
from lab.study.trial import fresh_server

SHORT = {"iterations": 20_000, "duration_s": 1.0}


def test_a_trial_serves_attacks_and_leaves_no_process() -> None:
    run = open_run()
    conditions = [
        condition(20, **SHORT),
        condition(20, **SHORT, topology="cluster", workers=2, dispatch="round-robin", arrivals="poisson"),
    ]
    trials = run.measure("real", conditions, blocks=1, seed=1).set_index("topology")
    assert psutil.Process().children(recursive=True) == []
    assert (trials["planned"] == trials["ok"]).all()
    assert trials.loc["single", "planned"] == 20
    assert trials["workers_seen"].to_dict() == {"single": 1, "cluster": 2}
    assert (trials["service_p50_s"] > 0).all()
    assert (trials["latency_p50_s"] > trials["service_p50_s"]).all()
    answered = run.requests("real")
    in_loops_s = answered.groupby("topology")["service_cpu_s"].sum()
    assert (trials["server_cpu_s"].sub(0.9 * in_loops_s) > 0).all(), "its clock ticks in hundredths"
    assert (answered["latency_s"] > answered["service_s"]).all()
    assert len(answered) == trials["planned"].sum()
    assert trials[["quota_cpus", "cpu_periods", "cpu_throttled_s"]].isna().to_numpy().all()


def test_a_trial_of_a_peer_is_kept_as_one_of_ours_is() -> None:
    if command := peer("gunicorn-sync").missing:
        pytest.skip(f"gunicorn is not on this machine: {command}")
    run = open_run()
    conditions = [condition(40, **SHORT, peer="gunicorn-sync", topology="cluster", workers=2)]
    (trial,) = run.measure("theirs", conditions, blocks=1, seed=1).to_dict("records")
    assert trial["peer"] == "gunicorn-sync"
    assert trial["ok"] == trial["planned"] == 40
    assert trial["service_p50_s"] >= 0.9 * trial["service_cpu_p50_s"] > 0
    assert trial["server_cpu_s"] > 0.9 * run.requests("theirs")["service_cpu_s"].sum()


@needs_a_quota
def test_a_trial_under_a_quota_says_how_often_its_server_was_stopped() -> None:
    run = open_run()
    conditions = [condition(60, **SHORT, quota_cpus=0.1)]
    held = run.measure("held", conditions, blocks=1, seed=1).iloc[0]
    assert held["quota_cpus"] == 0.1
    assert 0 < held["cpu_periods_throttled"] <= held["cpu_periods"]
    assert held["cpu_throttled_s"] > 0
    assert not [group for group in groups() if f"-{os.getpid()}-" in group.name]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
@pytest.mark.parametrize(
    ("dispatch", "asked", "kept", "pin"),
    [("shared", False, False, False), ("shared", True, True, True), ("least-busy", True, False, False)],
)
def test_connections_are_kept_if_both_sides_want_and_workers_are_pinned_if_asked(
    dispatch: str, asked: bool, kept: bool, pin: bool
) -> None:
    here = os.sched_getaffinity(0)
    changes = {"topology": "cluster", "workers": 2, "dispatch": dispatch, "keepalive": asked, "pin": pin}
    with fresh_server(condition(20, **SHORT, **changes)) as server:
        places = [os.sched_getaffinity(pid) for pid in server.workers]
        with requests.get(server.url, timeout=30) as answer:
            assert (answer.headers.get("Connection") != "close") == kept
    assert places == ([{cpu} for cpu in sorted(here) * 2][:2] if pin else [here, here])


def test_a_server_that_answers_with_an_error_is_told_in_one_line() -> None:
    run = open_run()
    with pytest.raises(LabError, match="did not answer its warm-up: 404") as error:
        run.measure("real", [condition(20, **SHORT, path="/nowhere")], blocks=1, seed=1)
    assert "\n" not in str(error.value)
    assert len(run.trials("real")) == 0
    assert psutil.Process().children(recursive=True) == []


NOTEBOOK = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from helpers.study_fakes import condition, fake_attack
from lab.study.runs import open_run

conditions = [condition(rate) for rate in (20, 40, 80)]
run = open_run("watched")
trials = run.measure("sweep", conditions, blocks=2, seed=1, execute=fake_attack)
"""


def test_a_notebook_shows_one_line_that_ends_as_a_quiet_sentence(tmp_path: Path) -> None:
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(NOTEBOOK), nbformat.v4.new_code_cell(NOTEBOOK)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "in.ipynb")
    done: Any = papermill.execute_notebook(
        str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), kernel_name="python3", progress_bar=False
    )
    first, second = done.cells
    (output,) = first.outputs
    assert output.output_type == "display_data"
    assert output.data["text/plain"].startswith("sweep: 6 trials measured, 0 from disk, in ")
    assert second.outputs == []
