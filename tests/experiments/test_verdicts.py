"""The article's claims, judged by trials made by hand: what holds, what does not, what cannot be told."""

from typing import Any, cast

import pandas as pd
import pytest
from helpers.trial_rows import trials

from lab.experiments import single_vs_cluster, worker_scaling
from lab.experiments.claims import Verdict, Word
from lab.experiments.summary import verdicts
from lab.flags import Flag
from lab.machine import describe
from lab.study.run import Run

SINGLE: dict[str, Any] = {"rate": 50.0, "throughput_rps": 10.0, "service_mean_s": 0.1, "latency_max_s": 25.0}
CLUSTER: dict[str, Any] = {"rate": 50.0, "topology": "cluster", "workers": 8, "service_mean_s": 0.1}


class MeasuredRun:
    """Has the trials that it is given, of a machine with two CPUs."""

    def __init__(self, measured: dict[str, pd.DataFrame], cpus: int = 2) -> None:
        self._measured = measured
        self.manifest = self
        self.machine = describe().model_copy(update={"available_cpus": cpus})

    def trials(self, experiment: str) -> pd.DataFrame:
        return self._measured.get(experiment, trials({}).head(0).assign(scenario="", keepalive=False))


def judged(number: int, measured: dict[str, pd.DataFrame] | None = None, cpus: int = 2) -> list[Verdict]:
    found = verdicts(cast(Run, MeasuredRun(measured or {}, cpus)))
    return [verdict for verdict in found if verdict.number == number]


def article(*rows: dict[str, Any]) -> dict[str, pd.DataFrame]:
    return {single_vs_cluster.EXPERIMENT: trials(*rows)}


def scaled(*blocks: dict[int, float]) -> dict[str, pd.DataFrame]:
    """Make blocks of a scaling experiment, each the requests per second for so many workers."""
    rows = [
        {"block": number, "workers": workers, "throughput_rps": rate_rps}
        for number, block in enumerate(blocks, start=1)
        for workers, rate_rps in block.items()
    ]
    return {worker_scaling.EXPERIMENT: trials(*rows, topology="cluster")}


def test_every_claim_has_a_verdict_and_nothing_measured_is_nothing_judged() -> None:
    found = verdicts(cast(Run, MeasuredRun({})))
    assert sorted({verdict.number for verdict in found}) == list(range(1, 10))
    assert [verdict.number for verdict in found] == sorted(verdict.number for verdict in found)
    assert {(verdict.word, verdict.evidence) for verdict in found} == {(Word.UNTOLD, "")}


@pytest.mark.parametrize(
    ("answered_rps", "cpus", "word"),
    [(10.0, 2, "holds"), (19.0, 2, "does not hold here"), (10.0, 1, "cannot be told here")],
)
def test_one_process_uses_one_core_if_offered_more_it_answers_no_more(
    answered_rps: float, cpus: int, word: str
) -> None:
    (verdict,) = judged(1, article(SINGLE | {"throughput_rps": answered_rps}), cpus)
    assert verdict.word.value == word
    assert verdict.evidence.startswith("loops offered: 5.00 of")


def test_a_process_that_is_offered_too_little_says_nothing_about_cores() -> None:
    (verdict,) = judged(1, article(SINGLE | {"rate": 5.0, "throughput_rps": 5.0}))
    assert verdict.word is Word.UNTOLD


@pytest.mark.parametrize(
    ("single", "cluster", "word"),
    [
        ({}, {}, "holds"),
        ({}, {"success": 0.9}, "holds in part"),
        ({"service_mean_s": 0.01}, {}, "holds in part"),
        ({"service_mean_s": 0.01, "success": 0.7}, {}, "holds"),
    ],
)
def test_the_plain_server_falls_behind_and_the_cluster_keeps_up(
    single: dict[str, Any], cluster: dict[str, Any], word: str
) -> None:
    (verdict,) = judged(2, article(SINGLE | single, CLUSTER | cluster))
    assert verdict.word.value == word
    assert "the slowest after 25.0 s; the cluster" in verdict.evidence


def test_one_server_alone_is_no_comparison() -> None:
    assert judged(2, article(SINGLE))[0].evidence == ""
    assert judged(3, scaled({2: 20.0, 4: 30.0}))[0].evidence == ""


@pytest.mark.parametrize(
    ("blocks", "word"),
    [
        ([{1: 10.0, 2: 18.0}, {1: 10.0, 2: 19.0}], "holds"),
        ([{1: 10.0, 2: 21.0}, {1: 10.0, 2: 22.0}], "holds in part"),
        ([{1: 10.0, 2: 19.0}, {1: 10.0, 2: 21.0}], "cannot be told here"),
        ([{1: 10.0, 2: 9.0}, {1: 10.0, 2: 8.0}], "holds in part"),
        ([{1: 10.0, 2: 9.0}, {1: 10.0, 2: 12.0}], "cannot be told here"),
    ],
)
def test_clustering_multiplies_by_less_than_the_workers(blocks: list[dict[int, float]], word: str) -> None:
    (verdict,) = judged(3, scaled(*(3 * blocks)))
    assert verdict.word.value == word


def test_fewer_than_six_blocks_do_not_tell_a_multiple() -> None:
    (verdict,) = judged(3, scaled(*(5 * [{1: 10.0, 2: 18.0}])))
    assert verdict.word is Word.UNTOLD
    assert verdict.evidence == "2 workers over one: 1.80 times (1.80 to 1.80 over 5 blocks)"


def test_a_verdict_that_flagged_trials_make_is_none() -> None:
    spoilt = SINGLE | {"valid": False, "flags": (Flag("others_cpu", 0.5, 0.1),)}
    (verdict,) = judged(2, article(spoilt, CLUSTER))
    assert (verdict.flagged, verdict.trials) == (1, 2)
    assert verdict.word is Word.UNTOLD
