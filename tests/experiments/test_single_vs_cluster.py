"""The article's experiment: fed with exact deterministic latencies, measurement and theory are one."""

import math
import re
from typing import Any

import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab.errors import UsageError
from lab.experiments import single_vs_cluster as study
from lab.experiments.claims import Word
from lab.models.statistics import BETWEEN_RUNS

PARAMETERS: dict[str, Any] = {
    "run": "",
    "rate": 20,
    "duration_s": 5,
    "workers": 2,
    "dispatch": "shared",
    "kernel": "python",
    "iterations": 1000,
    "timeout_s": 30,
    "blocks": 1,
    "search_iterations": "auto",
    "search_s": 1,
    "slo_percentile": 95,
    "slo_loops": 3,
    "precision": 0.05,
    "seed": 1,
}
SERVICE_S = 0.04
LOAD: dict[str, Any] = {"rate": 50.0, "duration_s": 2.0, "planned": 100, "service_mean_s": SERVICE_S}
SLOWEST_S = SERVICE_S + 99 * (SERVICE_S - 1 / 50)
SINGLE: dict[str, Any] = {
    "topology": "single",
    "latency_min_s": SERVICE_S,
    "latency_mean_s": (SERVICE_S + SLOWEST_S) / 2,
    "latency_max_s": SLOWEST_S,
    "throughput_rps": 25.0,
    "server_cpu_s": 9.8,
}
CLUSTER: dict[str, Any] = {
    "topology": "cluster",
    "workers": 2,
    "latency_min_s": SERVICE_S,
    "latency_mean_s": SERVICE_S,
    "latency_max_s": SERVICE_S,
    "throughput_rps": 50.0,
}
"""What 100 requests at 50/s see exactly: one worker of 25/s falls behind by 20 ms a request, two keep up."""


@pytest.fixture
def exact() -> pd.DataFrame:
    return trials(SINGLE, CLUSTER, **LOAD)


def test_the_conditions_are_one_process_and_a_cluster_under_the_same_load() -> None:
    single, cluster = study.conditions(study.Parameters(**PARAMETERS))
    assert (single.topology, single.workers) == ("single", 1)
    assert (cluster.topology, cluster.workers, cluster.dispatch) == ("cluster", 2, "shared")
    for one in (single, cluster):
        assert (one.rate, one.duration_s, one.iterations, one.timeout_s) == (20, 5, 1000, 30)


def test_theory_is_the_line_of_a_deterministic_overload(exact: pd.DataFrame) -> None:
    theory = study.theory(exact)
    single = theory[theory["topology"] == "single"]
    assert single["due_s"].tolist() == pytest.approx([k / 50 for k in range(100)])
    assert single["latency_s"].tolist() == pytest.approx([0.04 + 0.02 * k for k in range(100)])
    cluster = theory[theory["topology"] == "cluster"]
    assert cluster["latency_s"].tolist() == pytest.approx([0.04] * 100)
    assert theory["ok"].all()


def test_exact_latencies_are_once_the_theory(exact: pd.DataFrame) -> None:
    table = study.beside_theory(exact)
    assert table["mean, measured / theory"].tolist() == ["1.00", "1.00"]
    assert table["slowest, measured"].tolist() == table["slowest, theory"].tolist() == ["2.02 s", "40.0 ms"]


def test_twice_the_latency_is_twice_the_theory(exact: pd.DataFrame) -> None:
    slow = exact.assign(latency_mean_s=2 * exact["latency_mean_s"])
    table = study.beside_theory(slow)
    assert table["mean, measured / theory"].tolist() == ["2.00", "2.00"]


def test_the_time_out_bounds_the_theory(exact: pd.DataFrame) -> None:
    theory = study.theory(exact.assign(timeout_s=1.0))
    single = theory[theory["topology"] == "single"]
    assert single["latency_s"].max() == 1.0
    assert single["ok"].sum() == 49  # request k is answered after .04 + .02 k s: 0 to 48 within 1 s


def test_the_article_stands_beside_our_medians(exact: pd.DataFrame) -> None:
    rows = {row[0]: row[1:] for row in study.beside_the_article(exact).to_numpy().tolist()}
    assert rows == {
        "the article, plain": ["1500", "73.6 %", "27.04/s", "97 µs", "21.7 s"],
        "the article, 8 workers": ["1500", "100 %", "50/s", "31.6 ms", "42.9 ms"],
        "here, one process": ["100", "100 %", "25.0/s", "40.0 ms", "2.02 s"],
        "here, 2 workers, round-robin": ["100", "100 %", "50.0/s", "40.0 ms", "40.0 ms"],
    }


def falling_behind(trials: pd.DataFrame) -> tuple[str, ...]:
    """Read from the answer in how many blocks one process and the cluster fell behind."""
    found = re.search(r"one process in (\d of \d) blocks?, the cluster in (\d of \d)", study.answer(trials))
    assert found is not None
    return found.groups()


def test_one_server_alone_is_told(exact: pd.DataFrame) -> None:
    alone = study.answer(exact[exact["topology"] == "single"])
    assert alone.endswith("one process in 1 of 1 block.")


