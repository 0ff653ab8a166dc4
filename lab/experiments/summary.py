"""The answer of a whole run: how far clustering goes, how many workers a rate needs, what claims hold."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lab import files, units
from lab.checks import Positive
from lab.errors import LabError
from lab.experiments import (
    capacity,
    hot_loop,
    instrument,
    less_than_one_core,
    rate_sweep,
    single_vs_cluster,
    sustained,
)
from lab.experiments.capacity import answer as capacity_answer
from lab.experiments.capacity import score
from lab.experiments.claims import CLAIMS, Verdict
from lab.experiments.common import accounted
from lab.experiments.dispatch import answer as dispatch_answer
from lab.experiments.dispatch import trials as dispatch
from lab.experiments.failures import answer as failures_answer
from lab.experiments.failures import trials as failures
from lab.experiments.folk_rules import estimates as folk_estimates
from lab.experiments.folk_rules import rules as folk_rules
from lab.experiments.less_than_one_core import answer as quota_answer
from lab.experiments.other_servers import analysis as others_analysis
from lab.experiments.other_servers import answer as others_answer
from lab.experiments.other_servers import trials as others
from lab.experiments.worker_scaling import answer as scaling_answer
from lab.experiments.worker_scaling import scaling
from lab.machine import Machine
from lab.models.capacity import workers_needed
from lab.models.statistics import Interval
from lab.study.estimates import Stated, contradictions, factors_in_words, table_of, written
from lab.study.manifest import Manifest
from lab.study.parameters import ListOf
from lab.study.parameters import Parameters as _Parameters
from lab.study.run import Run
from lab.study.runs import find_runs, open_run
from lab.study.stability import MOST_OFF, of_two_sizes
from lab.study.store import Store

_ADDED: dict[str, Callable[[Run, pd.DataFrame], pd.DataFrame]] = {
    single_vs_cluster.EXPERIMENT: accounted,
    rate_sweep.EXPERIMENT: accounted,
    scaling.EXPERIMENT: scaling.accounted,
    dispatch.EXPERIMENT: lambda run, trials: dispatch.beside_theory(trials, run.requests(trials)),
    failures.EXPERIMENT: lambda _, trials: trials,
    others.EXPERIMENT: others_analysis.beside_ideal,
    capacity.EXPERIMENT: lambda _, trials: trials,
    less_than_one_core.EXPERIMENT: accounted,
    folk_rules.EXPERIMENT: lambda _, trials: trials,
}
"""The experiments, in reading order, and what the page of each adds to its trials."""


class Parameters(_Parameters):
    """What notebook 00 lets its reader set; without a `run`, it reads the one that was last added to."""

    run: str
    rates: ListOf[Positive]
    wait_loops: Positive


def open_for_reading(run_id: str) -> Run:
    """Open the run of that id, or the one last begun or added to here. Raises LabError if there is none."""
    found = sorted(find_runs(), key=_touched_at, reverse=True)
    runs = [manifest.run_id for manifest in sorted(found, key=_is_imported)]
    if run_id and run_id not in runs:
        raise LabError(f"there is no run {run_id!r}: `lab runs` lists them")
    if not runs:
        raise LabError("nothing has been measured yet: run one of the other notebooks first, or `lab study`")
    return open_run(run_id or runs[0])


def _is_imported(manifest: Manifest) -> bool:
    return manifest.imported_at is not None


def _touched_at(manifest: Manifest) -> float:
    return max(manifest.started_at.timestamp(), Store(files.data() / manifest.run_id).added_at())


def trials_of(run: Run) -> dict[str, pd.DataFrame]:
    """Return the trials of each experiment that the run has measured, with what its page adds to them."""
    measured = ((experiment, run.trials(experiment)) for experiment in _ADDED)
    return {experiment: _ADDED[experiment](run, trials) for experiment, trials in measured if len(trials)}


def sustained_rates(run: Run) -> pd.DataFrame | None:
    """Return what one process and the cluster sustain (`sustained.bounds`), if it was searched."""
    for experiment in (single_vs_cluster.EXPERIMENT, rate_sweep.EXPERIMENT):
        if (found := sustained.kept(run, experiment)) is not None:
            return found
    return None


def answer(trials: dict[str, pd.DataFrame], found: pd.DataFrame | None, cpus: int) -> str:
    """Answer the study's question in a few sentences: from what is sustained and from scaling."""
    parts = []
    if found is not None:
        parts.append(sustained.answer(found, shares=False))
    if (scaled := trials.get(scaling.EXPERIMENT)) is not None:
        parts.append(scaling_answer.answer(scaled, cpus))
    if not parts and (article := trials.get(single_vs_cluster.EXPERIMENT)) is not None:
        parts.append(single_vs_cluster.answer(article))
    told = " ".join(part.removeprefix("**Answer.** ") for part in parts)
    return f"**Answer.** {told or 'This run has not measured enough to tell: run notebook 02, 03 or 04.'}"


