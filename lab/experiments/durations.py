"""How long each notebook will take with its parameters, in seconds, before anything is measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from lab.cpus import available_cpus
from lab.experiments import (
    dispatch,
    failures,
    hot_loop,
    instrument,
    less_than_one_core,
    rate_sweep,
    single_vs_cluster,
    summary,
    sustained,
)
from lab.experiments import worker_scaling as scaling
from lab.experiments.common import expected
from lab.experiments.dispatch import trials as dispatch_trials
from lab.experiments.failures import trials as failures_trials
from lab.experiments.instrument import feeding
from lab.experiments.worker_scaling import trials as scaling_trials
from lab.study import control
from lab.study.forecast import NOTEBOOK_S, TRIAL_S, loop_s, start_s, trials_s
from lab.study.parameters import Parameters
from lab.study.plan import Condition, capacity_rps
from lab.study.searches import Objective

_TOOLS = 3
"""Load generators that a machine usually has, ours among them."""

_TOOL_S = 3.0
"""Of each, to start twice and to send a few requests."""

_SEARCH_TRIALS = 7
"""How many trials usually find a sustained rate."""

_CONTROLS = 4
"""How many controls usually choose a run's loop."""


def of(notebook: str, values: Mapping[str, Any]) -> float:
    """Return the seconds that a notebook takes with these values of its parameters, all of them."""
    module = import_module(f"lab.experiments.{notebook[3:].replace('-', '_')}")
    p = module.Parameters.from_batch({}, values)
    measuring: Callable[[Any], float] = _MEASURING[type(p)]
    return NOTEBOOK_S + measuring(p)


def _hot_loop(p: hot_loop.Parameters) -> float:
    return sum((p.repeats + 1) * loop_s(kernel, p.iterations) for kernel in p.kernels)


def _single_vs_cluster(p: single_vs_cluster.Parameters) -> float:
    by_hand_s = 1.0 + TRIAL_S + start_s(1, 1.0)
    load = {"duration_s": p.search_s, "kernel": p.kernel, "iterations": control.FIRST}
    searches_s = _searches_s(sustained.pair(p.workers, p.dispatch, **load), p.objective)
    return by_hand_s + searches_s + trials_s(single_vs_cluster.conditions(p), p.blocks)


def _rate_sweep(p: rate_sweep.Parameters) -> float:
    p = expected(p)
    return trials_s(rate_sweep.conditions(p), p.blocks)  # its searches are those of 02


def _worker_scaling(p: scaling.Parameters) -> float:
    p = expected(p)
    trials = trials_s(scaling_trials.conditions(p), p.blocks)
    return trials + _searches_s(scaling_trials.searched(p), p.objective)


def _searches_s(servers: Sequence[Condition], objective: Objective) -> float:
    """Return what searches take, each trial as long as its objective needs requests."""
    long = []
    for server in servers:
        rate_rps = capacity_rps(server.workers, loop_s(server.kernel, server.iterations))
        needed_s = objective.least_requests() / rate_rps
        long.append(replace(server, duration_s=max(server.duration_s, needed_s)))
    return trials_s(_SEARCH_TRIALS * long)


def _dispatch(p: dispatch.Parameters) -> float:
    p = expected(p)
    return sum(trials_s(group, blocks) for blocks, group in dispatch_trials.by_blocks(p).items())


def _failures(p: failures.Parameters) -> float:
    p = expected(p)
    return trials_s(failures_trials.conditions(p), p.blocks)


def _less_than_one_core(p: less_than_one_core.Parameters) -> float:
    p = expected(p)
    return trials_s(less_than_one_core.conditions(p), p.blocks)


def _instrument(p: instrument.Parameters) -> float:
    stalls_s = 2 * len(p.stall_rates) * (p.stall_duration_s + TRIAL_S)
    lags_s = 2 * len(p.rates) * (p.step_s + 2 * TRIAL_S)
    tools_s = _TOOLS * (p.tool_duration_s + _TOOL_S)
    fed_s = sum(_controls_s(count, p.control_iterations) for count in feeding.numbers(p.control_workers))
    chosen_s = _controls_s(2 * available_cpus(), [control.FIRST] * _CONTROLS)
    return stalls_s + lags_s + tools_s + fed_s + chosen_s


def _controls_s(workers: int, loops: Sequence[int]) -> float:
    """Return the seconds of one server with sleeping workers, overloaded with these loops in turn."""
    step_s = loop_s("sleep", control.STEP)
    fed = [control.planned(workers, step_s, iterations) for iterations in loops]
    fed_s = sum(TRIAL_S + control.OVERLOAD * condition.duration_s for condition in fed)
    return start_s(workers, available_cpus()) + TRIAL_S + fed_s


def _summary(p: summary.Parameters) -> float:
    return 0.0


_MEASURING: dict[type[Parameters], Callable[[Any], float]] = {
    hot_loop.Parameters: _hot_loop,
    single_vs_cluster.Parameters: _single_vs_cluster,
    rate_sweep.Parameters: _rate_sweep,
    scaling.Parameters: _worker_scaling,
    dispatch.Parameters: _dispatch,
    failures.Parameters: _failures,
    instrument.Parameters: _instrument,
    less_than_one_core.Parameters: _less_than_one_core,
    summary.Parameters: _summary,
}