def test_who_falls_behind(exact: pd.DataFrame) -> None:
    assert falling_behind(exact) == ("1 of 1", "0 of 1")
    loops = exact.assign(service_cpu_mean_s=0.0832)
    assert "/s with loops of 83.2 ms: one process" in study.answer(loops), "a search has shorter ones"
    assert falling_behind(exact.assign(service_mean_s=0.01)) == ("0 of 1", "0 of 1")
    assert falling_behind(exact.assign(service_mean_s=0.05)) == ("1 of 1", "1 of 1")


def test_only_six_blocks_that_agree_are_a_finding(exact: pd.DataFrame) -> None:
    assert [verdict.word for verdict in study.verdicts(exact, cpus=2)] == [Word.UNTOLD, Word.UNTOLD]
    six = pd.concat([exact.assign(block=block) for block in range(1, 7)], ignore_index=True)
    assert falling_behind(six) == ("6 of 6", "0 of 6")
    assert [verdict.word for verdict in study.verdicts(six, cpus=2)] == [Word.HOLDS, Word.HOLDS]
    six.loc[six["block"] == 4, "service_mean_s"] = 0.015
    assert falling_behind(six) == ("5 of 6", "0 of 6")
    assert study.verdicts(six, cpus=2)[1].word is Word.UNTOLD


def test_lost_requests_mean_falling_behind_at_any_rate(exact: pd.DataFrame) -> None:
    lost = exact.assign(service_mean_s=0.01, success=[1.0, 0.98])
    assert falling_behind(lost) == ("0 of 1", "1 of 1")


def test_a_server_that_answers_nothing_is_judged_by_the_calibrated_loop() -> None:
    nothing = {
        "ok": 0,
        "success": 0.0,
        "throughput_rps": 0.0,
        "service_mean_s": math.nan,
        "latency_mean_s": 1.0,
        "latency_max_s": 1.0,
    }
    dead = trials(SINGLE | nothing, CLUSTER, **LOAD | {"timeout_s": 1.0, "loop_s": 2.0})
    assert falling_behind(dead) == ("1 of 1", "0 of 1")
    theory = study.theory(dead)
    assert theory.loc[theory["topology"] == "single", "latency_s"].tolist() == [1.0] * 100
    assert not theory.loc[theory["topology"] == "single", "ok"].any()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"rate": 0}, "rate"), ({"workers": 0}, "workers"), ({"kernel": "c"}, "kernel"), ({"seed": -1}, "seed")],
)
def test_impossible_parameters_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        study.Parameters.from_notebook(PARAMETERS | change)


def _six_blocks() -> pd.DataFrame:
    """Make six blocks of a machine that changes its speed, in which two workers answer 1.8 times as much."""
    servers: list[dict[str, Any]] = [{"topology": "single"}, {"topology": "cluster", "workers": 2}]
    return trials(
        *(
            server | {"block": block, "throughput_rps": rate_rps * server.get("workers", 1) ** 0.848}
            for block, rate_rps in enumerate([10, 16, 10, 16, 10, 16], start=1)
            for server in servers
        )
    )


def test_the_ratio_is_paired_so_that_the_speed_of_a_block_cancels() -> None:
    ratio = study.gain(_six_blocks())
    assert ratio is not None
    assert ratio.value == pytest.approx(1.8, abs=0.001)
    assert ratio.high / ratio.low <= (1 + BETWEEN_RUNS) ** 2 + 1e-9, "blocks add nothing"


def test_the_wait_for_the_last_answer_is_not_in_the_ratio() -> None:
    """One of two workers has the last request alone: the client waits longer, but no worker was slower."""
    measured = _six_blocks().assign(throughput_rps=1.0)
    ratio = study.gain(measured)
    assert ratio is not None
    assert ratio.value == pytest.approx(1.8, abs=0.001)
    shares = [row.value for row in study.estimates(measured) if "of the own limit" in row.quantity]
    assert shares == pytest.approx([1.3, 1.3 * 1.8 / 2], abs=0.01)


def test_what_is_stated_is_what_is_shown() -> None:
    measured = _six_blocks()
    rows = {
        (row.quantity.removesuffix(" at the article's load"), row.factors): row
        for row in study.estimates(measured)
    }
    cluster = "dispatch=round-robin, duration=10.0 s, topology=cluster, workers=2"
    assert len(rows) == 9
    faster = measured.assign(rate=2 * measured["rate"], busy_rps=2 * measured["busy_rps"])
    for name in ("latency_mean_s", "latency_max_s", "service_mean_s"):
        faster[name] = measured[name] / 2
    assert study.estimates(faster) == list(rows.values()), "a machine of twice the speed states the same"
    ratio, measured_ratio = rows["throughput over one process", cluster], study.gain(measured)
    assert measured_ratio is not None
    assert (ratio.value, ratio.n, ratio.smallest_told) == (
        measured_ratio.value,
        6,
        measured_ratio.smallest_told,
    )


def test_without_an_answer_of_one_process_there_is_no_ratio() -> None:
    dead = _six_blocks()
    dead.loc[dead["topology"] == "single", "busy_rps"] = float("nan")
    assert study.gain(dead) is None
    assert not [row for row in study.estimates(dead) if "over one process" in row.quantity]
    assert study.gain(dead[dead["topology"] == "single"]) is None