def figures(run: Run, trials: dict[str, pd.DataFrame]) -> list[Figure | None]:
    """Draw the scaling curve, the rate sweep and the article's experiment; None for what was not measured."""
    scaled, swept, article = (
        trials.get(experiment)
        for experiment in (scaling.EXPERIMENT, rate_sweep.EXPERIMENT, single_vs_cluster.EXPERIMENT)
    )
    found, cpus = sustained.kept(run, rate_sweep.EXPERIMENT), run.manifest.machine.available_cpus
    return [
        None if scaled is None
        else scaling_answer.figure(scaled, cpus, sustained.kept(run, scaling.EXPERIMENT)),
        None if swept is None or found is None else rate_sweep.figure(swept, found),
        None if article is None else single_vs_cluster.figure(article, run.requests(article)),
    ]  # fmt: skip


def busy_service_s(trials: pd.DataFrame, cpus: int) -> float:
    """Return the median service time while every CPU is busy and no worker waits for one, in seconds."""
    full = trials[trials["workers"] <= cpus]
    return float(full[full["workers"] == full["workers"].max()]["service_p50_s"].median())


def workers_table(
    trials: dict[str, pd.DataFrame], rates_rps: Sequence[float], wait_loops: float, cpus: int
) -> pd.DataFrame:
    """Say how many workers each rate needs, by exact M/D/c with the measured service time."""
    if (mine := trials.get(scaling.EXPERIMENT)) is None:
        return pd.DataFrame({"": ["Worker scaling was not measured in this run: run notebook 04."]})
    service_s = busy_service_s(mine, cpus)
    slo_s = (1 + wait_loops) * service_s
    needed = [workers_needed(rate, [service_s], slo_s=slo_s).workers for rate in rates_rps]
    return pd.DataFrame(
        {
            "offered rate": [units.in_requests(rate) for rate in rates_rps],
            "workers kept busy on average": [units.plain(rate * service_s) for rate in rates_rps],
            "workers needed": needed,
            f"on these {cpus} CPUs": ["fits" if n and n <= cpus else "needs more CPUs" for n in needed],
        }
    )


def machine_table(machine: Machine) -> pd.DataFrame:
    """Put the machine in words: what it has, and what this process may use of it."""
    quota = "none" if machine.quota_cpus is None else f"{machine.quota_cpus:g} CPUs"
    named = {"name": machine.label} if machine.label else {}
    facts = named | {
        "CPU": f"{machine.cpu_model} ({machine.architecture})",
        "CPUs of the host": machine.host_cpus,
        "CPUs by affinity": machine.affinity_cpus,
        "quota": quota,
        "CPUs that count": machine.available_cpus,
        "memory": f"{machine.memory_bytes / 2**30:.1f} GiB",
        "virtualisation": machine.virtualisation,
        "container": machine.container,
        "frequency governor": machine.governor,
        "kernel": machine.kernel,
        "Python": machine.python,
    }
    return pd.DataFrame({"": facts.keys(), "of this machine": [str(fact) for fact in facts.values()]})


