"""Where a notebook's numbers come from: trials, searches and tables, flags, and how to make them again."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, Template

from lab import files, units
from lab.errors import LabError
from lab.experiments.searches import is_steady
from lab.flags import in_words
from lab.study.estimates import COLUMNS, factors_in_words, written
from lab.study.manifest import Manifest
from lab.study.plan import FACTORS, NOT_LABELS
from lab.study.run import Run
from lab.study.stability import offered_rps

MOST_LISTED = 400
"""Trials of an experiment that a page lists, and as many that it lists as flagged: a page stays light."""

SAMPLED = 5
"""Requests of one trial that a page shows, so that its reader sees what the rows are."""

_TABLES = {
    "hot-loop": ("hot-loop-",),
    "other-servers": ("look-",),
    "instrument": ("ceilings-", "stalls-", "control-", "tools-"),
    "capacity": ("predicted-", "capacity-plan"),
    "folk-rules": ("cpu-counts-", "starts-of-workers"),
}
"""How the names of the tables begin that an experiment keeps beside its trials and searches."""


def section(run: Run, experiment: str) -> str:
    """Return what a page says of where an experiment's numbers come from, as HTML; "" if nothing is kept.

    It lists trials with their flags and files, the trials of searches, other tables, and the commands that
    make all of it again. Of requests it holds a sample: the rest is in the run's folder, and it says where.
    """
    try:
        trials = run.trials(experiment)
        kept = [_kept(run, name) for name in _tables(run, experiment)]
        if trials.empty and not kept:
            return ""
        listed = trials.head(MOST_LISTED)
        groups = list(_groups(run, experiment, listed))
        flagged = trials[~trials["valid"]]
        return _template().render(
            experiment=experiment,
            run=run.run_id,
            trials=len(trials),
            blocks=trials["block"].nunique(),
            left_out=len(trials) - len(listed),
            groups=groups,
            flagged=[
                (trial["trial_id"], in_words(trial["flags"]))
                for trial in flagged.head(MOST_LISTED).to_dict("records")
            ],
            flagged_left_out=max(0, len(flagged) - MOST_LISTED),
            kept=kept,
            numbers=_numbers(run, experiment, groups, kept),
            sample=_sample(run, groups),
            commands=_commands(run, experiment),
        )
    except LabError as error:
        return _template().render(experiment=experiment, failure=str(error))


def made_by(about: Manifest | None, run_id: str, only: Sequence[str] = ()) -> str:
    """Return the command that executes notebooks into a run as it was begun: its own, or `only` these."""
    words = ["lab", "study", "--run", run_id]
    if about:
        if about.profile and (files.notebooks() / "profiles" / about.profile).is_dir():
            words += ["--profile", about.profile]
        names = only or about.notebooks
        words += [word for name in names for word in ("--only", name)]
        for name, values in about.parameters.items():
            for key, value in values.items() if isinstance(values, dict) and name in names else ():
                words += ["-p", f"{name}.{key}={json.dumps(value)}"]
    return shlex.join(words)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("evidence.html.j2")


@dataclass(frozen=True)
class _Kept:
    """A table of the run that numbers come from: its name, rows, and the trials of a search if it is one."""

    name: str
    rows: int
    search: Sequence[Mapping[str, str]]

    @property
    def anchor(self) -> str:
        return f"table-{self.name}"


def _tables(run: Run, experiment: str) -> list[str]:
    beginnings = (f"sustained-rates-{experiment}", *_TABLES.get(experiment, ()))
    return [name for beginning in beginnings for name in sorted(run.by_age(beginning))]


def _kept(run: Run, name: str) -> _Kept:
    rows = run.kept(name)
    search = list(_searched(rows)) if name.startswith("sustained-rates-") else []
    return _Kept(name, len(rows), search)


def _searched(rows: pd.DataFrame) -> Iterator[dict[str, str]]:
    for row in rows.head(MOST_LISTED).to_dict("records"):
        steady = ", at a steady speed" if is_steady(row.get("objective")) else ""
        yield {
            "server": _server(row),
            "rate": units.digits(row["rate"]),
            "throughput": _digits(row.get("throughput")),
            "latency": _milliseconds(row.get(f"latency_p{row['slo_percentile']}_s")),
            "percentile": f"p{row['slo_percentile']}{steady}",
            "share": _share(row.get("share_of_limit")),
            "became": _became(row),
        }


def _became(row: Mapping[Any, Any]) -> str:
    flags = row.get("flags")
    if flags is not None and len(flags):
        return f"flagged: {in_words(flags)}"
    return "held" if row.get("good") else f"did not hold: {row.get('missed') or 'latency grew'}"


@dataclass(frozen=True)
class _Group:
    """The trials of one condition, in the order of their blocks."""

    anchor: str
    title: str
    trials: Sequence[Mapping[str, Any]]


def _groups(run: Run, experiment: str, trials: pd.DataFrame) -> Iterator[_Group]:
    """Put trials together by their condition: what a number is usually of."""
    by_title: dict[str, list[dict[str, Any]]] = {}
    labels = sorted(set(trials.columns) - NOT_LABELS - set(FACTORS))
    limit_rps = offered_rps(trials) / trials["utilisation"]
    trials = trials.assign(limit_share=trials["throughput_rps"] / limit_rps)
    for trial in trials.sort_values(["block", "position"]).to_dict("records"):
        by_title.setdefault(_title(trial, labels), []).append(
            {
                "id": trial["trial_id"],
                "block": trial["block"],
                "rate": units.digits(trial["rate"]),
                "throughput": _digits(trial["throughput_rps"]),
                "p99": _milliseconds(trial["latency_p99_s"]),
                "share": _share(trial["limit_share"]),
                "valid": trial["valid"],
                "flags": in_words(trial["flags"]) or "yes",
                "rows": _rows(run, trial["trial_id"]),
            }
        )
    for number, (title, mine) in enumerate(by_title.items(), start=1):
        yield _Group(f"trials-{experiment}-{number}", title, mine)


def _title(trial: Mapping[Any, Any], labels: Iterable[str]) -> str:
    """Name a condition: the server, its load, and what else is not as usual."""
    usual = {"kernel": "python", "path": "/api/slow", "arrivals": "constant"}
    load, quota = trial["load"], trial["quota_cpus"]
    parts = [
        _server(trial),
        *(str(trial[name]) for name, value in usual.items() if trial[name] != value),
        units.per_second(trial["rate"]) if pd.isna(load) else f"load {load:g}",
        *(words for name, words in (("keepalive", "kept connections"), ("pin", "pinned")) if trial[name]),
        *([] if pd.isna(quota) else [f"quota of {units.counted(quota, 'CPU')}"]),
        *(f"{name} {trial[name]}" for name in labels if not pd.isna(trial[name])),
    ]
    return ", ".join(parts)


_POOLS = {"process": "pool of processes", "thread": "pool of threads"}


def _server(row: Mapping[Any, Any]) -> str:
    if row["topology"] == "single" and not row.get("peer"):
        return "one process"
    how = row.get("peer") or (row["dispatch"] if row["topology"] == "cluster" else _POOLS[row["pool"]])
    bound = row.get("bound") or 1
    return f"{units.counted(row['workers'], 'worker')}, {how}" + (f", bound {bound:g}" if bound > 1 else "")


def _rows(run: Run, trial_id: str) -> str:
    try:
        return f"{run.glimpse(trial_id)[0]:,}"
    except LabError:
        return "missing"


def _numbers(
    run: Run, experiment: str, groups: Sequence[_Group], kept: Sequence[_Kept]
) -> list[dict[str, Any]]:
    """Return the experiment's estimates, each with links to what it was computed from."""
    found = run.newest("estimates")
    if found is None or not set(COLUMNS) <= set(found.columns):
        return []  # the run's summary has not run yet, or is of an earlier version
    places = {trial["id"]: group for group in groups for trial in group.trials}
    tables = {one.name: one for one in kept}
    return [
        {
            "key": row["key"],
            "quantity": row["quantity"],
            "of": factors_in_words(row["factors"]),
            "unit": row["unit"],
            "value": written(row["value"], row["unit"]),
            "interval": units.bounds(row["low"], row["high"], partial(written, unit=row["unit"])),
            "n": row["n"],
            "sources": list(_links(row["sources"], places, tables)),
        }
        for row in found[found["experiment"] == experiment].to_dict("records")
    ]


