"""The title of `lab plot`: what a reader who sees nothing else must know, from results made by hand."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.load_rows import GENERATOR, rows
from matplotlib.figure import Figure

from lab.cli import main
from lab.load.attack import summarized
from lab.load.log import Outcome

OK, FAILED, DROPPED, UNFINISHED = Outcome.OK, Outcome.HTTP_ERROR, Outcome.DROPPED, Outcome.UNFINISHED
OVERLOADED = {"cpu_share": 0.99}


@pytest.mark.parametrize(
    ("outcomes", "stopped_s", "health", "title"),
    [
        ([OK] * 100, None, {}, "10.0/s sent, all answered well, p99 20.0 ms"),
        ([OK] * 100, None, OVERLOADED, "Not valid: 10.0/s sent, all answered well, p99 20.0 ms"),
        (
            [OK] * 96 + [FAILED] * 4, None, {},
            "10.0/s sent, 9.60/s answered well, 4 requests failed, p99 20.0 ms",
        ),
        (
            [OK] * 26 + [UNFINISHED] + [DROPPED] * 73, 2.7, {},
            "Interrupted after 2.70 s: 10.0/s sent, 9.63/s answered well, 1 request unanswered, "
            "73 requests not sent, p99 20.0 ms",
        ),
        (
            [OK] * 27 + [DROPPED] * 73, 2.7, OVERLOADED,
            "Interrupted after 2.70 s, not valid: 10.0/s sent, 73 requests not sent, p99 20.0 ms",
        ),
        ([DROPPED] * 100, 0.0, {}, "Interrupted in the warm-up: 0.00/s sent, 100 requests not sent"),
    ],
)  # fmt: skip
def test_the_title_says_what_a_result_is_worth(
    outcomes: list[Outcome],
    stopped_s: float | None,
    health: dict[str, Any],
    title: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {"url": "http://x/", "arrivals": "constant", "rate": 10, "duration_s": 10.0}
    kept: dict[str, Any] = {"generator": GENERATOR | health, "errors": {}, "warmup_errors": {}}
    requests = rows([0.02] * len(outcomes), outcomes)
    summarized(requests, stages=None, stopped_s=stopped_s, **asked, **kept).save(tmp_path / "a.parquet")
    figures = import_module("lab.figures")
    drawn = []

    def drawing(table: pd.DataFrame, title: str, *more: Any, **about: Any) -> Figure:
        drawn.append(title)
        return Figure()

    monkeypatch.setattr(figures, "over_time", drawing)
    with pytest.raises(SystemExit, match="0"):
        main(["plot", str(tmp_path / "a.parquet")])
    assert drawn == [title]


@pytest.mark.parametrize("stopped_s", [4.0, -1.0])
def test_of_a_long_plan_only_what_was_offered_is_drawn_and_its_end_is_marked(
    stopped_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = 40 if stopped_s > 0 else 0
    requests = rows([0.02] * 100_000, [OK] * sent + [DROPPED] * (100_000 - sent))
    asked: dict[str, Any] = {
        "url": "http://x/?a=$b&c=$d_{",
        "arrivals": "constant",
        "rate": 10,
        "duration_s": 1e4,
    }
    kept: dict[str, Any] = {"generator": GENERATOR, "errors": {}, "warmup_errors": {}}
    summarized(requests, stages=None, stopped_s=stopped_s, **asked, **kept).save(tmp_path / "a.parquet")
    figures = import_module("lab.figures")
    draw, drawn = figures.over_time, list[Figure]()

    def drawing(*drawn_of: Any, **about: Any) -> Figure:
        drawn.append(draw(*drawn_of, **about))
        return drawn[-1]

    monkeypatch.setattr(figures, "over_time", drawing)
    with pytest.raises(SystemExit, match="0"):
        main(["plot", str(tmp_path / "a.parquet")])
    first, *_, last = drawn[0].axes
    assert last.get_xlim()[1] <= max(stopped_s, 0) + 1
    assert [text.get_text() for text in first.texts] == ["interrupted"]
