"""What an attack gives: every request, and the numbers. Both can be kept in a file and had back from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError
from lab.load.crew import Log

if TYPE_CHECKING:
    import pandas as pd

    from lab.load.arrivals import Times

_KEPT = (
    "url",
    "arrivals",
    "rate",
    "duration_s",
    "profile",
    "generator",
    "errors",
    "warmup_errors",
    "stopped_s",
)
"""What a summary needs besides the records."""


@dataclass(frozen=True)
class Result:
    """What became of every planned request, and the numbers of `lab attack --format json`.

    `warmup` holds the requests that were due before time 0; of the numbers, only `summary["warmup"]` is about
    them.
    """

    requests: "pd.DataFrame"
    summary: dict[str, Any]
    warmup: "pd.DataFrame"

    def save(self, path: str | Path) -> None:
        """Write everything to a Parquet file, whole or not at all. Raises LabError if that cannot be."""
        import pandas as pd

        from lab.load import records

        rows = pd.concat([self.warmup, self.requests]) if len(self.warmup) else self.requests
        kept = self.summary | {"warmup_errors": self.summary["warmup"]["errors"]}
        records.write(path, rows, {name: kept[name] for name in _KEPT})

    @staticmethod
    def load(path: str | Path) -> "Result":
        """Return what `save` wrote, summarized anew. Raises LabError if the file is anything else."""
        from lab.load import records

        rows, kept = records.read_with_metadata(path)
        if missing := [name for name in _KEPT if name not in kept]:
            raise LabError(
                f"cannot read {path}: it does not say {missing[0]}; was it written by lab attack --out?"
            )
        return summarized(rows, **{name: kept[name] for name in _KEPT})


class Interrupted(KeyboardInterrupt):
    """An attack was interrupted; `result` is what it had until then, marked as invalid."""

    def __init__(self, result: Result) -> None:
        super().__init__("the attack was interrupted")
        self.result = result


def from_log(log: Log, due_s: "Times", asked: Mapping[str, Any]) -> Result:
    """Return the result of an attack from what its generators wrote down."""
    from lab.load.joint import joint_figures
    from lab.load.records import to_frame

    return summarized(
        to_frame(due_s, log.columns),
        generator=log.health | joint_figures(due_s, log.columns),
        errors=log.errors,
        warmup_errors=log.warmup_errors,
        stopped_s=log.stopped_s,
        **asked,
    )


def summarized(rows: "pd.DataFrame", *, warmup_errors: Mapping[str, int], **kept: Any) -> Result:
    """Keep the warm-up apart, and count the rest."""
    from lab.load.summary import account, summarize

    counted = rows["due_s"] >= 0
    requests, warmup = (rows[which].reset_index(drop=True) for which in (counted, ~counted))
    summary = summarize(requests, **kept) | {"warmup": account(warmup, warmup_errors)}
    return Result(requests, summary, warmup)
