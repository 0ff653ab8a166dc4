"""How long each notebook will take, from its parameters alone; and what to leave out to fit a budget.

Nothing is measured for this: a loop counts as long as on a usual CPU, so that the same command plans the same
study each time, and resumes it.
"""

import bisect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.experiments import (
    capacity,
    control,
    dispatch,
    failures,
    folk_rules,
    hot_loop,
    instrument,
    less_than_one_core,
    machines,
    other_servers,
    rate_sweep,
    single_vs_cluster,
    summary,
    sustained,
    your_server,
)
from lab.experiments import worker_scaling as scaling
from lab.experiments.capacity import prediction
from lab.experiments.common import expected, resolve
from lab.experiments.dispatch import bound
from lab.experiments.dispatch import trials as dispatch_trials
from lab.experiments.failures import trials as failures_trials
from lab.experiments.folk_rules import counts, memory
from lab.experiments.folk_rules import trials as folk_trials
from lab.experiments.less_than_one_core import trials as quota_trials
from lab.experiments.other_servers import trials as other_trials
from lab.experiments.other_servers.servers import factors, is_ours
from lab.experiments.searches import Objective
from lab.experiments.worker_scaling import scaling as scaling_trials
from lab.hotloop import SLEEP_STEP_S
from lab.models.statistics import fewest_trials
from lab.study.parameters import Parameters
from lab.study.plan import Condition, capacity_rps
from lab.units import clock

COMPILED = 0.2
"""What a loop takes in numpy or numba, as a share of plain Python's."""

TRIAL_S = 0.4
"""A trial's own: a generator starts, a server stops, rows are written."""

START_S = 0.2
"""To start a server of ours, apart from its workers."""

FORK_S = 0.006
"""To fork a worker and to end it, one after the other."""

PEER_START_S = 0.4
"""To start a server that we did not write, and to end it, apart from its workers."""

PEER_WORKER_CPU_S, PEER_SPAWN_S = 0.12, 0.005
"""To start a worker of such a server, on all CPUs at once; and to spawn it, one after the other."""

CALIBRATION_S = 0.6
"""Of a block, at both its ends, for each kind of loop."""

NOTEBOOK_S = 5.0
"""Of a notebook: its kernel starts, imports and draws, and the report is written anew."""

SLOWER = 1.2
"""What a loop costs beside others on all CPUs, as a multiple of what it costs alone."""

PLANNING_S = 10.0
"""To compute a plan and to simulate balancing policies: notebook 09."""


def loop_s(kernel: str, iterations: int) -> float:
    """Return what a loop takes on a usual CPU, in seconds."""
    return iterations * SLEEP_STEP_S * (1.0 if kernel in ("python", "sleep") else COMPILED)


def trials_s(conditions: Iterable[Condition], blocks: int = 1) -> float:
    """Return the seconds that these trials take, in so many blocks, servers' starts and drains included."""
    planned, cpus = list(conditions), available_cpus()
    loops = {(condition.kernel, condition.iterations) for condition in planned}
    return blocks * (CALIBRATION_S * len(loops) + sum(_trial_s(condition, cpus) for condition in planned))


def start_s(workers: int) -> float:
    """Return the seconds until so many workers of ours accept."""
    return START_S + FORK_S * workers


def peer_start_s(workers: int, cpus: float) -> float:
    """Return the seconds until so many workers of a server that we did not write accept."""
    return PEER_START_S + PEER_SPAWN_S * workers + PEER_WORKER_CPU_S * workers / cpus


def _trial_s(condition: Condition, cpus: float) -> float:
    """Return the seconds of one trial: start, warm-up, load, the end of what it left to do, stop."""
    one_s = loop_s(condition.kernel, condition.iterations)
    cpus = min(cpus, condition.quota_cpus or cpus)
    warm_up_s = math.ceil(condition.warmup * condition.workers / cpus) * one_s
    at_work = min(condition.workers, cpus)
    load = SLOWER * condition.planned(one_s).offered_rps * one_s / at_work
    drain_s = min(max(0.0, load - 1.0) * condition.duration_s, condition.timeout_s)
    return TRIAL_S + _start_s(condition, cpus) + warm_up_s + condition.duration_s + drain_s


