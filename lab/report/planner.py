"""The planner: a rate and an objective in, workers out, from this run's service times, as in notebook 09."""

import ast
import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from jinja2 import Environment, FileSystemLoader

from lab import units
from lab.errors import LabError, UsageError
from lab.experiments.capacity import EXPERIMENT, Parameters, plan, prediction, score
from lab.experiments.capacity import case as study
from lab.experiments.capacity.case import Case, Sustained
from lab.study.run import Run

_TEMPLATES = Path(__file__).parent / "templates"
_NOTEBOOK = "09-capacity.ipynb"

_MOST_TIMES = 2000
"""Service times in the page; of more, as many quantiles."""

_MOST_STEPS = 8
"""Numbers of workers that the page knows beforehand, at most."""


def section(run: Run) -> str:
    """Return the planner of a run as HTML, or "" if notebook 09 has measured nothing in it to plan with.

    It answers what `lab.models.capacity` answers; without a script, it is a table.
    """
    try:
        shown = _shown(run)
    except (LabError, UsageError):  # nobody answered, or the notebook had other parameters than today's
        return ""
    if shown is None:
        return ""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True)
    scripts = [(_TEMPLATES / name).read_text() for name in ("queue.js", "planner.js")]
    return environment.get_template("planner.html.j2").render(
        asked=shown.asked,
        answer=shown.answer,
        steps=shown.steps,
        validated=shown.validated,
        measured=shown.measured,
        data=json.dumps(shown.data()).replace("<", "\\u003c"),
        script="\n".join(scripts),
    )


def _shown(run: Run) -> "_Shown | None":
    p = _parameters(run)
    trials = run.trials(EXPERIMENT)
    one = trials[(trials["workers"] == 1) & (trials["arrivals"] == "constant")]
    if p is None or (one.empty and not p.service_s):
        return None
    if not p.service_s:
        p = p.model_copy(update={"iterations": int(one["iterations"].iloc[0])})
    known = prediction.calibration(run, p) if p.service_s else prediction.learnt(run.requests(one))
    case = study.case(p, known)
    cpus = run.manifest.machine.available_cpus
    sustained, validated = Sustained(cpus if p.workers == "cpus" else int(p.workers), None, math.nan), 0
    predicted = run.newest(prediction.BANDS)
    if predicted is not None and len(several := score.predicted_among(trials, predicted)):
        requests = run.requests(several)
        several = prediction.with_steady(several, requests)
        predicted = predicted.assign(sustained=math.nan, steady=math.nan, by_formula=False)
        sustained = score.sustained_in(several, predicted, p.slo_percentile, p.slo_loops)
        validated = score.validated(score.score(predicted, several, requests))
    return _Shown(
        replace(case, service_s=_embedded(case.service_s), slo_s=float(f"{case.slo_s:.4g}")),
        p,
        cpus,
        validated,
        sustained,
    )


def _parameters(run: Run) -> Parameters | None:
    """Return what notebook 09 ran with in this run; None if it did not."""
    path = run.path / "notebooks" / _NOTEBOOK
    if not path.exists():
        return None
    given: dict[str, Any] = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", ())):
            given |= _literals(cell.source)
    known = {name: value for name, value in given.items() if name in Parameters.model_fields}
    return Parameters.from_batch({}, known)


def _literals(source: str) -> dict[str, Any]:
    """Read the literals that a cell assigns to names."""
    found = {}
    for line in ast.parse(source).body:
        if isinstance(line, ast.Assign | ast.AnnAssign) and line.value:
            name = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            if isinstance(name, ast.Name):
                found[name.id] = ast.literal_eval(line.value)
    return found


def _embedded(service_s: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return service times as the page has them: in order, of seven digits."""
    if len(service_s) > _MOST_TIMES:
        service_s = np.quantile(service_s, (np.arange(_MOST_TIMES) + 0.5) / _MOST_TIMES)
    return np.array([float(f"{value:.7g}") for value in np.sort(service_s)])


@dataclass(frozen=True, eq=False)
class _Shown:
    """What the planner shows of a case at first."""

    case: Case
    p: Parameters
    cpus: int
    validated: int
    sustained: Sustained

    @cached_property
    def rate_rps(self) -> float:
        """The rate that 09 planned for, of three digits, rounded down; or half of what the CPUs can do."""
        rate_rps, _ = study.rate_to_plan(self.p, self.case, self.sustained)
        rate_rps = rate_rps or self.cpus / (2 * self.case.mean_s)
        digit = 10 ** (np.floor(np.log10(rate_rps)) - 2)
        return rate_rps if self.p.rate else float(f"{np.floor(rate_rps / digit) * digit:.3g}")

    @cached_property
    def highest_rps(self) -> list[float]:
        """The highest rate of each number of workers, without headroom."""
        return [self.case.highest_rps(n) for n in range(1, min(max(4, 2 * self.cpus), _MOST_STEPS) + 1)]

    @property
    def asked(self) -> dict[str, str]:
        """What the form's fields hold at first."""
        return {
            "rate": f"{self.rate_rps:.12g}",
            "percentile": str(self.case.slo_percentile),
            "limit_ms": f"{1e3 * self.case.slo_s:.12g}",
            "headroom": f"{100 * self.case.headroom:.12g}",
            "price": f"{self.p.price_per_core_hour:.12g}",
        }

    @property
    def steps(self) -> list[dict[str, str]]:
        """The rows of the table: each number of workers, the rate that it is for, and how that is known."""
        return [
            {
                "workers": str(n),
                "rate": units.per_second(rate_rps / (1 + self.case.headroom)) if rate_rps else "none",
                "known": plan.status(n, self.validated, self.cpus),
            }
            for n, rate_rps in enumerate(self.highest_rps, start=1)
        ]

    @property
    def answer(self) -> str:
        """Answer what is asked at first, for a page without a script."""
        asked = f"{study.rate_in_words(self.rate_rps)} with {self.case.slo}"
        needed = self.case.needed(self.rate_rps)
        if needed.workers is None:
            return f"No number of workers keeps {self.case.slo}: {needed.why}."
        workers = units.counted(needed.workers, "worker")
        known = plan.status(needed.workers, self.validated, self.cpus)
        return f"{asked} and {units.percent(self.case.headroom)} headroom needs {workers} ({known})."

    @property
    def measured(self) -> dict[str, float] | None:
        """The ends of the rate that so many workers sustained; None if the trials do not tell."""
        if (share := self.sustained.share) is None:
            return None
        low_rps, high_rps = (
            self.sustained.rate_rps(end, self.case.loop_s) for end in (share.low, share.high)
        )
        return {"workers": self.sustained.workers, "low_rps": low_rps, "high_rps": high_rps}

    def data(self) -> dict[str, Any]:
        """Return what the script computes with; times in seconds."""
        speeds = self.case.speeds()
        return {
            "service_s": self.case.service_s.tolist(),
            "beside_s": self.case.beside_s,
            "dispatch": self.case.queue,
            "queue": study.IN_WORDS[self.case.queue],
            "cpus": self.cpus,
            "validated": self.validated,
            "measured": self.measured,
            "slowest": speeds["slowest"],
            "fastest": speeds["fastest"],
            "asked": {name: float(text) for name, text in self.asked.items()},
            "highest": [
                rate_rps * self.case.mean_s / n for n, rate_rps in enumerate(self.highest_rps, start=1)
            ],
        }