def health_table(trials: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Say, per experiment, how far its trials can be trusted: the generator, the machine, the calibration."""
    return pd.DataFrame(
        {
            "experiment": experiment,
            "blocks": mine["block"].nunique(),
            "trials": len(mine),
            "flagged": int((~mine["valid"]).sum()),
            "worst send lag, p99": units.in_seconds(mine["send_lag_p99_s"].max()),
            "most CPU time stolen": units.in_percent(mine["steal"].max()),
            "loop time, end / start of a block": _range(mine["loop_drift"]),
            "loop time, trial / usual in the run": _range(mine["loop_ratio"]),
        }
        for experiment, mine in trials.items()
    )


def sizes_table(run: Run) -> pd.DataFrame:
    """Say whether calibrations of two sizes of one loop agree: neither is the truth where they do not."""
    found = of_two_sizes(run.calibrations())
    if found.empty:
        return pd.DataFrame({"": ["No two sizes of one loop were timed within a minute of each other."]})
    ns = found[["shorter_step_s", "longer_step_s"]].mul(1e9).map("{:.0f} ns".format)
    return pd.DataFrame(
        {
            "kernel": found["kernel"],
            "iterations": found["shorter"].map("{:,}".format) + " and " + found["longer"].map("{:,}".format),
            "time of an iteration, medians": ns["shorter_step_s"] + " and " + ns["longer_step_s"],
            "shorter / longer, furthest from 1": found["most_apart"].map("{:.2f}".format),
            f"more than {MOST_OFF:.0%} apart": found["contradictions"].map("{} of ".format)
            + found["pairs"].map(str),
        }
    )


def _range(values: "pd.Series[float]") -> str:
    return f"{values.min():.2f} to {values.max():.2f}" if values.notna().any() else ""


def estimates(run: Run, trials: dict[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """Gather what the pages of a run state, a row per estimate (`estimates.COLUMNS`); the run keeps them.

    `trials` are those of `trials_of`, if they are known already.
    """
    trials, loops = trials_of(run) if trials is None else trials, run.newest(hot_loop.EXPERIMENT)
    rows = [] if loops is None else hot_loop.estimates(loops, run.by_age(hot_loop.EXPERIMENT)[-1:])
    rows += instrument.estimates(run)
    searching = (single_vs_cluster, rate_sweep, scaling, capacity)
    for experiment in (module.EXPERIMENT for module in searching):
        if (found := sustained.kept(run, experiment)) is not None:
            known = {_of_no_page(row) for row in rows}  # a search that several notebooks show
            rows += [row for row in sustained.estimates(experiment, found) if _of_no_page(row) not in known]
    stating: dict[str, Callable[[pd.DataFrame], list[Stated]]] = {
        single_vs_cluster.EXPERIMENT: single_vs_cluster.estimates,
        rate_sweep.EXPERIMENT: partial(
            rate_sweep.estimates, found=sustained.kept(run, rate_sweep.EXPERIMENT)
        ),
        scaling.EXPERIMENT: partial(scaling_answer.estimates, cpus=run.manifest.machine.available_cpus),
        less_than_one_core.EXPERIMENT: quota_answer.estimates,
        dispatch.EXPERIMENT: dispatch_answer.estimates,
        failures.EXPERIMENT: lambda mine: failures_answer.estimates(_events(run, mine)),
        others.EXPERIMENT: others_answer.estimates,
        capacity.EXPERIMENT: lambda mine: [
            *score.estimates(run, mine),
            *capacity_answer.estimates(run, mine),
        ],
        folk_rules.EXPERIMENT: partial(folk_estimates.estimates, run),
    }
    for experiment, state in stating.items():
        if (mine := trials.get(experiment)) is not None:
            iterations, doubted = int(mine["iterations"].min()), mine["valid"].mean() < _MOST
            rows += [_of_loop(_doubted(row) if doubted else row, iterations) for row in state(mine)]
    found = table_of(rows)
    run.keep("estimates", found)
    return found


def _of_no_page(row: Stated) -> Stated:
    return replace(row, experiment="", sources=())


_MOST = 0.5
"""If fewer trials of an experiment are without a flag, its intervals promise nothing."""


def _doubted(row: Stated) -> Stated:
    """Take back what an interval promises: something disturbed most of the trials that it rests on."""
    return replace(row, interval=Interval.FLAGGED, smallest_told=None) if row.interval.covers else row


def _of_loop(row: Stated, iterations: int) -> Stated:
    """Name the loop, which runs may choose: what was measured with another one is another number."""
    return replace(row, factors=", ".join(filter(None, [row.factors, f"loop={iterations}"])))


def estimate_table(estimates: pd.DataFrame) -> pd.DataFrame:
    """Put estimates in words: value, interval and its kind, n, smallest difference seen, and sources."""
    rows = estimates.to_dict("records")
    return pd.DataFrame(
        {
            "experiment": estimates["experiment"],
            "quantity": estimates["quantity"],
            "of": estimates["factors"].map(factors_in_words),
            "value": [_valued(row) for row in rows],
            "n": estimates["n"],
            "smallest difference seen": [
                units.in_percent(row["smallest_told"]) if row["compares"] else "" for row in rows
            ],
            "from": [units.Fold(_counted(row["sources"]), _listed(row["sources"])) for row in rows],
        }
    )


def _valued(row: Mapping[Hashable, Any]) -> units.Number:
    """Return the number with its interval, and a link to what it was computed from."""
    low, high = (None if pd.isna(end) else _written(end, row["unit"]) for end in (row["low"], row["high"]))
    note = "" if row["interval"] == Interval.MEDIAN else row["interval"]
    return replace(_written(row["value"], row["unit"]), low=low, high=high, note=note, key=row["key"])


def _written(value: float, unit: str) -> units.Number:
    if unit == "s":
        return units.in_seconds(value)
    return units.in_requests(value) if unit.endswith("/s") else units.Number(written(value, unit), unit)


def _counted(sources: Sequence[str]) -> str:
    """Count trials and tables, which a run names without a dot."""
    tables = sum("." not in source for source in sources)
    counts = {"trial": len(sources) - tables, "table": tables}
    return ", ".join(units.counted(count, noun) for noun, count in counts.items() if count)


def _listed(sources: Sequence[str]) -> str:
    """Name sources, those of one experiment together: worker-scaling: b01.5e1f0c9a77d2, b02.0c9a77d25e1f."""
    of: dict[str, list[str]] = {}
    for source in sources:
        experiment, _, trial = source.partition(".")
        of.setdefault(experiment, []).append(trial)
    return "; ".join(f"{name}: {', '.join(mine)}" if any(mine) else name for name, mine in of.items())


def consistency(estimates: pd.DataFrame) -> str:
    """Say whether any number of the run is stated with two values, and which."""
    different = contradictions(estimates)
    if different.empty:
        return f"Of the run's {units.counted(len(estimates), 'estimate')}, none is stated with two values."
    names = dict.fromkeys(
        f"{row['quantity']} ({factors_in_words(row['factors'])})" for row in different.to_dict("records")
    )
    return f"**Stated with more than one value, and not to be believed:** {'; '.join(names)}."


def verdicts(run: Run, trials: dict[str, pd.DataFrame]) -> list[Verdict]:
    """Judge every claim by the trials of `trials_of`, in the article's order; some may have no evidence."""
    cpus = run.manifest.machine.available_cpus
    judges: dict[str, Callable[[pd.DataFrame], list[Verdict]]] = {
        single_vs_cluster.EXPERIMENT: lambda mine: single_vs_cluster.verdicts(mine, cpus),
        scaling.EXPERIMENT: lambda mine: [scaling_answer.verdict(mine, cpus)],
        dispatch.EXPERIMENT: lambda mine: [dispatch_answer.verdict(mine)],
        failures.EXPERIMENT: lambda mine: failures_answer.verdicts(_events(run, mine)),
        others.EXPERIMENT: others_answer.verdicts,
    }
    found = [
        replace(verdict, experiment=experiment)
        for experiment, judge in judges.items()
        if experiment in trials
        for verdict in judge(trials[experiment])
    ]
    found.append(replace(quota_answer.verdict_of(run), experiment=less_than_one_core.EXPERIMENT))
    missing = set(CLAIMS) - {verdict.number for verdict in found}
    return sorted([*found, *map(Verdict, missing)], key=lambda verdict: verdict.number)


def _events(run: Run, trials: pd.DataFrame) -> pd.DataFrame:
    return failures.events(trials, run.requests(trials), run.events(trials))