def _start_s(condition: Condition, cpus: float) -> float:
    return peer_start_s(condition.workers, cpus) if condition.peer else start_s(condition.workers)


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
    p = _parameters_of(notebook).from_batch({}, values)
    measuring: Callable[[Any], float] = _MEASURING[type(p)]
    return NOTEBOOK_S + measuring(p)


def measures(notebook: str) -> bool:
    """Say whether a notebook measures anything, or only reads runs."""
    return _MEASURING[_parameters_of(notebook)] is not _reading


def _parameters_of(notebook: str) -> type[Parameters]:
    module = import_module(f"lab.experiments.{notebook[3:].replace('-', '_')}")
    parameters: type[Parameters] = module.Parameters
    return parameters


def _hot_loop(p: hot_loop.Parameters) -> float:
    return sum((p.repeats + 1) * loop_s(kernel, p.iterations) for kernel in p.kernels)


def _single_vs_cluster(p: single_vs_cluster.Parameters) -> float:
    by_hand_s = 1.0 + TRIAL_S + start_s(1)
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
    groups = [*dispatch_trials.by_blocks(p).items(), (p.blocks, bound.conditions(p))]
    return sum(trials_s(group, blocks) for blocks, group in groups)


def _failures(p: failures.Parameters) -> float:
    p = expected(p)
    return trials_s(failures_trials.conditions(p), p.blocks)


def _other_servers(p: other_servers.Parameters) -> float:
    p = expected(p)
    servers = dict.fromkeys(other_trials.wanted(p), 1.0)
    groups = [(blocks, planned) for blocks, _, planned in other_trials.by_blocks(p, servers)]
    looks_s = p.looks * sum(_look_s(p, server) for server in servers)
    return looks_s + sum(trials_s(planned, blocks) for blocks, planned in groups)


def _look_s(p: other_servers.Parameters, server: str) -> float:
    """Return the seconds of a first look: start, a few answers on few and on many connections, stop."""
    workers, cpus = int(factors(server, resolve(p.workers))["workers"]), available_cpus()
    answers = 2 * p.answers + max(p.kept)
    each_s: float = SLOWER * loop_s(p.kernel, int(p.iterations)) / min(workers, cpus)
    started_s = start_s(workers) if is_ours(server) else peer_start_s(workers, cpus)
    return TRIAL_S + CALIBRATION_S + started_s + answers * each_s


def _less_than_one_core(p: less_than_one_core.Parameters) -> float:
    p = expected(p)
    return trials_s(quota_trials.conditions(p), p.blocks)


def _capacity(p: capacity.Parameters) -> float:
    if p.service_s:
        return PLANNING_S
    p = expected(p)
    calibrated_s = trials_s(prediction.of_one_worker(p), p.blocks)
    measured_s = trials_s(prediction.of_several(p), p.blocks)
    return PLANNING_S + calibrated_s + measured_s


_COUNT_S = 0.7
"""To ask every API how many CPUs there are."""


def _folk_rules(p: folk_rules.Parameters) -> float:
    groups, n, cpus = folk_trials.by_blocks(p), resolve(p.workers), available_cpus()
    counts_s = (1 + len(p.quotas)) * (_COUNT_S + counts.COUNTED_S) * p.asks("counts")
    look_s = 2 * TRIAL_S + peer_start_s(n, cpus) + p.requests / memory.RATE_RPS
    looks_s = p.blocks * look_s * p.asks("memory")
    return counts_s + looks_s + sum(trials_s(planned, blocks) for blocks, planned in groups)


def _instrument(p: instrument.Parameters) -> float:
    stalls_s = 2 * len(p.stall_rates) * (p.stall_duration_s + TRIAL_S)
    lags_s = 2 * len(p.rates) * (p.step_s + 2 * TRIAL_S)
    tools_s = _TOOLS * (p.tool_duration_s + _TOOL_S)
    fed_s = sum(_controls_s(count, p.control_iterations) for count in control.numbers(p.control_workers))
    chosen_s = _controls_s(2 * available_cpus(), [control.FIRST] * _CONTROLS)
    return stalls_s + lags_s + tools_s + fed_s + chosen_s