def _links(
    sources: Iterable[str], places: Mapping[str, _Group], tables: Mapping[str, _Kept]
) -> Iterator[tuple[str, str]]:
    """Yield where each source is on this page, and in words; "" for one that is not."""
    of_group: dict[str, list[str]] = {}
    for source in sources:
        if source in tables:
            yield tables[source].anchor, f"table {source}"
        elif source in places:
            of_group.setdefault(places[source].anchor, []).append(source)
        else:
            yield "", source
    by_anchor = {group.anchor: group for group in places.values()}
    for anchor, mine in of_group.items():
        group = by_anchor[anchor]
        some = "" if len(mine) == len(group.trials) else f" of {len(group.trials)}"
        yield anchor, f"{units.counted(len(mine), 'trial')}{some}: {group.title}"


def _sample(run: Run, groups: Sequence[_Group]) -> dict[str, Any] | None:
    """Return the first requests of the first trial that has any."""
    for trial in (
        trial for group in groups for trial in group.trials if trial["rows"] not in ("missing", "0")
    ):
        count, rows = run.glimpse(trial["id"], SAMPLED)
        cells = [[_cell(value) for value in row] for row in rows.itertuples(index=False)]
        return {"id": trial["id"], "count": count, "columns": list(rows.columns), "rows": cells}
    return None


def _cell(value: Any) -> str:
    if pd.isna(value):
        return "–"
    return value if isinstance(value, str) else f"{value:.7g}"


def _commands(run: Run, experiment: str) -> dict[str, str]:
    """Return the commands that show and measure an experiment again, and the lines that open its rows."""
    about = run.manifest
    named = [name for name in about.notebooks if name[3:] == experiment]
    return {
        "again": made_by(about, run.run_id, named),
        "anew": made_by(about, "new", named),
        "open": f'import lab\nrun = lab.open_run("{run.run_id}")\ntrials = run.trials("{experiment}")',
    }


def _digits(value: Any) -> str:
    return units.digits(float("nan") if value is None else value)


def _milliseconds(value_s: Any) -> str:
    return _digits(None if value_s is None else 1000 * value_s)


def _share(share: Any) -> str:
    return _digits(None if share is None else 100 * share)
