"""What is to be measured of a server of the reader's, checked before anything starts."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from lab.cards import Card, Shown, listed
from lab.checks import Duration, Seconds, checked
from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.load import target
from lab.load.report import Slo
from lab.models.sizing import worth_measuring
from lab.servers.foreign import ForeignSpec
from lab.study.parameters import WorkerCount
from lab.study.sustained import Precision
from lab.units import clock

USUAL_TRIALS, _MOST_TRIALS = 7, 10
"""Of a search: what it takes on a quiet machine, and in whose time it ends."""

_TRIAL_S = 0.5
"""A trial's own: a generator starts, and ends."""

LONGER = 3.0
"""How many times as long as another trial one that looks at latencies may be, to have enough requests."""

_START_S = 2.0
"""Of a number of workers: the server starts, answers a few requests one at a time, and stops."""

_DRAINS = 1.5
"""What overloads take to drain, in trials."""

_DRAIN_S = 3.0
"""What a server has to end once told; then it is killed."""

_MASK = "..."


def _is_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("must begin with /")
    return text


def _sorted(counts: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(counts)))


@checked
@dataclass(frozen=True, kw_only=True, repr=False)
class Plan(Shown):
    """What `size` is to measure.

    command: how the server starts, as `ForeignSpec` has it; or else url: a server that is already running.
    path: what is requested, and ready_path, what answers once it is ready, if another. workers: how many it
    should have, in turn; none for `worth_measuring` of the CPUs there are. slo: what every request must get.
    duration_s, precision: of each trial, and of the bounds. folder: where the command runs; none for here.
    request: further options of `attack`.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    path: Annotated[str, AfterValidator(_is_path)] = "/"
    ready_path: str = ""
    workers: Annotated[tuple[WorkerCount, ...], AfterValidator(_sorted)] = ()
    slo: tuple[str, ...] = ("p99=250ms",)
    duration_s: Duration = 1.5
    precision: Precision = 0.1
    folder: str = ""
    start_timeout_s: Seconds = 30.0
    request: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, before anything starts."""
        if bool(self.command) == bool(self.url):
            raise UsageError("give a command that starts the server, after --, or the --url of a running one")
        if self.url:
            target.parse(self.url)
        if self.url and self.workers:
            raise UsageError(
                "a running server has the workers it has: leave out --workers, or give a command"
            )
        if not Slo.parse_all(self.slo):
            raise UsageError("give at least one SLO, such as p99=250ms")
        if len(self.command) == 1 and len(self.command[0].split()) > 1 and not shutil.which(self.command[0]):
            raise UsageError(
                f"there is no program {self.command[0]!r}: leave out the quotes around a command"
            )
        if self.command:
            self.spec(1)

    def __repr__(self) -> str:
        return f"<Plan to size {self.url or self.command[0]}>"  # a command, or headers, may hold a secret

    def _card(self) -> Card:
        workers = {} if self.url else {"workers": listed(self.counts())}
        facts = {"path": self.path, **workers, "SLO": ", ".join(map(str, Slo.parse_all(self.slo)))}
        about = self.url or self.command[0]
        return Card(f"Plan to size {about}", facts | {"takes": f"about {clock(self.lasts_s())}"})

    def counts(self) -> list[int | None]:
        """Return the numbers of workers to measure; None for a server that is already running."""
        if self.url:
            return [None]
        return [*(self.workers or worth_measuring(available_cpus()))]

    def spec(self, workers: int) -> ForeignSpec:
        """Return how the server starts with so many workers."""
        return ForeignSpec(
            command=self.command,
            workers=workers,
            ready_path=self.ready_path or self.path,
            folder=Path(self.folder) if self.folder else None,
            start_timeout_s=self.start_timeout_s,
            drain_s=_DRAIN_S,
        )

    def lasts_s(self) -> float:
        """Return the seconds that all of it usually takes."""
        search_s = (USUAL_TRIALS + _DRAINS) * (float(self.duration_s) + _TRIAL_S)
        each_s = _START_S + search_s + 2 * (LONGER * float(self.duration_s) + _TRIAL_S)
        return each_s * len(self.counts())

    def search_s(self) -> float:
        """Return the seconds after which a search for a sustained rate is ended."""
        return _MOST_TRIALS * (float(self.duration_s) + _TRIAL_S)

    def shown(self) -> dict[str, Any]:
        """Return the options of requests as they may be kept: what headers and a body say may be secret."""
        kept = {name: value for name, value in self.request.items() if value}  # nothing is every default
        if "headers" in kept:
            given = kept["headers"]
            pairs = given.items() if isinstance(given, Mapping) else given
            kept["headers"] = [[name, _MASK] for name, _ in pairs]
        if kept.get("body"):
            kept["body"] = _MASK
        return kept

    def digest(self) -> str:
        """Return a name for what is measured, whatever the numbers of workers."""
        kept = {**asdict(self), "request": self.shown(), "workers": None}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]
