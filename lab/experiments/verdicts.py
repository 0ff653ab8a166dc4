"""A verdict on each of the article's claims, from whatever of them a run has measured."""

from functools import partial

import pandas as pd

from lab import formats
from lab.experiments import (
    dispatch,
    dispatch_words,
    failure_scene,
    failure_verdicts,
    failures,
    single_vs_cluster,
    worker_scaling,
)
from lab.experiments.claims import Verdict, weighed
from lab.study.machine import Machine
from lab.study.run import Run

_PROCESS_USES_ONE_CORE = "One process uses one core, however many the machine has"
_PLAIN_FAILS = "Under the article's load one process falls far behind, and the cluster keeps up"
_MULTIPLIES = "Clustering multiplies the rate that is answered"
_BY_LESS = "... by less than the number of workers"
_LESS_THAN_A_CORE = "Given less than one core, clustering makes no difference"
_PROCESS_MANAGER = "A process manager does the same, and a load balancer before several machines goes further"

_MIDWAY = 1.5
"""Cores: nearer to one than to two."""


def verdicts(run: Run) -> list[Verdict]:
    """Judge every claim, in the article's order; what the run has not measured has no verdict."""
    article, scaled = run.trials(single_vs_cluster.EXPERIMENT), run.trials(worker_scaling.EXPERIMENT)
    return [
        weighed(article[article["topology"] == "single"], partial(_one_core, run.manifest.machine)),
        weighed(article, _plain_fails),
        weighed(scaled, _multiplies),
        weighed(scaled, _by_less),
        weighed(_of_claim_4(run.trials(dispatch.EXPERIMENT)), partial(_dispatch, run)),
        *_failures(run),
        Verdict(8, _LESS_THAN_A_CORE),
        Verdict(9, _PROCESS_MANAGER),
    ]


def _one_core(machine: Machine, single: pd.DataFrame) -> Verdict:
    """Hold what one process answers against what one core was calibrated to do."""
    if single.empty:
        return Verdict(1, _PROCESS_USES_ONE_CORE)
    answered, offered = (
        float((single[rate] * single["loop_s"]).median()) for rate in ("throughput_rps", "rate")
    )
    evidence = (
        f"offered loops for {formats.digits(offered)} of {formats.counted(machine.available_cpus, 'core')}, "
        f"it answered as many as {formats.digits(answered)} can do"
    )
    could_use_more = offered > _MIDWAY and machine.available_cpus > 1
    holds = False if answered > _MIDWAY else True if could_use_more else None
    return Verdict(1, _PROCESS_USES_ONE_CORE, evidence, holds)


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
    if (top := _best(trials)) is None:
        return Verdict(3, _MULTIPLIES)
    return Verdict(3, _MULTIPLIES, _speedup(top), _above(top, 1))


def _by_less(trials: pd.DataFrame) -> Verdict:
    if (top := _best(trials)) is None:
        return Verdict(3, _BY_LESS)
    reached = _above(top, top["workers"])
    return Verdict(3, _BY_LESS, _speedup(top), None if reached is None else not reached)


def _best(trials: pd.DataFrame) -> dict[str, float] | None:
    """Return the best cluster of several workers, beside one worker; None if either is missing."""
    if 1 not in set(trials.loc[trials["throughput_rps"] > 0, "workers"]):
        return None
    scaling = worker_scaling.scaling(trials)
    several = scaling[scaling["workers"] > 1]
    return None if several.empty else worker_scaling.best(several)


def _speedup(top: dict[str, float]) -> str:
    spread = f"{formats.digits(top['speedup_low'])} to {formats.digits(top['speedup_high'])}"
    workers = formats.counted(int(top["workers"]), "worker")
    return f"{workers}: {formats.digits(top['speedup'])} times one ({spread} over blocks)"


def _above(top: dict[str, float], bound: float) -> bool | None:
    """Say whether the speed-up is above a bound; None if its interval, or range, holds it."""
    if top["speedup_low"] <= bound <= top["speedup_high"]:
        return None
    return top["speedup"] > bound


def _of_claim_4(trials: pd.DataFrame) -> pd.DataFrame:
    compared = trials["dispatch"].isin(["round-robin", "shared"]) & ~trials["keepalive"]
    return trials[compared & (trials["topology"] == "cluster")]


def _dispatch(run: Run, trials: pd.DataFrame) -> Verdict:
    if trials.empty:
        return Verdict(4, dispatch_words.CLAIM)
    return dispatch_words.verdict(dispatch.beside_theory(trials, run.requests(trials)))


def _failures(run: Run) -> list[Verdict]:
    trials = run.trials(failures.EXPERIMENT)
    if trials.empty:
        return failure_verdicts.verdicts([])
    scenes = failure_scene.scenes(trials, run.requests(trials), run.events(trials))
    return failure_verdicts.verdicts(scenes)
