"""What several notebooks share: workers and loops that suit the machine, servers by name, what trials say."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Annotated, Any, TypeVar

import pandas as pd

from lab.checks import Before
from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.experiments import control
from lab.flags import KINDS
from lab.models.scaling import WorkerTime, worker_time
from lab.models.statistics import Estimate, fewest_trials
from lab.study.parameters import Parameters, startable
from lab.study.run import Run
from lab.units import Number, counted, plain


def _workers(value: Any) -> int | str:
    """Read a number of workers, or the word for one on each CPU."""
    text = str(value)
    if text != "cpus" and not (text.isdecimal() and int(text) >= 1):
        raise ValueError("must be 'cpus' or a whole number, at least 1")
    return text if text == "cpus" else startable(int(text))


Workers = Annotated[int | str, Before(_workers)]
"""A number of workers, or "cpus": one for each CPU."""


def resolve(workers: int | str) -> int:
    """Return the number of workers: "cpus" means one for each CPU that this process may use."""
    return available_cpus() if workers == "cpus" else int(workers)


AUTO = "auto"


def _iterations(value: Any) -> int | str:
    """Read a number of iterations, or the word for what suits this machine."""
    if value == AUTO:
        return AUTO
    try:
        read = float(value)
    except (TypeError, ValueError):
        read = -1.0
    if isinstance(value, bool) or read < 0 or read != int(read):
        raise ValueError(f"must be {AUTO!r} or a whole number, at least 0")
    return int(read)


Iterations = Annotated[int | str, Before(_iterations)]
"""The length of the hot loop, or "auto": the shortest that this machine's harness can feed to all workers."""

Settings = TypeVar("Settings", bound=Parameters)


def settled(p: Settings, run: Run) -> Settings:
    """Return the parameters with a number for "auto" iterations: the same in all notebooks of a run."""
    given = p.model_dump()
    return p.model_copy(update={"iterations": length(given["iterations"], run, given["kernel"])})


def length(iterations: int | str, run: Run, kernel: str) -> int:
    """Return a number of iterations: for "auto", the shortest loop that the harness can feed."""
    return control.iterations(run, kernel) if iterations == AUTO else int(iterations)


def expected(p: Settings) -> Settings:
    """Return the parameters with the likely number for "auto" iterations, to plan with."""
    auto = p.model_dump()["iterations"] == AUTO
    return p.model_copy(update={"iterations": control.FIRST}) if auto else p


def by_server(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Split trials or requests by their server: each with its name in figures and tables, smallest first.

    The same servers come in the same order and with the same names, whatever the rows are.
    """
    several = frame["topology"] != "single"
    servers = frame.groupby(["workers", several.rename("several"), "topology", "dispatch"])
    return [(_name(rows.iloc[0]), rows) for _, rows in servers]


def _name(server: "pd.Series[Any]") -> str:
    if server["topology"] == "single":
        return "one process"
    return f"{counted(server['workers'], 'worker')}, {server['dispatch']}"


def named_by(trials: pd.DataFrame) -> dict[str, Any]:
    """Return the factors that name the server of these trials: one process, or workers and their dispatch."""
    server = trials.iloc[0]
    several = {"workers": int(server["workers"]), "dispatch": server["dispatch"]}
    return {"topology": server["topology"]} | ({} if server["topology"] == "single" else several)


def spread_is(blocks: int) -> str:
    """Say what a bar over this many blocks is: a 95 % interval, or the whole range if too few for one."""
    if blocks >= fewest_trials():
        return f"95 % interval of the median over {blocks} blocks"
    return f"range over {counted(blocks, 'block')}, too few for a confidence interval"


def spread(found: Estimate, write: Callable[[float], Number | str] = plain) -> str:
    """Write where an estimate may lie: 1.88 to 1.97; or of how many blocks that is only the range."""
    return worded(found, write).spread


def worded(found: Estimate, write: Callable[[float], Number | str] = plain, each: str = "block") -> Number:
    """Return an estimate with where it may lie, 1.93 (1.88 to 1.97); `each` is what was measured often."""
    value, low, high = (
        one if isinstance(one := write(end), Number) else Number(one)
        for end in (found.value, found.low, found.high)
    )
    if found.is_interval:
        return replace(value, low=low, high=high)
    measured = counted(found.trials, each)
    if found.trials == 1:
        return replace(value, note=measured)
    return replace(value, low=low, high=high, note=f"range of {measured}")


_TIMES = [column.name for column in fields(WorkerTime) if column.name != "workers"]


def accounted(run: Run, trials: pd.DataFrame) -> pd.DataFrame:
    """Add to each trial how its workers spent their time, as columns of `lab.models.scaling.WorkerTime`.

    busy_rps: throughput while all workers could be busy, which the wait for the last answer is not in; nan if
    they never were busy together.
    """
    requests = run.requests(trials)
    answered = requests[requests["outcome"] == "ok"]
    of_trial = dict(list(answered.groupby("trial_id")))
    nothing = answered.head(0)
    rows = [
        _time_of(int(workers), of_trial.get(trial_id, nothing))
        for trial_id, workers in zip(trials["trial_id"], trials["workers"], strict=True)
    ]
    times = pd.DataFrame(rows, index=trials.index, columns=_TIMES, dtype=float)
    return trials.assign(
        **{name: times[name] for name in _TIMES}, busy_rps=times["answered"] / times["window_s"]
    )


def _time_of(workers: int, answered: pd.DataFrame) -> dict[str, float]:
    if answered["worker"].nunique() > workers:
        return {}  # one died and was replaced: not a trial of so many workers
    columns = ("worker", "sent_s", "end_s", "service_s", "service_cpu_s")
    known = {name: answered.get(name, math.nan) for name in columns}
    found = worker_time(workers, **pd.DataFrame(known, answered.index, dtype=float))
    return vars(found) if found else {}


def time_of(trial: "pd.Series[float]") -> WorkerTime:
    """Return what `accounted` put in a trial's row."""
    return WorkerTime(int(trial["workers"]), **{name: float(trial[name]) for name in _TIMES})


def flag_table(trials: pd.DataFrame) -> pd.DataFrame:
    """Count the flagged trials, a row for each reason, with the range of its values."""
    found = pd.DataFrame([vars(flag) for flags in trials["flags"] for flag in flags])
    if found.empty:
        return pd.DataFrame({"flagged because": ["no trial is flagged"], "trials": f"0 of {len(trials)}"})
    return pd.DataFrame(
        {
            "flagged because": KINDS[str(code)].text.rstrip(",:").removesuffix(" by"),
            "trials": f"{len(alike)} of {len(trials)}",
            "lowest value": _shown(str(code), alike["value"].min()),
            "highest value": _shown(str(code), alike["value"].max()),
        }
        for code, alike in found.groupby("code", sort=False)
    )


def _shown(code: str, value: float) -> str:
    return "" if pd.isna(value) else KINDS[code].show(value)


def with_unflagged(trials: pd.DataFrame, tabulate: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """Tabulate all trials; if some are flagged, add rows for the others alone, if there are enough."""
    rows, unflagged = tabulate(trials), trials[trials["valid"]]
    if len(unflagged) == len(trials):
        return rows
    try:
        both = {"all": rows, "unflagged": tabulate(unflagged)}
    except UsageError:
        both = {"all": rows}
    found = pd.concat(both, names=["trials", ""]).reset_index("trials")
    return mainly(found, "trials", *rows.attrs["main"]) if "main" in rows.attrs else found


def mainly(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return a wide table with the names of the columns that matter most; a page folds the others."""
    table.attrs["main"] = list(columns)
    return table
