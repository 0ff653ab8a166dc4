"""A verdict on each of the article's claims, from whatever of them a run has measured."""

import pandas as pd

from lab import formats
from lab.experiments import (
    dispatch,
    dispatch_words,
    failure_facts,
    failure_words,
    failures,
    single_vs_cluster,
    worker_scaling,
)
from lab.experiments.claims import Verdict
from lab.study.run import Run

_PROCESS_USES_ONE_CORE = "One process uses one core, however many the machine has"
_PLAIN_FAILS = "Under the article's load one process falls far behind, and the cluster keeps up"
_CLUSTERING_MULTIPLIES = "Clustering multiplies the rate that is answered, by less than the number of workers"
_LESS_THAN_A_CORE = "Given less than one core, clustering makes no difference"
_PROCESS_MANAGER = "A process manager does the same, and a load balancer before several machines goes further"

_A_CORE_AND_A_BIT = 1.05
"""The most that the loops of one process may sum up to, in cores: clocks and rounding are not that exact."""


def verdicts(run: Run) -> list[Verdict]:
    """Judge every claim, in the article's order; what the run has not measured has no verdict."""
    return [
        _one_core(run.trials(single_vs_cluster.EXPERIMENT)),
        _plain_fails(run.trials(single_vs_cluster.EXPERIMENT)),
        _multiplies(run.trials(worker_scaling.EXPERIMENT)),
        _dispatch(run),
        *_failures(run),
        Verdict(8, _LESS_THAN_A_CORE),
        Verdict(9, _PROCESS_MANAGER),
    ]


def _one_core(trials: pd.DataFrame) -> Verdict:
    single = trials[trials["topology"] == "single"]
    if single.empty:
        return Verdict(1, _PROCESS_USES_ONE_CORE)
    cores = float((single["throughput_rps"] * single["service_mean_s"]).max())
    evidence = f"its loops kept {formats.digits(cores)} cores busy at most"
    return Verdict(1, _PROCESS_USES_ONE_CORE, evidence, cores <= _A_CORE_AND_A_BIT)


def _plain_fails(trials: pd.DataFrame) -> Verdict:
    if trials["topology"].nunique() < 2:
        return Verdict(2, _PLAIN_FAILS)
    single, cluster = single_vs_cluster.medians(trials)
    asked = f"{formats.per_second(single['rate'])} for {single['duration_s']:g} s"
    evidence = f"{asked}: {_answered('one process', single)}; {_answered('the cluster', cluster)}"
    keeps_up = not single_vs_cluster.falls_behind(cluster)
    return Verdict(2, _PLAIN_FAILS, evidence, single_vs_cluster.falls_behind(single) and keeps_up)


def _answered(server: str, row: "pd.Series[float]") -> str:
    slowest = formats.seconds(row["latency_max_s"])
    return f"{server} answered {formats.percent(row['success'])}, the slowest after {slowest}"


def _multiplies(trials: pd.DataFrame) -> Verdict:
    if 1 not in set(trials["workers"]) or trials["workers"].nunique() < 2:
        return Verdict(3, _CLUSTERING_MULTIPLIES)
    top = worker_scaling.best(worker_scaling.scaling(trials))
    spread = f"{formats.digits(top['speedup_low'])} to {formats.digits(top['speedup_high'])}"
    workers = formats.counted(int(top["workers"]), "worker")
    evidence = f"{workers}: {formats.digits(top['speedup'])} times one ({spread} over blocks)"
    if top["speedup_low"] <= top["workers"] <= top["speedup_high"]:
        evidence += f", which cannot be told apart from {int(top['workers'])}"
    return Verdict(3, _CLUSTERING_MULTIPLIES, evidence, 1 < top["speedup_low"] <= top["workers"])


def _dispatch(run: Run) -> Verdict:
    trials = run.trials(dispatch.EXPERIMENT)
    if trials.empty:
        return Verdict(4, dispatch_words.CLAIM)
    return dispatch_words.verdict(dispatch.beside_theory(trials, run.requests(trials)))


def _failures(run: Run) -> list[Verdict]:
    trials = run.trials(failures.EXPERIMENT)
    if trials.empty:
        return failure_words.verdicts([])
    scenes = failure_facts.scenes(trials, run.requests(trials), run.events(trials))
    return failure_words.verdicts(scenes)