def _controls_s(workers: int, loops: Sequence[int]) -> float:
    """Return the seconds of one server with sleeping workers, overloaded with these loops in turn."""
    step_s = loop_s("sleep", control.STEP)
    fed = [control.planned(workers, step_s, iterations) for iterations in loops]
    fed_s = sum(TRIAL_S + control.OVERLOAD * condition.duration_s for condition in fed)
    return start_s(workers) + TRIAL_S + fed_s


def _your_server(p: your_server.Parameters) -> float:
    return your_server.plan(p).lasts_s()


def _reading(_: Parameters) -> float:
    """Return the seconds that a notebook measures which only reads runs."""
    return 0.0


_MEASURING: dict[type[Parameters], Callable[[Any], float]] = {
    capacity.Parameters: _capacity,
    hot_loop.Parameters: _hot_loop,
    single_vs_cluster.Parameters: _single_vs_cluster,
    rate_sweep.Parameters: _rate_sweep,
    scaling.Parameters: _worker_scaling,
    dispatch.Parameters: _dispatch,
    failures.Parameters: _failures,
    folk_rules.Parameters: _folk_rules,
    instrument.Parameters: _instrument,
    less_than_one_core.Parameters: _less_than_one_core,
    machines.Parameters: _reading,
    other_servers.Parameters: _other_servers,
    summary.Parameters: _reading,
    your_server.Parameters: _your_server,
}


Settings = dict[str, dict[str, Any]]
"""What to set for each notebook."""

Lasts = Callable[[str, Mapping[str, Any]], float]
"""Says how many seconds a notebook takes with these settings."""

_BLOCKS, _DURATION = "blocks", "duration_s"
_STEPS = 40


def fitted(settings: Settings, least: Settings, lasts: Lasts, budget_s: float) -> tuple[Settings, str]:
    """Return settings that fit a budget, and in words what was cut; "" if they fit as they are.

    One rule, in this order, for all notebooks alike, until it fits. Blocks are cut to six, which an interval
    needs. Trials become shorter, all by one factor, down to their durations in `least`. The notebooks that
    take longest, one by one, get all their settings from `least`. What is alike in `least` stays as it is.

    Raises UsageError if even `least` takes longer.
    """

    def fits(some: Settings) -> bool:
        return total_s(some, lasts) <= budget_s

    if fits(settings):
        return settings, ""
    if not fits(least):
        fewest = clock(total_s(least, lasts))
        raise UsageError(f"these notebooks take at least {fewest}: give as much, or fewer with --only")
    few = _fewer_blocks(settings, least)
    if fits(few):
        return few, f"blocks to {fewest_trials()}"
    steps = [_shorter(few, least, step / _STEPS) for step in range(_STEPS)]
    if fits(short := steps[0]):
        longest = bisect.bisect_left(steps, True, key=lambda some: not fits(some)) - 1
        return steps[longest], f"blocks to {fewest_trials()}, and trials to shorter ones"
    replaced = []
    for name in sorted(short, key=lambda name: lasts(name, short[name]), reverse=True):
        if not fits(short):
            short[name] = least[name]
            replaced.append(name)
    return short, f"blocks, trials, and {', '.join(replaced)} to what quick measures"


def total_s(settings: Settings, lasts: Lasts) -> float:
    """Return the seconds that all these notebooks take."""
    return sum(lasts(name, values) for name, values in settings.items())


def _fewer_blocks(settings: Settings, least: Settings) -> Settings:
    def fewer(name: str, setting: str, value: Any) -> Any:
        cuttable = setting.endswith(_BLOCKS) and value != least[name].get(setting, value)
        return min(value, max(fewest_trials(), least[name][setting])) if cuttable else value

    return _changed(settings, fewer)


def _shorter(settings: Settings, least: Settings, share: float) -> Settings:
    """Return durations between those of `least`, at 0, and those of `settings`, at 1."""

    def shorter(name: str, setting: str, value: Any) -> Any:
        if not setting.endswith(_DURATION) or value == least[name].get(setting, value):
            return value
        shortest = min(value, least[name][setting])
        shortened = shortest + share * (value - shortest)
        return round(shortened) if isinstance(value, int) else round(shortened, 2)

    return _changed(settings, shorter)


def _changed(settings: Settings, change: Callable[[str, str, Any], Any]) -> Settings:
    return {
        name: {setting: change(name, setting, value) for setting, value in values.items()}
        for name, values in settings.items()
    }
